//! The drain flow: due rows of one mesh leave through its courier, and their answers come back
//! (§4.6).
//!
//! A row is claimed only while the link is open and only just before its frame is written. Every
//! attempt is one future in one set: nothing is spawned, and when this flow is dropped, so are they.
//! The loop sleeps until a wake-up, a deadline or an answer; it never touches a row that cannot
//! progress.

mod expiry;
mod offline_recipients;
mod rate_backoff;

use crate::mesh::{Mesh, roster};
use crate::port::{LinkTransport, SendOutcome};
use crate::store::outbox::Outbox;
use crate::store::{Error as StoreError, Kind};
use claudemesh_base::log::{Repeated, Throttled};
use claudemesh_base::message::SharedBoxes;
use claudemesh_base::runtime::{Runtime, Shutdown};
use claudemesh_base::wire::{self, send_frame};
use claudemesh_fsm::id::{ClientMessageId, Millis};
use claudemesh_fsm::outbox::{Inflight, Row, State, Step};
use claudemesh_fsm::refusal::{SendRefusal, TransientRefusal};
use claudemesh_fsm::retry;
use expiry::ExpiryGuard;
use futures_lite::{FutureExt, StreamExt, future};
use futures_util::stream::FuturesUnordered;
use offline_recipients::OfflineRecipients;
use rate_backoff::RateBackoff;
use std::sync::Arc;
use std::time::Duration;

/// How many rows one claim takes at the most: it runs on the writer thread, beside the accepts.
const CLAIM_MAX: usize = 64;
/// How long the drain waits when the store fails or contradicts itself, before it tries again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How long sends under way may take to finish at shutdown (§14).
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Bounds from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct DrainLimits {
    /// How many sends may await their answer at once.
    pub inflight_max: usize,
    /// The longest back-off of a row, in milliseconds.
    pub backoff_cap_ms: u64,
}

/// The drain of one mesh.
pub struct DrainFlow {
    mesh: Mesh,
    outbox: Outbox,
    runtime: Runtime,
    limits: DrainLimits,
    boxes: SharedBoxes,
    rate_backoff: RateBackoff,
    expiry: ExpiryGuard,
    offline_recipients: OfflineRecipients,
    /// The broker refuses messages for good.
    refusals: Throttled,
    /// The store cannot be written.
    store_failing: Repeated,
}

/// When the next claim makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextClaim {
    Now,
    At(Duration),
    WhenWoken,
}

/// Why the loop looks again.
enum Woken {
    Claimed((Vec<Row<Inflight>>, NextClaim)),
    Settled,
    MayClaim,
    Closed,
    Stopping,
}

impl DrainFlow {
    /// A drain of `mesh`, which does nothing until it runs.
    #[must_use]
    pub fn new(mesh: Mesh, outbox: Outbox, runtime: Runtime, limits: DrainLimits) -> Self {
        Self {
            mesh,
            outbox,
            expiry: ExpiryGuard::new(&runtime),
            runtime,
            limits,
            boxes: SharedBoxes::default(),
            rate_backoff: RateBackoff::default(),
            offline_recipients: OfflineRecipients::default(),
            refusals: Throttled::default(),
            store_failing: Repeated::default(),
        }
    }

    /// Drains until `stop`; then lets the sends under way finish, for a while.
    pub async fn run(self, stop: Shutdown) {
        let work = async {
            let mut previous = None;
            while !stop.has_fired() {
                let open = async { Some(self.mesh.transport(previous.as_ref()).await) };
                let stopped = async {
                    stop.wait().await;
                    None
                };
                let Some(transport) = open.or(stopped).await else { return };
                self.serve(&transport, &stop).await;
                previous = Some(transport);
            }
        };
        work.or(self.store_late_acks()).or(self.expedite_reachable()).await;
    }

    /// Sends through one courier until it closes.
    async fn serve(&self, transport: &Arc<dyn LinkTransport>, stop: &Shutdown) {
        let mut under_way = FuturesUnordered::new();
        let begin = |rows: Vec<_>| rows.into_iter().map(move |row| self.attempt(row, transport));
        // A claim waits for its commit, and the attempts under way do not wait for the claim.
        let mut claiming = None;
        let mut next = NextClaim::Now;
        loop {
            let room = self.limits.inflight_max.saturating_sub(under_way.len());
            // With many under way, waiting for a batch of answers costs nothing and saves claims.
            let has_room = room >= self.limits.inflight_max.div_ceil(4);
            if has_room && next == NextClaim::Now && claiming.is_none() {
                let claim = self.claim(room.min(CLAIM_MAX), transport.max_age_ms());
                claiming = Some(Box::pin(claim));
            }
            let may_wait = has_room && claiming.is_none();
            let claimed = async {
                match &mut claiming {
                    Some(claim) => Woken::Claimed(claim.await),
                    None => future::pending().await,
                }
            };
            let settled = async {
                match under_way.next().await {
                    Some(()) => Woken::Settled,
                    None => future::pending().await,
                }
            };
            let may_claim = async {
                if !may_wait {
                    return future::pending().await;
                }
                self.wait_for(next).await;
                Woken::MayClaim
            };
            let closed = async {
                transport.closed().await;
                Woken::Closed
            };
            let stopping = async {
                stop.wait().await;
                Woken::Stopping
            };
            match claimed.or(settled).or(closed).or(stopping).or(may_claim).await {
                Woken::Claimed((rows, then)) => {
                    (claiming, next) = (None, then);
                    under_way.extend(begin(rows));
                }
                Woken::Settled => {}
                Woken::MayClaim => next = NextClaim::Now,
                // A courier that closed has an answer for every attempt, so that only a store that
                // fails keeps this; what is then unanswered is recovered at the next start (§4.11).
                Woken::Closed | Woken::Stopping => {
                    let rest = async {
                        if let Some(claim) = claiming {
                            under_way.extend(begin(claim.await.0));
                        }
                        under_way.collect::<()>().await;
                    };
                    let grace = async {
                        stop.wait().await;
                        self.runtime.sleep(FINISH_MAX).await;
                    };
                    return rest.or(grace).await;
                }
            }
        }
    }

    async fn wait_for(&self, next: NextClaim) {
        match next {
            NextClaim::Now => {}
            NextClaim::At(deadline) => {
                self.runtime.sleep_until(deadline).or(self.mesh.drain_woken()).await;
            }
            NextClaim::WhenWoken => self.mesh.drain_woken().await,
        }
    }

    /// Claims what is due and expires what is too old.
    async fn claim(&self, limit: usize, max_age_ms: u64) -> (Vec<Row<Inflight>>, NextClaim) {
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

    /// One attempt, from its frame to its answer on disk.
    async fn attempt(&self, row: Row<Inflight>, transport: &Arc<dyn LinkTransport>) {
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

    fn note_store_failed(&self, error: &StoreError) {
        if self.store_failing.happened() {
            let mesh = self.mesh.slug();
            tracing::error!(mesh, %error, "the outbox cannot be written; trying again until it can");
        }
    }

    fn note_store_works(&self) {
        if let Some(failures) = self.store_failing.ended() {
            tracing::info!(mesh = self.mesh.slug(), failures, "the outbox can be written again");
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

    /// A success that arrives for an attempt already given up still makes its row done (§4.5.2).
    async fn store_late_acks(&self) {
        while let Some(late) = self.mesh.next_late_ack().await {
            let id = ClientMessageId::trusted(late.client_message_id);
            // The retry that is due anyway brings the same answer.
            if let Err(error) = self.outbox.late_ack(self.mesh.slug(), &id, late.ack).await {
                self.note_store_failed(&error);
            }
        }
    }
}
