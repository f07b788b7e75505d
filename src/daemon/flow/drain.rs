//! The drain flow: due rows of one mesh leave through its link's transport, and their answers come back
//! (§4.6).
//!
//! A row is claimed only while the link is open and only just before its frame is written. Every
//! attempt is one future in one set: nothing is spawned, and when this flow is dropped, so are they.
//! The loop sleeps until a wake-up, a deadline or an answer; it never touches a row that cannot
//! progress.

mod attempt;
mod claim;
mod expiry;
mod offline_recipients;
mod rate_backoff;

use crate::mesh::Mesh;
use crate::port::LinkTransport;
use crate::store::Error as StoreError;
use crate::store::outbox::Outbox;
use claudemesh_base::log::{Repeated, Throttled};
use claudemesh_base::message::SharedBoxes;
use claudemesh_base::runtime::{Runtime, Shutdown};
use claudemesh_fsm::id::ClientMessageId;
use claudemesh_fsm::outbox::{Inflight, Row};
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

    /// Sends through one transport until it closes.
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
                // A transport that closed has an answer for every attempt, so that only a store that
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
