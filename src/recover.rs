//! What happens to the two databases at start (§4.11): opened, checked, and made true again.
//!
//! A crash can leave rows inflight that nobody is sending. They become pending, due after the first
//! back-off step: their attempt may have reached the broker, whose dedupe decides, and a row that
//! crashes us must not crash us in a tight loop.

use crate::api::OutboxEvent;
use crate::clock::{Clock, iso};
use crate::db::Driver;
use crate::events::{Bus, Event, Kind as EventKind};
use crate::meshes::Meshes;
use crate::paths::Paths;
use crate::store::inbox::Inbox;
use crate::store::outbox::{Moved, Outbox};
use crate::store::{Error, Kind};
use crate::wire::to_text;
use claudemesh_fsm::outbox::Status;
use claudemesh_fsm::retry::BACKOFF_BASE_MS;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    clock: &Clock,
    bus: &Bus,
    meshes: &Meshes,
    boot_id: Option<String>,
) -> Result<Stores, Error> {
    let outbox = Outbox::open(&paths.outbox_db(), driver.clone(), on_moved(clock, bus, meshes))?;
    let found = outbox.recover(clock.now().plus(BACKOFF_BASE_MS), boot_id).await?;
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
    let inbox = open_inbox(&paths.inbox_db(), driver, clock)?;
    Ok(Stores { outbox, inbox })
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
            let aside = set_aside(path, clock)?;
            tracing::error!(%error, aside = %aside.display(), "the inbox is damaged: it was set aside, and a new one begins");
            Inbox::open(path, driver)
        }
        opened => opened,
    }
}

/// Renames a database and its companions; nothing is deleted.
fn set_aside(path: &Path, clock: &Clock) -> Result<PathBuf, Error> {
    let suffixed = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let mark = format!(".corrupt-{}", clock.now().0);
    for companion in ["", "-wal", "-shm"] {
        let (from, to) = (suffixed(companion), suffixed(&format!("{mark}{companion}")));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::new(
                    Kind::Io,
                    format!("cannot set {} aside: {error}", from.display()),
                ));
            }
            _ => {}
        }
    }
    Ok(suffixed(&mark))
}
