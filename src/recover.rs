//! What happens to the two databases at start (§4.11): opened, checked, and made true again.
//!
//! A crash can leave rows inflight that nobody is sending. They become pending, due after the first
//! back-off step: their attempt may have reached the broker, whose dedupe decides, and a row that
//! crashes us must not crash us in a tight loop.

use crate::api::{OutboxEvent, StorageEvent};
use crate::clock::{Clock, iso};
use crate::db::Driver;
use crate::events::{Bus, Event, Kind as EventKind};
use crate::meshes::Meshes;
use crate::paths::Paths;
use crate::store::inbox::Inbox;
use crate::store::outbox::{Moved, Outbox};
use crate::store::quota::{Change, Limits, Quota};
use crate::store::{Error, Integrity, Kind};
use crate::wire::to_text;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::outbox::Status;
use claudemesh_fsm::quota::Level;
use claudemesh_fsm::retry::BACKOFF_BASE_MS;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How many waiting rows of a mesh become due before the daemon answers; the others follow while it
/// serves.
const HASTENED_AT_START_MAX: usize = 4096;

/// When a check that could not be made is tried again: as often as upkeep comes by.
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
    surroundings: (&Clock, &Bus, &Meshes),
    limits: Limits,
    boot_id: Option<String>,
) -> Result<Stores, Error> {
    let (clock, bus, meshes) = surroundings;
    for path in [paths.outbox_db(), paths.inbox_db()] {
        adopt_salvaged(&path, clock)?;
    }
    let quota = Quota::new(&paths.daemon_dir, limits, clock.clone(), on_change(clock, bus));
    let on_moved = on_moved(clock, bus, meshes);
    let outbox = Outbox::open_within(&paths.outbox_db(), driver.clone(), on_moved, quota.clone())?;
    let made_true = make_true(&outbox, clock, meshes, boot_id).await;
    match made_true.and_then(|()| open_inbox(&paths.inbox_db(), driver, clock)) {
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
async fn make_true(
    outbox: &Outbox,
    clock: &Clock,
    meshes: &Meshes,
    boot_id: Option<String>,
) -> Result<(), Error> {
    let due_at = clock.now().plus(BACKOFF_BASE_MS);
    let found = outbox.recover(due_at, boot_id).await?;
    if found.inflight > 0 {
        let rows = found.inflight;
        tracing::info!(rows, "sends that a stop left unanswered will be tried again");
    }
    if found.is_doubted {
        tracing::warn!(
            "the host lost power or may have, and with it what was known of attempts: every \
             waiting message counts as one that may have been sent"
        );
    }
    make_due(outbox, due_at, clock, meshes).await
}

/// Checks the files that were too large to be checked at start, each in a thread of its own (§4.11).
/// A check that could not be made is made again.
pub fn check_in_background(stores: &Stores, clock: &Clock) {
    for db in [stores.outbox.db().clone(), stores.inbox.db().clone()] {
        if db.integrity() == Integrity::Unchecked {
            let beside = clock.clone();
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
            clock.spawn(check).detach();
        }
    }
}

/// Every waiting row is due no later than one whose attempt a stop cut short: a due time is wall
/// time, and the clock may have been set while nobody watched it (§4.6).
async fn make_due(
    outbox: &Outbox,
    due_at: Millis,
    clock: &Clock,
    meshes: &Meshes,
) -> Result<(), Error> {
    for (mesh, depth) in outbox.depths() {
        let hastened = outbox.hasten_some(&mesh, due_at, HASTENED_AT_START_MAX).await?;
        if hastened < HASTENED_AT_START_MAX {
            continue;
        }
        let (outbox, meshes) = (outbox.clone(), meshes.clone());
        // Rows that are backed off meanwhile are due again too soon at the most once.
        let rounds = depth.of(Status::Pending) / HASTENED_AT_START_MAX as u64;
        let rest = async move {
            for _ in 0..rounds {
                let hastened = outbox.hasten_some(&mesh, due_at, HASTENED_AT_START_MAX).await;
                if let Some(mesh) = meshes.get(&mesh) {
                    mesh.wake_drain();
                }
                match hastened {
                    Ok(hastened) if hastened >= HASTENED_AT_START_MAX => {}
                    Ok(_) => return,
                    // They keep their own due times.
                    Err(error) => {
                        return tracing::warn!(mesh, %error, "waiting rows cannot be made due");
                    }
                }
            }
        };
        clock.spawn(rest).detach();
    }
    Ok(())
}

/// A store that fills up, or has room again, is told once each time (§1.2).
fn on_change(clock: &Clock, bus: &Bus) -> Box<dyn Fn(&Change) + Send + Sync> {
    let (clock, bus) = (clock.clone(), bus.clone());
    Box::new(move |change| {
        let Change { subject, level, detail } = change;
        let level = match level {
            Level::Ample => "ok",
            Level::Warning => "warning",
            Level::Refusing => "refusing",
        };
        tracing::warn!(subject, level, "{detail}");
        bus.publish_with(|| Event {
            kind: EventKind::System,
            seq: None,
            data: to_text(&StorageEvent {
                ts: iso(clock.now()),
                event: "storage".to_owned(),
                subject: (*subject).to_owned(),
                level: level.to_owned(),
                detail: detail.clone(),
            }),
        });
    })
}

fn on_moved(clock: &Clock, bus: &Bus, meshes: &Meshes) -> Arc<dyn Fn(&Moved) + Send + Sync> {
    let (clock, bus, meshes) = (clock.clone(), bus.clone(), meshes.clone());
    Arc::new(move |moved| {
        if moved.status == Status::Pending
            && let Some(mesh) = meshes.get(&moved.mesh)
        {
            mesh.wake_drain();
        }
        let data = || {
            to_text(&OutboxEvent {
                ts: iso(clock.now()),
                mesh: moved.mesh.clone(),
                client_message_id: moved.client_message_id.as_str().to_owned(),
                status: moved.status.as_str().to_owned(),
                broker_message_id: moved.broker_message_id.clone(),
                last_error: moved.last_error.clone(),
                receipt: None,
            })
        };
        bus.publish_with(|| Event { kind: EventKind::Outbox, seq: None, data: data() });
    })
}

fn open_inbox(path: &Path, driver: Driver, clock: &Clock) -> Result<Inbox, Error> {
    match Inbox::open(path, driver.clone()) {
        Err(error) if error.kind() == Kind::Corrupt => {
            let aside = set_aside(path, "corrupt", clock)?;
            tracing::error!(%error, aside = %aside.display(), "the inbox is damaged: it was set aside, and a new one begins");
            Inbox::open(path, driver)
        }
        opened => opened,
    }
}

/// Renames a database and its companions to `<name>.<word>-<time>`; nothing is deleted.
///
/// # Errors
/// When a file cannot be renamed.
pub fn set_aside(path: &Path, word: &str, clock: &Clock) -> Result<PathBuf, Error> {
    let mark = format!(".{word}-{}", clock.now().0);
    // What was written last goes first: a database without its log would look older than it is.
    for companion in ["-wal", "-shm", ""] {
        rename(&suffixed(path, companion), &suffixed(path, &format!("{mark}{companion}")))?;
    }
    Ok(suffixed(path, &mark))
}

/// Where a salvaged database waits to take the place of the damaged one at `path`. A file of this
/// name is whole: it gets the name when it is.
#[must_use]
pub fn salvaged(path: &Path) -> PathBuf {
    suffixed(path, ".salvaged")
}

/// Puts a salvaged database in its place, if one waits; yields where the damaged one went. Whoever
/// opens a store calls this first, so that a salvage that was cut short is finished by the next
/// start, and never forgotten for a new and empty file.
///
/// # Errors
/// When a file cannot be renamed.
pub fn adopt_salvaged(path: &Path, clock: &Clock) -> Result<Option<PathBuf>, Error> {
    let waiting = salvaged(path);
    if !waiting.exists() {
        return Ok(None);
    }
    let aside = set_aside(path, "damaged", clock)?;
    rename(&waiting, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| io_error("sync", dir, &error))?;
    Ok(Some(aside))
}

/// Gives a file that may be there another name.
///
/// # Errors
/// When it is there and cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("rename", from, &error))
        }
        _ => Ok(()),
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io_error(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Io, format!("cannot {doing} {}: {error}", path.display()))
}
