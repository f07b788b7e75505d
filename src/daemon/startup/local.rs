//! `--local`: the embedded broker inside the daemon, and a mesh `local` on it (§17.3).

use super::{LocalBroker, failed};
use crate::error::DaemonError;
use crate::identity::IdentityConfig;
use crate::join::{self, JoinError, Prepared, VerifiedInvite};
use claudemesh_base::paths::Paths;
use claudemesh_base::runtime::{Runtime, Shutdown, Trigger};
use claudemesh_broker::{Admin, BrokerError, INVITE_EXPIRES_S, InviteWish};
use futures_lite::{FutureExt, future};
use smol::Task;
use smol::channel::Receiver;
use std::net::SocketAddr;

/// The slug of the mesh that `--local` makes on first use.
const LOCAL_MESH: &str = "local";

/// The embedded broker, running.
pub(super) struct RunningBroker {
    task: Task<()>,
    /// Closed when the broker has ended; holds why, if it ended badly.
    ended: Receiver<BrokerError>,
    stop: Trigger,
}

impl RunningBroker {
    /// Completes when the broker ended without being asked to.
    pub(super) async fn ended(&self) -> DaemonError {
        match self.ended.recv().await {
            Ok(error) => error.into(),
            Err(_) => DaemonError::Failed("the embedded broker ended".to_owned()),
        }
    }

    /// Lets it say goodbye to its connections and close its ledger.
    pub(super) async fn stop(self) {
        self.stop.fire();
        self.task.await;
    }
}

/// Starts the broker, waits until it accepts connections, and makes sure we are in its mesh.
pub(super) async fn start(
    local: LocalBroker,
    paths: &Paths,
    runtime: &Runtime,
) -> Result<RunningBroker, DaemonError> {
    let dir = paths.broker_dir();
    let (ready, bound) = smol::channel::bounded(1);
    let (ends, ended) = smol::channel::bounded(1);
    let (stop, stopped) = Shutdown::new();
    let options = claudemesh_broker::Options {
        listen: local.listen.unwrap_or_else(|| last_address(paths, local.default_listen)),
        data_dir: dir.clone(),
        public_authority: None,
        settings: local.settings,
        on_ready: Some(Box::new(move |address| {
            let _ = ready.try_send(address);
        })),
    };
    let broker_runtime = runtime.clone();
    let task = runtime.spawn(async move {
        let running = Box::pin(claudemesh_broker::run(options, broker_runtime, stopped));
        if let Err(error) = running.await {
            tracing::error!(%error, "the embedded broker ended");
            let _ = ends.try_send(error);
        }
    });
    let running = RunningBroker { task, ended, stop };
    let ready = async {
        match bound.recv().await {
            Ok(address) => Ok(address),
            // It ended before; `down` says why.
            Err(_) => future::pending().await,
        }
    };
    let down = async { Err(running.ended().await) };
    let address: SocketAddr = ready.or(down).await?;
    tracing::info!(%address, "the embedded broker is up");
    join_local_mesh(paths, runtime, local.member_name).await?;
    Ok(running)
}

/// Where it listened the last time: members hold links with that address in them.
fn last_address(paths: &Paths, default: SocketAddr) -> SocketAddr {
    let port = claudemesh_broker::stored_port(&paths.broker_dir());
    port.map_or(default, |port| SocketAddr::new(default.ip(), port))
}

async fn join_local_mesh(
    paths: &Paths,
    runtime: &Runtime,
    name: String,
) -> Result<(), DaemonError> {
    if IdentityConfig::load(paths)?.mesh(LOCAL_MESH).is_some() {
        return Ok(());
    }
    let admin = Admin::open(&paths.broker_dir(), runtime).await?;
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
    let invite = VerifiedInvite::read(&invite.token, runtime.now())?;
    let options = join::JoinOptions { display_name: name.clone(), slug: None };
    if let Prepared::New(candidate) = join::prepare(paths, runtime, &invite, &options)? {
        let member_id = admin.add_member(LOCAL_MESH, &candidate.pubkey(), &name).await?;
        candidate.complete(paths, runtime, &invite, member_id)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use smol::Executor;
    use std::sync::Arc;

    #[test]
    fn a_broker_that_ends_unasked_is_a_failed_daemon() {
        let (_, ended) = smol::channel::bounded(1);
        let runtime = Runtime::real(Arc::new(Executor::new()));
        let (stop, _) = Shutdown::new();
        let running = RunningBroker { task: runtime.spawn(async {}), ended, stop };
        assert_eq!(smol::block_on(running.ended()).exit_code(), 1);
    }
}
