//! What happens to the two databases at start (§4.11): opened, checked, and made true again.
//!
//! A crash can leave rows inflight that nobody is sending. They become pending, due after the first
//! back-off step: their attempt may have reached the broker, whose dedupe decides, and a row that
//! crashes us must not crash us in a tight loop.

use crate::events::{Event, EventBus, EventContent};
use crate::mesh::Meshes;
use crate::repair::files::{adopt_salvaged, set_aside};
use crate::store::inbox::Inbox;
use crate::store::outbox::{Moved, Outbox};
use crate::store::quota::{LevelChange, Quota, StorageLimits};
use crate::store::{Error, Integrity, Kind};
use claudemesh_base::db::Driver;
use claudemesh_base::paths::Paths;
use claudemesh_base::runtime::Runtime;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::outbox::Status;
use claudemesh_fsm::retry::BACKOFF_BASE_MS;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How many waiting rows of a mesh become due before the daemon answers; the others follow while it
/// serves.
const EXPEDITED_AT_START_MAX: usize = 4096;

/// When a check that could not be made is tried again: as often as the retention flow runs.
const CHECKED_AGAIN_AFTER: Duration = Duration::from_secs(60 * 60);

/// The daemon's stores, ready for use. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    /// What was accepted.
    pub outbox: Outbox,
    /// What arrived.
    pub inbox: Inbox,
}

/// Opens both stores. Every move of an outbox row is published on `bus` after its commit, and wakes
/// its mesh's drain if there may be something to send.
///
/// `boot_id` names this boot of the host, if it says: [`Outbox::recover`] tells a power cut by it.
///
/// A damaged inbox is set aside and replaced: what it held was delivered already. A damaged outbox
/// is an error: it holds promises.
///
/// # Errors
/// When a store cannot be opened; [`Kind::Corrupt`] means the outbox is damaged.
pub async fn open(
    paths: &Paths,
    driver: Driver,
    context: (&Runtime, &EventBus, &Meshes),
    limits: StorageLimits,
    boot_id: Option<String>,
) -> Result<Stores, Error> {
    let (runtime, bus, meshes) = context;
    for path in [paths.outbox_db(), paths.inbox_db()] {
        adopt_salvaged(&path, runtime)?;
    }
    let quota = Quota::new(&paths.daemon_dir, limits, runtime.clone(), on_change(runtime, bus));
    let on_moved = on_moved(runtime, bus, meshes);
    let outbox = Outbox::open_within(&paths.outbox_db(), driver.clone(), on_moved, quota.clone())?;
    let recovered = recover_outbox(&outbox, runtime, meshes, boot_id).await;
    match recovered.and_then(|()| open_inbox(&paths.inbox_db(), driver, runtime)) {
        Ok(inbox) => Ok(Stores { outbox, inbox: inbox.within(quota) }),
        Err(error) => {
            // Before anybody hears of it: who does may look at the file, or copy it. The database
            // alone: this life did not end in order, and the doubt of the last one must stay.
            outbox.db().close();
            Err(error)
        }
    }
}

/// What a stop left unanswered waits again, and what waits is due.
async fn recover_outbox(
    outbox: &Outbox,
    runtime: &Runtime,
    meshes: &Meshes,
    boot_id: Option<String>,
) -> Result<(), Error> {
    let due_at = runtime.now().plus(BACKOFF_BASE_MS);
    let found = outbox.recover(due_at, boot_id).await?;
    if found.inflight > 0 {
        let rows = found.inflight;
        tracing::info!(rows, "sends that a stop left unanswered will be tried again");
    }
    if found.are_possibly_sent {
        tracing::warn!(
            "the host lost power or may have, and with it what was known of attempts: every \
             waiting message counts as one that may have been sent"
        );
    }
    expedite_waiting(outbox, due_at, runtime, meshes).await
}

/// Checks the files that were too large to be checked at start, each in a thread of its own (§4.11).
/// A check that could not be made is made again.
pub fn check_in_background(stores: &Stores, runtime: &Runtime) {
    for db in [stores.outbox.db().clone(), stores.inbox.db().clone()] {
        if db.integrity() == Integrity::Unchecked {
            let beside = runtime.clone();
            let check = async move {
                loop {
                    let checked = db.clone();
                    let _ = beside.unblock(move || checked.check_whole()).await;
                    if db.integrity() != Integrity::Unchecked {
                        return;
                    }
                    beside.sleep(CHECKED_AGAIN_AFTER).await;
                }
            };
            runtime.spawn(check).detach();
        }
    }
}

/// Every waiting row is due no later than one whose attempt a stop cut short: a due time is wall
/// time, and the clock may have been set while nobody watched it (§4.6).
async fn expedite_waiting(
    outbox: &Outbox,
    due_at: Millis,
    runtime: &Runtime,
    meshes: &Meshes,
) -> Result<(), Error> {
    for (mesh, depth) in outbox.depths() {
        let expedited = outbox.expedite_some(&mesh, due_at, EXPEDITED_AT_START_MAX).await?;
        if expedited < EXPEDITED_AT_START_MAX {
            continue;
        }
        let (outbox, meshes) = (outbox.clone(), meshes.clone());
        // Rows that are backed off meanwhile are due again too soon at the most once.
        let rounds = depth.of(Status::Pending) / EXPEDITED_AT_START_MAX as u64;
        let rest = async move {
            for _ in 0..rounds {
                let expedited = outbox.expedite_some(&mesh, due_at, EXPEDITED_AT_START_MAX).await;
                if let Some(mesh) = meshes.get(&mesh) {
                    mesh.wake_drain();
                }
                match expedited {
                    Ok(expedited) if expedited >= EXPEDITED_AT_START_MAX => {}
                    Ok(_) => return,
                    // They keep their own due times.
                    Err(error) => {
                        return tracing::warn!(mesh, %error, "waiting rows cannot be made due");
                    }
                }
            }
        };
        runtime.spawn(rest).detach();
    }
    Ok(())
}

/// A store that fills up, or has room again, is told once each time (§1.2).
fn on_change(runtime: &Runtime, bus: &EventBus) -> Box<dyn Fn(&LevelChange) + Send + Sync> {
    let (runtime, bus) = (runtime.clone(), bus.clone());
    Box::new(move |change| {
        let LevelChange { subject, level, detail } = change;
        tracing::warn!(subject, level = level.as_str(), "{detail}");
        let content = || EventContent::Storage(change.clone());
        bus.publish(|| Event { at: runtime.now(), content: content() });
    })
}

fn on_moved(
    runtime: &Runtime,
    bus: &EventBus,
    meshes: &Meshes,
) -> Arc<dyn Fn(&Moved) + Send + Sync> {
    let (runtime, bus, meshes) = (runtime.clone(), bus.clone(), meshes.clone());
    Arc::new(move |moved| {
        if moved.status == Status::Pending
            && let Some(mesh) = meshes.get(&moved.mesh)
        {
            mesh.wake_drain();
        }
        let content = || EventContent::Moved(moved.clone());
        bus.publish(|| Event { at: runtime.now(), content: content() });
    })
}

fn open_inbox(path: &Path, driver: Driver, runtime: &Runtime) -> Result<Inbox, Error> {
    match Inbox::open(path, driver.clone()) {
        Err(error) if error.kind() == Kind::Corrupt => {
            let aside = set_aside(path, "corrupt", runtime)?;
            tracing::error!(%error, aside = %aside.display(), "the inbox is damaged: it was set aside, and a new one begins");
            Inbox::open(path, driver)
        }
        opened => opened,
    }
}
