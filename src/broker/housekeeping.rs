//! What happens by itself: leases that end and presences that fade, with one timer armed to the next
//! deadline; and beside it what is forgotten (§17.1), so that no lease waits for a night's work.

use super::Broker;
use super::hub::Identity;
use super::ledger::Retention;
use super::send::system_event;
use claudemesh_base::db;
use futures_lite::future::{or, zip};
use serde_json::json;
use smol::channel::Receiver;
use std::sync::Arc;
use std::time::Duration;

/// From the start to the first work on the tables: late enough not to slow the start.
const FIRST_AFTER: Duration = Duration::from_secs(5 * 60);
/// Between expiries.
const EXPIRY_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Between looks for messages that everybody has.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);
/// From a failure to the next try: a disk that is full for a moment must not cost a night.
const RETRY_AFTER: Duration = Duration::from_secs(5 * 60);
const MS_PER_DAY: u64 = 24 * 60 * 60 * 1000;

/// ConnectionEnds leases and presences until it is dropped. `wakeups` says when there is a new first deadline.
pub(crate) async fn keep(broker: Arc<Broker>, wakeups: Receiver<()>) {
    let runtime = &broker.runtime;
    loop {
        let due = async {
            match broker.hub.next_deadline() {
                Some(at) => runtime.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let rung = async {
            // The hub lives as long as this task, so the channel stays open.
            let _ = wakeups.recv().await;
        };
        or(due, rung).await;
        let now = runtime.monotonic();
        broker.hub.expire_leases(now);
        announce_departures(&broker, broker.hub.expire_presences(now)).await;
    }
}

/// Work on the ledger that comes round.
#[derive(Clone, Copy)]
enum Job {
    Expire,
    Sweep,
}

impl Job {
    const fn every(self) -> Duration {
        match self {
            Self::Expire => EXPIRY_EVERY,
            Self::Sweep => SWEEP_EVERY,
        }
    }

    async fn run(self, broker: &Broker) -> Result<(), db::Error> {
        match self {
            Self::Expire => expire(broker).await,
            Self::Sweep => sweep(broker).await,
        }
    }
}

/// Forgets what nobody needs any more, until it is dropped.
pub(crate) async fn forget(broker: Arc<Broker>) {
    zip(repeat(&broker, Job::Expire), repeat(&broker, Job::Sweep)).await;
}

/// Does a job again and again; one that failed is tried again soon.
async fn repeat(broker: &Broker, job: Job) {
    let mut pause = FIRST_AFTER;
    loop {
        broker.runtime.sleep(pause).await;
        pause = match job.run(broker).await {
            Ok(()) => job.every(),
            Err(error) => {
                tracing::error!(%error, "the ledger could not be made smaller; next try in minutes");
                RETRY_AFTER
            }
        };
    }
}

/// Tells the others who went of its own accord. Who is hidden has not come for them and does not
/// leave; who was removed or banned has been announced; and who is back has never left.
pub(crate) async fn announce_departures(broker: &Broker, left: Vec<Identity>) {
    for gone in left {
        match broker.ledger.member(&gone.mesh_id, &gone.member_pubkey).await {
            Ok(Some(member)) if member.visible && member.is_in() => {
                if !broker.hub.is_connected(&gone) {
                    announce_left(broker, vec![gone]);
                }
            }
            Ok(_) => {}
            Err(error) => broker.ledger_failed(&error),
        }
    }
}

/// Tells the others in their meshes who is no longer there.
pub(crate) fn announce_left(broker: &Broker, left: Vec<Identity>) {
    for gone in left {
        let data = json!({"name": gone.name, "pubkey": gone.routing_key});
        let (id, at) = (broker.runtime.mint_id(), broker.runtime.now());
        let event = system_event(id, &gone.mesh_id, "peer_left", data, at);
        broker.hub.broadcast(&gone.mesh_id, &event, |other| other.member != gone.member);
    }
}

/// Forgets what is past its time, and proves that the rest agrees. A session key that is connected
/// is in use, however long ago it said hello: expiring without noting that would forget it.
///
/// # Errors
/// The ledger's; what was forgotten before stays so.
pub(crate) async fn expire(broker: &Broker) -> Result<(), db::Error> {
    let days = u64::from(broker.settings.undelivered_days);
    let keep = Retention { message_ms: days * MS_PER_DAY };
    let now = broker.runtime.now();
    broker.ledger.touch_session_keys(broker.hub.session_keys(), now).await?;
    let expired = broker.ledger.expire(now, keep).await?;
    tracing::info!(
        messages = expired.messages,
        undelivered = expired.undelivered,
        dedupe = expired.dedupe,
        session_keys = expired.session_keys,
        "expired what was past its time"
    );
    broker.check().await.map(drop)
}

/// Lets go of the messages that everybody has.
async fn sweep(broker: &Broker) -> Result<(), db::Error> {
    let messages = broker.ledger.sweep(broker.runtime.now()).await?;
    if messages > 0 {
        tracing::info!(messages, "let go of what everybody has");
    }
    Ok(())
}
