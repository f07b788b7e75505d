//! One attempt to send a row, and what its answer makes of the row.

use super::{DrainFlow, STORE_RETRY, offline_recipients};
use crate::mesh::roster;
use crate::port::{LinkTransport, SendOutcome};
use crate::store::Kind;
use claudemesh_base::wire::{self, send_frame};
use claudemesh_fsm::id::{ClientMessageId, Millis};
use claudemesh_fsm::outbox::{Inflight, Row, State, Step};
use claudemesh_fsm::refusal::{SendRefusal, TransientRefusal};
use claudemesh_fsm::retry;
use std::sync::Arc;

impl DrainFlow {
    /// One attempt, from its frame to its answer on disk.
    pub(super) async fn attempt(&self, row: Row<Inflight>, transport: &Arc<dyn LinkTransport>) {
        let tried_at_version = self.mesh.with_roster(|roster| roster.version);
        let delivery = match self.encode(&row, transport.as_ref()) {
            Ok(message) => transport.deliver(message).await,
            Err(reason) => SendOutcome::Refused { code: None, permanent: Some(true), reason },
        };
        let attempts = row.identity().attempts;
        match delivery {
            SendOutcome::Acked(ack) => {
                self.rate_backoff.on_accepted();
                self.settle(row, |row| row.acked(ack.clone())).await;
            }
            // The due time is reckoned anew for each try to store it: the clock may jump between.
            SendOutcome::Lost { reason } => {
                self.settle(row, |row| row.lost(reason.clone(), self.back_off(attempts))).await;
            }
            SendOutcome::Unsent { reason } => {
                self.settle(row, |row| row.unsent(reason.clone(), self.back_off(attempts))).await;
            }
            SendOutcome::Refused { code, permanent, reason } => {
                match SendRefusal::classify(code, permanent, &reason) {
                    SendRefusal::Permanent => {
                        self.note_refused(&row.identity().client_message_id, &reason);
                        self.settle(row, |row| row.refused(reason.clone())).await;
                    }
                    SendRefusal::Transient(why) => {
                        let due = self.due_after(why, attempts);
                        let absent = offline_recipients::pinned_recipient(&row)
                            .filter(|_| why == TransientRefusal::RecipientOffline);
                        self.settle(row, |row| row.deferred(why, reason.clone(), due)).await;
                        // Only now: a row that is inflight cannot be made due.
                        if let Some(absent) = absent {
                            self.mesh.with_roster(|now| {
                                self.offline_recipients.add(absent, tried_at_version, now)
                            });
                        }
                    }
                }
            }
        }
    }

    /// Stores the end of an attempt. A store that fails is tried again for as long as this flow
    /// lives: the answer is known here and nowhere else.
    async fn settle<N: State>(
        &self,
        mut row: Row<Inflight>,
        end: impl Fn(Row<Inflight>) -> Step<Inflight, N>,
    ) {
        loop {
            match self.outbox.store(end(row)).await {
                // `None`: an operator was first, and the row is no longer ours.
                Ok(_) => return,
                Err((_, error)) if error.kind() == Kind::Closed => return,
                Err((same_row, error)) => {
                    self.note_store_failed(&error);
                    row = same_row;
                    self.runtime.sleep(STORE_RETRY).await;
                }
            }
        }
    }

    /// One line a minute: a hundred thousand rows may go to a topic that is gone, and each of them
    /// says so in its `last_error`.
    fn note_refused(&self, id: &ClientMessageId, reason: &str) {
        let mesh = self.mesh.slug();
        if let Some(suppressed) = self.refusals.admit(self.runtime.monotonic()) {
            tracing::warn!(mesh, %id, reason, suppressed, "the broker refused a message for good");
        }
    }

    fn back_off(&self, attempts: u32) -> Millis {
        let cap_ms = self.limits.backoff_cap_ms;
        self.runtime.now().plus(retry::backoff_ms(attempts, cap_ms, self.runtime.jitter()))
    }

    fn due_after(&self, why: TransientRefusal, attempts: u32) -> Millis {
        match why {
            TransientRefusal::Busy => self.back_off(attempts),
            TransientRefusal::RecipientOffline => {
                self.runtime.now().plus(self.limits.backoff_cap_ms)
            }
            TransientRefusal::RateLimited => {
                let pause = self.rate_backoff.on_rate_limited(self.runtime.monotonic());
                self.runtime.now().plus(pause.as_millis() as u64)
            }
        }
    }

    fn encode(
        &self,
        row: &Row<Inflight>,
        transport: &dyn LinkTransport,
    ) -> Result<wire::SendFrame, String> {
        let envelope = row.envelope();
        let nonces = [self.runtime.random(), self.runtime.random()];
        let id = &row.identity().client_message_id;
        let Some(recipient) = &envelope.recipient else {
            if envelope.destination.is_direct() {
                return Err("nobody is recorded to seal this direct message to".to_owned());
            }
            return Ok(send_frame::encode(envelope, id, envelope.target_spec(), None, nonces));
        };
        let routing_key = self
            .mesh
            .with_roster(|roster| roster::routing_key(roster, recipient, &envelope.destination));
        let shared = self
            .boxes
            .between_text(transport.secret(), &routing_key)
            .map_err(|error| format!("the recipient's key cannot be used: {error}"))?;
        Ok(send_frame::encode(envelope, id, routing_key, Some(&shared), nonces))
    }
}
