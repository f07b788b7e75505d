//! `--local`: the embedded broker inside the daemon, and a mesh `local` on it (§17.3).

use super::{DaemonError, LocalBroker, failed};
use crate::broker::{self, Admin, BrokerError, INVITE_EXPIRES_S, InviteWish};
use crate::clock::Clock;
use crate::http::Shutdown;
use crate::identity::Config;
use crate::join::{self, Invite, JoinError, Prepared};
use crate::paths::Paths;
use futures_lite::{FutureExt, future};
use smol::Task;
use std::net::SocketAddr;

/// The slug of the mesh that `--local` makes on first use.
const LOCAL_MESH: &str = "local";

/// Starts the broker, waits until it accepts connections, and makes sure we are in its mesh.
pub(super) async fn start(
    local: LocalBroker,
    paths: &Paths,
    clock: &Clock,
    stopped: &Shutdown,
) -> Result<Task<()>, DaemonError> {
    let dir = paths.broker_dir();
    let (ready, bound) = smol::channel::bounded(1);
    let (failed_to_start, failure) = smol::channel::bounded(1);
    let options = broker::Options {
        listen: local.listen.unwrap_or_else(|| last_address(paths, local.default_listen)),
        data_dir: dir.clone(),
        public_authority: None,
        settings: local.settings,
        on_ready: Some(Box::new(move |address| {
            let _ = ready.try_send(address);
        })),
    };
    let (broker_clock, broker_stopped) = (clock.clone(), stopped.clone());
    let task = clock.spawn(async move {
        let running = Box::pin(broker::run(options, broker_clock, broker_stopped));
        if let Err(error) = running.await {
            tracing::error!(%error, "the embedded broker ended");
            let _ = failed_to_start.try_send(error);
        }
    });
    let ready = async {
        let address = bound.recv().await;
        address.map_err(|_| DaemonError::Failed("the embedded broker ended at once".to_owned()))
    };
    let down = async {
        match failure.recv().await {
            Ok(error) => Err(error.into()),
            // Ended without an error: `ready` says so.
            Err(_) => future::pending().await,
        }
    };
    let address: SocketAddr = down.or(ready).await?;
    tracing::info!(%address, "the embedded broker is up");
    enter_local_mesh(paths, clock, local.member_name).await?;
    Ok(task)
}

/// Where it listened the last time: members hold links with that address in them.
fn last_address(paths: &Paths, default: SocketAddr) -> SocketAddr {
    let port = broker::stored_port(&paths.broker_dir());
    port.map_or(default, |port| SocketAddr::new(default.ip(), port))
}

async fn enter_local_mesh(paths: &Paths, clock: &Clock, name: String) -> Result<(), DaemonError> {
    if Config::load(paths)?.mesh(LOCAL_MESH).is_some() {
        return Ok(());
    }
    let admin = Admin::open(&paths.broker_dir(), clock).await?;
    match admin.create_mesh(LOCAL_MESH).await {
        // Left over from a join that was cut short: the mesh is there, we are not in it.
        Ok(_) | Err(BrokerError::Conflict(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let wish = InviteWish {
        mesh: LOCAL_MESH.to_owned(),
        expires_s: INVITE_EXPIRES_S,
        uses: 1,
        role: "admin".to_owned(),
    };
    let invite = admin.create_invite(&wish).await?;
    let invite = Invite::read(&invite.token, clock.now())?;
    let options = join::Options { display_name: name.clone(), slug: None };
    if let Prepared::New(candidate) = join::prepare(paths, clock, &invite, &options)? {
        let member_id = admin.add_member(LOCAL_MESH, &candidate.pubkey(), &name).await?;
        candidate.admitted(paths, clock, &invite, member_id)?;
    }
    Ok(())
}

impl From<BrokerError> for DaemonError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::AddressTaken(_) | BrokerError::AlreadyRunning(_) => {
                Self::Conflict(error.to_string())
            }
            other => failed("run the embedded broker", &other),
        }
    }
}

impl From<JoinError> for DaemonError {
    fn from(error: JoinError) -> Self {
        failed("join the mesh `local`", &error)
    }
}
