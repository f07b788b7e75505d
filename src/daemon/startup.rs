//! The composition root: opens the stores, starts the flows and the edges, and ends them in order.

mod attach;
mod bind;
mod local;
mod revocation_logger;
mod signals;
pub mod stores;

use crate::api::guard::AcceptedToken;
use crate::api::{self, App, listen};
use crate::config::Settings;
use crate::error::DaemonError;
use crate::events::EventBus;
use crate::flow::accept::AcceptFlow;
use crate::flow::retention::RetentionFlow;
use crate::identity::{LocalToken, SessionKeys, boot_id};
use crate::lock::Lock;
use crate::mesh::{Mesh, Meshes, roster};
use crate::store::inbox::InboxLimits;
use crate::store::quota::StorageLimits;
use attach::{AttachedMeshes, ReloadReport};
use claudemesh_base::db::Driver;
use claudemesh_base::log::Throttled;
use claudemesh_base::paths::{Paths, check_socket_path, ensure_private_dir};
use claudemesh_base::runtime::{Runtime, Shutdown, Slots};
use claudemesh_base::{http, log};
use claudemesh_fsm::link::LinkState;
use futures_lite::{FutureExt, future};
use signals::{OsSignals, SignalRequest};
use smol::{Executor, Task};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use stores::Stores;

/// How to run, already resolved from flags, environment and files.
#[derive(Debug)]
pub struct DaemonOptions {
    /// Where everything is.
    pub paths: Paths,
    /// What `config.toml`, flags and detection say.
    pub settings: Settings,
    /// Serve only these meshes; all of them when empty.
    pub only_meshes: Vec<String>,
    /// Also run the embedded broker, on this address if one is given (§8 `--local`).
    pub local_broker: Option<LocalBroker>,
    /// Write the log to standard error too: for a person who watches.
    pub log_to_stderr: bool,
}

/// The embedded broker inside the daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalBroker {
    /// Where it listens; `None` takes the port of the last run, or the default.
    pub listen: Option<SocketAddr>,
    /// Where it listens the first time.
    pub default_listen: SocketAddr,
    /// Its settings.
    pub settings: claudemesh_broker::Settings,
    /// Our name in the mesh `local`, if it has to be made.
    pub member_name: String,
}

/// Runs until a signal ends it. Blocks.
///
/// # Errors
/// When it cannot start, or must not go on.
pub fn run(options: DaemonOptions) -> Result<(), DaemonError> {
    ensure_private_dir(&options.paths.daemon_dir)?;
    check_socket_path(&options.paths.socket())?;
    let lock = Lock::take(&options.paths)?;
    log::start(&options.paths.log(), &options.settings.daemon.log_level, options.log_to_stderr)
        .map_err(|error| failed("open the log", &error))?;
    log::log_panics();
    let executor = Arc::new(Executor::new());
    let runtime = Runtime::real(executor.clone());
    let ended = smol::block_on(executor.run(serve(options, runtime)));
    if let Err(error) = &ended {
        tracing::error!(%error, "the daemon ended");
    }
    match &ended {
        Err(DaemonError::Conflict(_)) => lock.release_and_restore_pid(),
        _ => drop(lock),
    }
    ended
}

async fn serve(options: DaemonOptions, runtime: Runtime) -> Result<(), DaemonError> {
    let DaemonOptions { paths, settings, only_meshes, local_broker, log_to_stderr: _ } = options;
    for warning in paths.exposed_secrets() {
        tracing::warn!("{warning}");
    }
    let mut signals = OsSignals::new().map_err(|error| failed("listen for signals", &error))?;
    let (stop, stopped) = Shutdown::new();
    let (bus, meshes) = (EventBus::default(), Meshes::default());
    let limits = StorageLimits {
        outbox_bytes_max: settings.outbox.max_bytes,
        disk_reserved_bytes: settings.disk.reserved_bytes,
    };
    let context = (&runtime, &bus, &meshes);
    let stores = stores::open(&paths, Driver::Threaded, context, limits, boot_id()).await?;
    let broker = match local_broker {
        None => None,
        Some(local) => Some(local::start(local, &paths, &runtime).await?),
    };
    let mut attached = AttachedMeshes {
        session_keys: SessionKeys::load(&paths)?,
        rosters: roster::cache::load(&paths),
        paths: paths.clone(),
        settings: settings.clone(),
        only_meshes,
        stores: stores.clone(),
        meshes: meshes.clone(),
        bus: bus.clone(),
        runtime: runtime.clone(),
        stopped: stopped.clone(),
        tasks: Vec::new(),
        links: BTreeMap::new(),
    };
    attached.attach_joined()?;
    attached
        .tasks
        .push(runtime.spawn(retention(&settings, &stores, &runtime).run(stopped.clone())));
    let ipc = serve_api(&paths, &settings, &stores, &meshes, &bus, &runtime, &stopped).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        socket = %paths.socket().display(),
        meshes = meshes.all().len(),
        "the daemon is up"
    );
    stores::check_in_background(&stores, &runtime);
    let ended = run_until_signal(&mut signals, &mut attached, broker.as_ref()).await;
    stop.fire();
    // The order of §14: sends under way finish, links say goodbye, then the stores close. Our own
    // broker answers those sends, so it ends after them.
    for task in attached.tasks.into_iter().chain(ipc) {
        task.await;
    }
    if let Some(broker) = broker {
        broker.stop().await;
    }
    let _ = std::fs::remove_file(paths.socket());
    let _ = std::fs::remove_file(paths.http_port());
    save_rosters(&paths, &meshes);
    // Blocks until both are on disk; nothing else is left to run.
    stores.outbox.close();
    stores.inbox.close();
    tracing::info!("the daemon has ended");
    ended
}

fn retention(settings: &Settings, stores: &Stores, runtime: &Runtime) -> RetentionFlow {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let bounds = InboxLimits {
        retention_ms: i64::from(settings.inbox.retention_days) * DAY_MS,
        bytes_max: i64::try_from(settings.inbox.max_bytes).unwrap_or(i64::MAX),
    };
    RetentionFlow::new(stores.outbox.clone(), stores.inbox.clone(), bounds, runtime.clone())
}

/// Serves until a signal asks to stop, until every broker has refused us for good, or until
/// something is lost that only a new process can bring back.
async fn run_until_signal(
    signals: &mut OsSignals,
    attached: &mut AttachedMeshes,
    broker: Option<&local::RunningBroker>,
) -> Result<(), DaemonError> {
    loop {
        let asked = async { Ok(signals.next().await) };
        let refused = async { Err(all_refused(&attached.meshes).await) };
        let lost = async { Err(store_lost(&attached.stores).await) };
        let down = async {
            match broker {
                Some(broker) => Err(broker.ended().await),
                None => future::pending().await,
            }
        };
        match asked.or(refused).or(lost).or(down).await? {
            SignalRequest::Stop(name) => {
                tracing::info!(signal = name, "stopping");
                return Ok(());
            }
            SignalRequest::Reload => match attached.reload() {
                Ok(ReloadReport { added, redialled }) => {
                    tracing::info!(added, redialled, "configuration read again");
                }
                Err(error) => tracing::error!(%error, "configuration could not be read again"),
            },
        }
    }
}

/// Completes when there are meshes and none of their brokers will have us.
async fn all_refused(meshes: &Meshes) -> DaemonError {
    loop {
        let changed = meshes.changed();
        let all = meshes.all();
        let refused = |mesh: &Mesh| mesh.link().state == LinkState::Refused;
        if !all.is_empty() && all.iter().all(refused) {
            let why = all.iter().map(|mesh| {
                let link = mesh.link();
                let reason = link.reason.unwrap_or_default();
                format!("mesh `{}`: {reason}. {}", mesh.slug(), link.remedy.unwrap_or_default())
            });
            return DaemonError::Refused(why.collect::<Vec<_>>().join("\n"));
        }
        changed.await;
    }
}

/// Completes when a store's thread panicked. The process ends, so that whoever looks after it starts
/// another one: a daemon without its stores is up and deaf.
async fn store_lost(stores: &Stores) -> DaemonError {
    let outbox = async {
        stores.outbox.db().lost().await;
        "outbox"
    };
    let inbox = async {
        stores.inbox.db().lost().await;
        "inbox"
    };
    let name = outbox.or(inbox).await;
    DaemonError::Failed(format!("a thread of the {name} panicked: the log has the backtrace"))
}

async fn serve_api(
    paths: &Paths,
    settings: &Settings,
    stores: &Stores,
    meshes: &Meshes,
    bus: &EventBus,
    runtime: &Runtime,
    stopped: &Shutdown,
) -> Result<Vec<Task<()>>, DaemonError> {
    let app = App {
        accept: AcceptFlow {
            outbox: stores.outbox.clone(),
            meshes: meshes.clone(),
            runtime: runtime.clone(),
        },
        outbox: stores.outbox.clone(),
        inbox: stores.inbox.clone(),
        meshes: meshes.clone(),
        bus: bus.clone(),
        runtime: runtime.clone(),
        streams: Slots::new(settings.ipc.streams_max),
        started_at: runtime.monotonic(),
        store_failures: Throttled::default(),
    };
    let token = LocalToken::read_or_create(paths, runtime)?;
    let handler = listen::handler(listen::ApiService {
        router: api::router(app),
        token: AcceptedToken::new(token.as_str()),
        public_health: settings.ipc.public_health_check,
        in_flight: Slots::new(settings.ipc.requests_max),
        body_limits: listen::BodyLimits {
            send_bytes_max: settings.ipc.send_body_bytes_max,
            requeue_bytes_max: settings.ipc.requeue_body_bytes_max,
            seen_bytes_max: settings.ipc.seen_body_bytes_max,
            other_bytes_max: settings.ipc.body_bytes_max,
        },
        shutdown: stopped.clone(),
        runtime: runtime.clone(),
    });
    let limits = http::Limits {
        head_arrival: settings.ipc.head_ms,
        idle: settings.ipc.idle_ms,
        request_arrival: settings.ipc.request_ms,
        write_stall: settings.ipc.stall_ms,
        slots: Slots::new(settings.ipc.connections_max),
        ..http::Limits::default()
    };
    let mut listeners = vec![bind::unix(&paths.socket())?];
    if settings.ipc.tcp_enabled {
        listeners.push(bind::tcp(paths, settings.ipc.http_port).await?);
    }
    let serve = |listener| {
        let (limits, stopped, handler) = (limits.clone(), stopped.clone(), handler.clone());
        runtime.spawn(http::serve(listener, limits, runtime.clone(), stopped, handler))
    };
    Ok(listeners.into_iter().map(serve).collect())
}

fn save_rosters(paths: &Paths, meshes: &Meshes) {
    let all = meshes.all();
    let rosters = all.iter().map(|mesh| (mesh.slug(), mesh.roster()));
    if let Err(error) = roster::cache::save(paths, rosters) {
        tracing::warn!(%error, "the rosters could not be saved");
    }
}

fn failed(doing: &str, error: &dyn fmt::Display) -> DaemonError {
    DaemonError::Failed(format!("cannot {doing}: {error}"))
}
