//! The drain flow: due rows of one mesh leave through its courier, and their answers come back
//! (§4.6).
//!
//! A row is claimed only while the link is open and only just before its frame is written. Every
//! attempt is one future in one set: nothing is spawned, and when this flow is dropped, so are they.
//! The loop sleeps until a wake-up, a deadline or an answer; it never touches a row that cannot
//! progress.

use crate::clock::Clock;
use crate::courier::{Courier, Delivery};
use crate::http::Shutdown;
use crate::meshes::Mesh;
use crate::message::{PublicKey, SharedBox};
use crate::roster;
use crate::store::Kind;
use crate::store::outbox::Outbox;
use crate::wire::{self, parcel};
use claudemesh_fsm::id::{ClientMessageId, Millis};
use claudemesh_fsm::outbox::{Inflight, Row, State, Step};
use claudemesh_fsm::refusal::{Passing, Refusal};
use claudemesh_fsm::retry;
use futures_lite::{FutureExt, StreamExt, future};
use futures_util::stream::FuturesUnordered;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How many rows one claim takes at the most: it runs on the writer thread, beside the accepts.
const CLAIM_MAX: usize = 64;
/// How many shared secrets are kept; beyond it the cache starts over.
const BOXES_MAX: usize = 1024;
/// How long the drain waits when the store fails, before it tries again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// How long a first rate-limit answer stops the link; each further one doubles it.
const RATE_LIMIT_PAUSE: Duration = Duration::from_secs(1);
/// The longest a rate-limit answer stops the link.
const RATE_LIMIT_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often the pause doubles at the most.
const RATE_LIMIT_DOUBLINGS_MAX: u32 = 5;
/// Wall time that moves this much against monotonic time has jumped.
const CLOCK_JUMP_MS_MIN: u64 = 2_000;
/// How a message that cannot be framed is classified.
const MALFORMED: Option<u16> = Some(400);
/// How long sends under way may take to finish at shutdown (§14).
const FINISH_MAX: Duration = Duration::from_secs(5);

/// Bounds from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many sends may await their answer at once.
    pub inflight_max: usize,
    /// The longest back-off of a row, in milliseconds.
    pub backoff_cap_ms: u64,
}

/// The drain of one mesh.
pub struct Drain {
    mesh: Mesh,
    outbox: Outbox,
    clock: Clock,
    limits: Limits,
    boxes: Mutex<HashMap<PublicKey, Arc<SharedBox>>>,
    pace: Mutex<Pace>,
    /// Wall time minus monotonic time: constant until the clock jumps.
    clock_offset_ms: Mutex<i64>,
}

/// How a broker's rate limit slows the link.
#[derive(Debug, Default)]
struct Pace {
    refusals: u32,
    paused_until: Duration,
}

/// When the next claim makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Now,
    At(Duration),
    WhenWoken,
}

/// Why the loop looks again.
enum Woken {
    Settled,
    MayClaim,
    Closed,
    Stopping,
}

impl Drain {
    /// A drain of `mesh`, which does nothing until it runs.
    #[must_use]
    pub fn new(mesh: Mesh, outbox: Outbox, clock: Clock, limits: Limits) -> Self {
        let clock_offset_ms = Mutex::new(clock_offset_ms(&clock));
        Self {
            mesh,
            outbox,
            clock,
            limits,
            boxes: Mutex::default(),
            pace: Mutex::default(),
            clock_offset_ms,
        }
    }

    /// Drains until `stop`; then lets the sends under way finish, for a while.
    pub async fn run(self, stop: Shutdown) {
        let work = async {
            let mut spent = None;
            while !stop.has_fired() {
                let open = async { Some(self.mesh.courier(spent.as_ref()).await) };
                let stopped = async {
                    stop.wait().await;
                    None
                };
                let Some(courier) = open.or(stopped).await else { return };
                self.serve(&courier, &stop).await;
                spent = Some(courier);
            }
        };
        work.or(self.store_late_acks()).await;
    }

    /// Sends through one courier until it closes.
    async fn serve(&self, courier: &Arc<dyn Courier>, stop: &Shutdown) {
        // Another link may send with another key.
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut under_way = FuturesUnordered::new();
        let mut next = Next::Now;
        loop {
            let room = self.limits.inflight_max.saturating_sub(under_way.len());
            // With many under way, waiting for a batch of answers costs nothing and saves claims.
            let has_room = room >= self.limits.inflight_max.div_ceil(4);
            if has_room && next == Next::Now && !self.is_paused() {
                let rows;
                (rows, next) = self.claim(room.min(CLAIM_MAX), courier.max_age_ms()).await;
                under_way.extend(rows.into_iter().map(|row| self.attempt(row, courier)));
            }
            let settled = async {
                match under_way.next().await {
                    Some(()) => Woken::Settled,
                    None => future::pending().await,
                }
            };
            let may_claim = async {
                if !has_room {
                    return future::pending().await;
                }
                self.wait_for(next).await;
                Woken::MayClaim
            };
            let closed = async {
                courier.closed().await;
                Woken::Closed
            };
            let stopping = async {
                stop.wait().await;
                Woken::Stopping
            };
            match settled.or(closed).or(stopping).or(may_claim).await {
                Woken::Settled => {}
                Woken::MayClaim => next = Next::Now,
                // The courier gives every attempt its answer now, so this ends at once.
                Woken::Closed => return under_way.collect().await,
                Woken::Stopping => {
                    let rest = under_way.collect::<()>();
                    // What is still unanswered is recovered at the next start (§4.11).
                    let _ = self.clock.timeout(FINISH_MAX, rest).await;
                    return;
                }
            }
        }
    }

    /// Waits until a claim makes sense. Whoever drops this before its end loses no wake-up: the one
    /// that was taken is remembered as [`Next::Now`], and only that waits for the pause.
    async fn wait_for(&self, next: Next) {
        match next {
            Next::Now => {
                let paused_until = self.lock_pace().paused_until;
                if self.clock.monotonic() < paused_until {
                    self.clock.sleep_until(paused_until).await;
                }
            }
            Next::At(deadline) => {
                self.clock.sleep_until(deadline).or(self.mesh.drain_woken()).await;
            }
            Next::WhenWoken => self.mesh.drain_woken().await,
        }
    }

    fn is_paused(&self) -> bool {
        self.clock.monotonic() < self.lock_pace().paused_until
    }

    /// Claims what is due and expires what is too old.
    async fn claim(&self, limit: usize, max_age_ms: u64) -> (Vec<Row<Inflight>>, Next) {
        let now = self.clock.now();
        let expired_before = Millis(now.0.saturating_sub_unsigned(max_age_ms));
        let claimed = async {
            if self.clock_jumped() {
                self.outbox.hasten(self.mesh.slug(), now).await?;
            }
            self.outbox.claim_due(self.mesh.slug(), now, expired_before, limit).await
        };
        let claimed = match claimed.await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::error!(mesh = self.mesh.slug(), %error, "cannot claim rows to send");
                return (Vec::new(), Next::At(self.clock.monotonic() + STORE_RETRY));
            }
        };
        for row in claimed.expired {
            // An expiry that cannot be stored now is found again by the next claim.
            if let Err((_, error)) = self.outbox.store(row.expire()).await {
                tracing::error!(mesh = self.mesh.slug(), %error, "cannot store an expiry");
            }
        }
        let next = match claimed.next_due_at {
            _ if claimed.more => Next::Now,
            None => Next::WhenWoken,
            Some(due_at) => {
                let wait = Duration::from_millis(due_at.since(now));
                Next::At(self.clock.monotonic() + wait)
            }
        };
        (claimed.rows, next)
    }

    /// Whether wall time moved against monotonic time since this was last asked: a suspend, or
    /// somebody set the clock.
    fn clock_jumped(&self) -> bool {
        let offset_ms = clock_offset_ms(&self.clock);
        let mut last = self.clock_offset_ms.lock().unwrap_or_else(PoisonError::into_inner);
        let jumped = offset_ms.abs_diff(*last) > CLOCK_JUMP_MS_MIN;
        *last = offset_ms;
        jumped
    }

    /// One attempt, from its frame to its answer on disk.
    async fn attempt(&self, row: Row<Inflight>, courier: &Arc<dyn Courier>) {
        let delivery = match self.pack(&row, courier.as_ref()) {
            Ok(message) => courier.deliver(message).await,
            Err(words) => Delivery::Refused { code: MALFORMED, words },
        };
        let attempts = row.identity().attempts;
        match delivery {
            Delivery::Acked(ack) => {
                self.lock_pace().refusals = 0;
                self.settle(row, |row| row.acked(ack.clone())).await;
            }
            Delivery::Lost { words } => {
                let due = self.back_off(attempts);
                self.settle(row, |row| row.lost(words.clone(), due)).await;
            }
            Delivery::Unsent { words } => {
                let due = self.back_off(attempts);
                self.settle(row, |row| row.unsent(words.clone(), due)).await;
            }
            Delivery::Refused { code, words } => match Refusal::classify(code, &words) {
                Refusal::Final => {
                    let id = &row.identity().client_message_id;
                    let mesh = self.mesh.slug();
                    tracing::warn!(mesh, %id, words, "the broker refused a message for good");
                    self.settle(row, |row| row.refused(words.clone())).await;
                }
                Refusal::Passing(why) => {
                    let due = self.due_after(why, attempts);
                    self.settle(row, |row| row.deferred(why, words.clone(), due)).await;
                }
            },
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
                    let mesh = self.mesh.slug();
                    tracing::error!(mesh, %error, "cannot store the end of an attempt");
                    row = same_row;
                    self.clock.sleep(STORE_RETRY).await;
                }
            }
        }
    }

    fn back_off(&self, attempts: u32) -> Millis {
        let cap_ms = self.limits.backoff_cap_ms;
        self.clock.now().plus(retry::backoff_ms(attempts, cap_ms, self.clock.jitter()))
    }

    fn due_after(&self, why: Passing, attempts: u32) -> Millis {
        match why {
            Passing::Busy => self.back_off(attempts),
            Passing::RecipientOffline => self.clock.now().plus(self.limits.backoff_cap_ms),
            Passing::RateLimited => {
                let mut pace = self.lock_pace();
                let doublings = pace.refusals.min(RATE_LIMIT_DOUBLINGS_MAX);
                let pause = (RATE_LIMIT_PAUSE * (1 << doublings)).min(RATE_LIMIT_PAUSE_MAX);
                let paused_until = self.clock.monotonic() + pause;
                // Answers to sends that were under way together count as one.
                if paused_until > pace.paused_until + RATE_LIMIT_PAUSE {
                    pace.refusals += 1;
                    pace.paused_until = paused_until;
                }
                self.clock.now().plus(pause.as_millis() as u64)
            }
        }
    }

    fn pack(&self, row: &Row<Inflight>, courier: &dyn Courier) -> Result<wire::Send, String> {
        let envelope = row.envelope();
        let nonces = [self.clock.random(), self.clock.random()];
        let id = &row.identity().client_message_id;
        let Some(recipient) = &envelope.recipient else {
            let target = parcel::target_spec(envelope);
            return Ok(parcel::pack(envelope, id, target, None, nonces));
        };
        let routing_key = self.mesh.with_roster(|roster| roster::routing_key(roster, recipient));
        let key = PublicKey::parse(&routing_key)
            .map_err(|error| format!("the recipient's key cannot be used: {error}"))?;
        let shared = self.shared_box(&key, courier);
        Ok(parcel::pack(envelope, id, routing_key, Some(&shared), nonces))
    }

    fn shared_box(&self, key: &PublicKey, courier: &dyn Courier) -> Arc<SharedBox> {
        let mut boxes = self.boxes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = boxes.get(key) {
            return shared.clone();
        }
        if boxes.len() >= BOXES_MAX {
            boxes.clear();
        }
        let shared = Arc::new(SharedBox::between(courier.secret(), key));
        boxes.insert(*key, shared.clone());
        shared
    }

    /// A success that arrives for an attempt already given up still makes its row done (§4.5.2).
    async fn store_late_acks(&self) {
        while let Some(late) = self.mesh.next_late_ack().await {
            let id = ClientMessageId::trusted(late.client_message_id);
            if let Err(error) = self.outbox.late_ack(&id, late.ack).await {
                // The retry that is due anyway brings the same answer.
                tracing::warn!(mesh = self.mesh.slug(), %id, %error, "cannot store a late answer");
            }
        }
    }

    fn lock_pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clock_offset_ms(clock: &Clock) -> i64 {
    clock.now().0 - i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX)
}
