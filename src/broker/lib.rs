//! The embedded broker (§17): the other end of the wire, in the same binary.
//!
//! ```text
//! http_handler -- /ws --> connection --(hello)------> ledger, hub       who may come in
//!                         connection --(send)-> intake -> ledger.accept one transaction, synced
//!                                                  | decided, in the order of the commits
//!                                               dispatch: the ack, then hub.offer
//!                         connection <-(pump)-- ledger.due_deliveries   what waited
//!                         connection --(client_ack)-> hub, ledger       the lease ends, the row goes
//! housekeeping: leases and presences that end; what is forgotten
//! ```
//!
//! | room | knows |
//! |---|---|
//! | `ledger` | what is remembered: a seam of traits, with SQLite behind it |
//! | `hub` | who is connected; leases, in memory |
//! | `connection` | one WebSocket connection and what it may ask |
//! | `intake`, `dispatch`, `acks` | a message's way in, and the answers to it |
//! | `legacy_network` | the legacy network instead, as a test double for tests of clients |
//! | `rate_limit`, `disk_reserve` | how fast a member may send; whether the disk has room |
//! | `http_handler`, `join` | the HTTP port: `/ws`, `/health`, `/metrics`, `/join` |
//! | `admin` | meshes, invites, members; with or without a running broker |
//!
//! It knows no daemon: it imports values, the wire, the runtime, `db`, `http` and `log` only. It
//! never reads a message: direct ones are sealed, and the rest is none of its business.

mod acks;
mod admin;
mod alive;
mod connection;
mod counters;
mod data_dir;
mod disk_reserve;
mod dispatch;
mod error;
mod housekeeping;
mod http_handler;
mod hub;
mod intake;
mod join;
mod ledger;
mod legacy_network;
mod rate_limit;
mod settings;
#[cfg(test)]
mod testing;

pub use admin::{
    Admin, INVITE_EXPIRES_S, INVITE_EXPIRES_S_MAX, INVITE_USES_MAX, InviteInfo, InviteWish,
    KEY_PREFIX_MIN, MemberAct, MemberDone, MemberInfo, MeshInfo,
};
pub use data_dir::stored_port;
pub use error::BrokerError;
pub use ledger::{AuditInfo, Check, LedgerError};
pub use rate_limit::Rate;
pub use settings::{LISTEN_DEFAULT, OnReady, Options, Settings};

use admin::{AdminContext, AdminHandler};
use alive::Alive;
use claudemesh_base::http::{self, Limits as HttpLimits, Listener};
use claudemesh_base::runtime::{Runtime, Shutdown, Slots};
use counters::Counters;
use data_dir::Lock;
use disk_reserve::DiskReserve;
use dispatch::Dispatcher;
use futures_lite::future::{or, zip};
use housekeeping::Housekeeping;
use http_handler::{HttpHandler, Port};
use hub::{Bounds, Hub};
use intake::{Intake, Limits};
use ledger::{HealthLedger, Ledger, LedgerHandle, SqliteLedger};
use legacy_network::LegacyNetwork;
use rate_limit::RateLimiter;
use smol::channel::Receiver;
use smol::net::TcpListener;
use smol::net::unix::UnixListener;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// WebSocket connections of all meshes together, authenticated or not.
const SOCKETS_MAX: usize = 4096;
/// What connections get to close at the end.
const SHUTDOWN_CLOSE_MAX: Duration = Duration::from_secs(3);

/// The parts of a broker that runs, each with what it works on.
struct Broker {
    ledger: LedgerHandle,
    hub: Arc<Hub>,
    /// Says when the hub has a new first deadline.
    wakeups: Receiver<()>,
    dispatcher: Dispatcher,
    housekeeping: Housekeeping,
    port: Arc<Port>,
    admin: Arc<AdminContext>,
    alive: Arc<Alive>,
    /// Ends with the last connection.
    all_closed: Receiver<Infallible>,
}

impl Broker {
    /// Puts the parts together.
    fn new(
        ledger: Arc<dyn Ledger>,
        settings: Settings,
        dir: &Path,
        authority: String,
        runtime: &Runtime,
    ) -> Self {
        let ledger = LedgerHandle::new(ledger);
        let counters = Arc::new(Counters::default());
        let lease = Duration::from_millis(settings.lease_ms);
        let bounds = Bounds {
            lease,
            presence_lease: Duration::from_millis(settings.presence_lease_ms),
            connections_max: settings.connections_per_mesh_max,
        };
        let (hub, wakeups) = Hub::new(bounds, Arc::clone(&counters));
        let hub = Arc::new(hub);
        let limits = Arc::new(Limits {
            rate: settings.rate.map(RateLimiter::new),
            reserve: DiskReserve::new(dir.to_owned(), settings.disk_reserved_bytes),
        });
        let (dispatcher, decided) = Dispatcher::new(
            ledger.clone(),
            Arc::clone(&hub),
            runtime.clone(),
            Arc::clone(&counters),
            settings.rate.is_some(),
        );
        let legacy = || {
            let (ledger, hub) = (ledger.clone(), Arc::clone(&hub));
            LegacyNetwork::new(ledger, hub, runtime.clone(), lease, settings.rate)
        };
        let connections = Arc::new(connection::Context {
            ledger: ledger.clone(),
            hub: Arc::clone(&hub),
            runtime: runtime.clone(),
            counters: Arc::clone(&counters),
            intake: Intake {
                ledger: ledger.clone(),
                runtime: runtime.clone(),
                counters: Arc::clone(&counters),
                limits: Arc::clone(&limits),
                decided,
                dedupe_retention_days: settings.dedupe_retention_days,
            },
            legacy: settings.faithful.then(legacy),
        });
        let (alive, all_closed) = Alive::new();
        let alive = Arc::new(alive);
        let port = Port {
            connections,
            limits,
            authority: authority.clone(),
            started_at: runtime.monotonic(),
            sockets: Slots::new(SOCKETS_MAX),
            alive: Arc::clone(&alive),
        };
        let admin = AdminContext {
            ledger: ledger.clone(),
            hub: Some(Arc::clone(&hub)),
            counters: Arc::clone(&counters),
            runtime: runtime.clone(),
            dir: dir.to_owned(),
            authority,
        };
        let housekeeping = Housekeeping {
            ledger: ledger.clone(),
            hub: Arc::clone(&hub),
            counters,
            runtime: runtime.clone(),
            undelivered_days: settings.undelivered_days,
        };
        let (port, admin) = (Arc::new(port), Arc::new(admin));
        Self { ledger, hub, wakeups, dispatcher, housekeeping, port, admin, alive, all_closed }
    }
}

/// Runs a broker until `shutdown` fires, then says goodbye to its connections and closes the
/// ledger.
///
/// # Errors
/// When the directory is locked by another broker, the address is taken, the ledger does not open,
/// or a thread of it panicked (§14): only a new process can help then.
pub async fn run(
    options: Options,
    runtime: Runtime,
    shutdown: Shutdown,
) -> Result<(), BrokerError> {
    let Options { listen, data_dir: dir, public_authority, settings, on_ready } = options;
    let _lock = Lock::take(&dir)?;
    let tcp = bind(listen).await?;
    let bound = tcp.local_addr().map_err(|e| BrokerError::Io(e.to_string()))?;
    let ledger = SqliteLedger::open(&dir)?;
    let admin_path = dir.join(admin::SOCKET_NAME);
    let admin = data_dir::bind_admin(&admin_path)?;
    data_dir::store_port(&dir, bound.port())?;
    if bound.ip().is_unspecified() && public_authority.is_none() {
        tracing::warn!("invites will name 127.0.0.1: name the address others reach this broker at");
    }
    let faithful = settings.faithful;
    let authority = public_authority.unwrap_or_else(|| authority_of(bound));
    let broker = Broker::new(Arc::new(ledger.clone()), settings, &dir, authority, &runtime);
    if let Some(on_ready) = on_ready {
        on_ready(bound);
    }
    tracing::info!(%bound, faithful, "the broker is ready");
    let ended = Box::pin(serve(broker, tcp, admin, runtime.clone(), shutdown)).await;
    // A socket that stays behind would look like a broker that does not answer.
    let _ = std::fs::remove_file(&admin_path);
    let _ = runtime.unblock(move || ledger.close()).await;
    ended
}

/// Serves until `shutdown` fires or the ledger is lost, then says goodbye.
async fn serve(
    broker: Broker,
    tcp: TcpListener,
    admin: UnixListener,
    runtime: Runtime,
    shutdown: Shutdown,
) -> Result<(), BrokerError> {
    let Broker { ledger, hub, wakeups, dispatcher, housekeeping, alive, all_closed, .. } = broker;
    let http_handler = Arc::new(HttpHandler(broker.port));
    let admin_handler = Arc::new(AdminHandler { context: broker.admin, alive: Arc::clone(&alive) });
    let limits = HttpLimits { slots: Slots::new(SOCKETS_MAX), ..HttpLimits::default() };
    let (tcp, admin) = (Listener::Tcp(tcp), Listener::Unix(admin));
    let serving = async {
        let port = http::serve(tcp, limits, runtime.clone(), shutdown.clone(), http_handler);
        let limits = HttpLimits::default();
        let admin = http::serve(admin, limits, runtime.clone(), shutdown.clone(), admin_handler);
        zip(port, admin).await;
        Ok(())
    };
    let working = async {
        let maintaining =
            zip(housekeeping.expire_by_deadline(wakeups), housekeeping.run_periodic_jobs());
        zip(maintaining, dispatcher.run()).await;
        Ok(())
    };
    let lost = async {
        ledger.panicked().await;
        let why = "a thread of it panicked: the log has the backtrace";
        Err(LedgerError(why.to_owned()).into())
    };
    let ended = or(Box::pin(serving), or(Box::pin(working), lost)).await;
    // Nobody new comes in any more; those who are here are told, and finish what they committed.
    alive.end();
    dispatcher.finish();
    hub.close_all(1001, "shutting down");
    let closed = async {
        let _ = runtime.timeout(SHUTDOWN_CLOSE_MAX, all_closed.recv()).await;
    };
    // Whoever was just coming in is still answered.
    or(closed, dispatcher.run()).await;
    ended
}

async fn bind(listen: SocketAddr) -> Result<TcpListener, BrokerError> {
    TcpListener::bind(listen).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BrokerError::AddressTaken(listen),
        _ => BrokerError::Io(format!("cannot listen on {listen}: {error}")),
    })
}

/// `host:port` by which an address is reached from this machine.
fn authority_of(bound: SocketAddr) -> String {
    let mut reachable = bound;
    if bound.ip().is_unspecified() {
        reachable.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    reachable.to_string()
}

#[cfg(test)]
mod tests;
