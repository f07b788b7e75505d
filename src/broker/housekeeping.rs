//! What happens by itself: leases that end and presences that fade, with one timer armed to the next
//! deadline; and beside it what is forgotten (§17.1), so that no lease waits for a night's work.

use super::counters::Counters;
use super::hub::{Hub, Identity};
use super::ledger::{Check, LedgerError, LedgerHandle, Retention};
use claudemesh_base::runtime::Runtime;
use futures_lite::future::{or, zip};
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

/// What the periodic jobs work on.
pub(crate) struct Housekeeping {
    pub(crate) ledger: LedgerHandle,
    pub(crate) hub: Arc<Hub>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) runtime: Runtime,
    /// How long messages are kept, delivered or not.
    pub(crate) undelivered_days: u32,
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

    async fn run(self, housekeeping: &Housekeeping) -> Result<(), LedgerError> {
        match self {
            Self::Expire => housekeeping.expire().await,
            Self::Sweep => housekeeping.sweep().await,
        }
    }
}

impl Housekeeping {
    /// Ends leases and presences until it is dropped. `wakeups` says when there is a new first
    /// deadline.
    pub(crate) async fn expire_by_deadline(&self, wakeups: Receiver<()>) {
        let Self { ledger, hub, runtime, .. } = self;
        loop {
            let due = async {
                match hub.next_deadline() {
                    Some(at) => runtime.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let woken = async {
                // The hub lives as long as this task, so the channel stays open.
                let _ = wakeups.recv().await;
            };
            or(due, woken).await;
            let now = runtime.monotonic();
            hub.expire_leases(now);
            announce_departures(ledger, hub, runtime, hub.expire_presences(now)).await;
        }
    }

    /// Forgets what nobody needs any more, until it is dropped.
    pub(crate) async fn run_periodic_jobs(&self) {
        zip(self.repeat(Job::Expire), self.repeat(Job::Sweep)).await;
    }

    /// Does a job again and again; one that failed is tried again soon.
    async fn repeat(&self, job: Job) {
        let mut pause = FIRST_AFTER;
        loop {
            self.runtime.sleep(pause).await;
            pause = match job.run(self).await {
                Ok(()) => job.every(),
                Err(error) => {
                    tracing::error!(%error, "the ledger could not be made smaller; next try in minutes");
                    RETRY_AFTER
                }
            };
        }
    }

    /// Forgets what is past its time, and proves that the rest agrees. A session key that is
    /// connected is in use, however long ago it said hello: expiring without noting that would
    /// forget it.
    pub(crate) async fn expire(&self) -> Result<(), LedgerError> {
        let keep = Retention { message_ms: u64::from(self.undelivered_days) * MS_PER_DAY };
        let now = self.runtime.now();
        self.ledger.touch_session_keys(self.hub.session_keys(), now).await?;
        let expired = self.ledger.expire(now, keep).await?;
        tracing::info!(
            messages = expired.messages,
            undelivered = expired.undelivered,
            dedupe = expired.dedupe,
            session_keys = expired.session_keys,
            "expired what was past its time"
        );
        check(&self.ledger, &self.counters).await.map(drop)
    }

    /// Lets go of the messages that everybody has.
    async fn sweep(&self) -> Result<(), LedgerError> {
        let messages = self.ledger.sweep(self.runtime.now()).await?;
        if messages > 0 {
            tracing::info!(messages, "let go of what everybody has");
        }
        Ok(())
    }
}

/// Runs the orphan check and counts what it finds.
pub(crate) async fn check(
    ledger: &LedgerHandle,
    counters: &Counters,
) -> Result<Check, LedgerError> {
    let check = ledger.check().await?;
    counters.orphan_checks.add(1);
    if !check.is_whole() {
        counters.orphans_found.add(1);
        tracing::error!(?check, "the ledger's tables do not agree");
    }
    Ok(check)
}

/// Tells the others who went of its own accord. Who is hidden has not come for them and does not
/// leave; who was removed or banned has been announced; and who is back has never left.
pub(crate) async fn announce_departures(
    ledger: &LedgerHandle,
    hub: &Hub,
    runtime: &Runtime,
    left: Vec<Identity>,
) {
    for gone in left {
        match ledger.member(&gone.mesh_id, &gone.member_pubkey).await {
            Ok(Some(member)) if member.visible && member.is_active() => {
                if !hub.is_connected(&gone) {
                    hub.announce_left(runtime, vec![gone]);
                }
            }
            Ok(_) => {}
            Err(error) => ledger.failed(&error),
        }
    }
}
