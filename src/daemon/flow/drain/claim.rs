//! Which rows are sent next, and when the next claim makes sense.

use super::{DrainFlow, NextClaim, STORE_RETRY};
use claudemesh_fsm::outbox::{Inflight, Row};
use std::time::Duration;

impl DrainFlow {
    /// Claims what is due and expires what is too old.
    pub(super) async fn claim(
        &self,
        limit: usize,
        max_age_ms: u64,
    ) -> (Vec<Row<Inflight>>, NextClaim) {
        let paused_until = self.rate_backoff.paused_until();
        if self.runtime.monotonic() < paused_until {
            return (Vec::new(), NextClaim::At(paused_until));
        }
        let now = self.runtime.now();
        let (expired_before, jumped) = self.expiry.expiry_cutoff(&self.runtime, max_age_ms);
        let claimed = async {
            if jumped {
                self.outbox.expedite(self.mesh.slug(), now).await?;
                self.expiry.acknowledge_jump(&self.runtime);
            }
            self.outbox.claim_due(self.mesh.slug(), now, expired_before, limit).await
        };
        let claimed = match claimed.await {
            Ok(claimed) => {
                // A claim of nothing wrote nothing.
                if !claimed.rows.is_empty() {
                    self.note_store_works();
                }
                claimed
            }
            Err(error) => {
                self.note_store_failed(&error);
                return (Vec::new(), NextClaim::At(self.runtime.monotonic() + STORE_RETRY));
            }
        };
        let had_expired = !claimed.expired.is_empty();
        for row in claimed.expired {
            // An expiry that cannot be stored now is found again by a later claim.
            if let Err((_, error)) = self.outbox.store(row.expire()).await {
                self.note_store_failed(&error);
                return (claimed.rows, NextClaim::At(self.runtime.monotonic() + STORE_RETRY));
            }
        }
        let next = match claimed.next_due_at {
            // What expired was still due when the next one was looked for.
            _ if claimed.more || had_expired => NextClaim::Now,
            None => NextClaim::WhenWoken,
            // What was due is claimed. Whatever says otherwise is not asked again at once.
            Some(due_at) if due_at <= now => NextClaim::At(self.runtime.monotonic() + STORE_RETRY),
            Some(due_at) => {
                let wait = Duration::from_millis(due_at.since(now));
                NextClaim::At(self.runtime.monotonic() + wait)
            }
        };
        (claimed.rows, next)
    }
}
