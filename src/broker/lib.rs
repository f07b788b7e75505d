//! The embedded broker (§17): the other end of the wire, in the same binary.
//!
//! ```text
//! serve ---- /ws ---> peer --(hello)--> ledger, route            who may come in
//!                     peer --(send)---> send --> ledger.accept   one transaction, synced
//!                                         |  after the commit: ack, then
//!                                         +--> route.offer ----> the recipients' peers
//!                     peer <-(pump)---- ledger.waiting           what waited
//!                     peer --(client_ack)-> route, ledger        the lease ends, the row goes
//! keeper: leases and presences that end; what is forgotten      two timers, neither waits
//! ```
//!
//! | file | knows |
//! |---|---|
//! | `ledger` | what is remembered; the only SQL |
//! | `route` | who is connected; leases, in memory |
//! | `peer` | one WebSocket connection and what it may ask |
//! | `faithful` | today's network instead, for tests of clients |
//! | `send` | phase B1 and the words of every answer |
//! | `rate`, `reserve` | how fast a member may send; whether the disk has room |
//! | `serve` | the HTTP port: `/ws`, `/health`, `/metrics`, `/join` |
//! | `provision`, `membership`, `admin` | meshes, invites, members; with or without a running broker |
//!
//! It knows no daemon: it imports values, the wire, the clock, `db`, `http` and `log` only. It never
//! reads a message: direct ones are sealed, and the rest is none of its business.

mod admin;
mod connection;
mod counters;
mod disk_reserve;
mod files;
mod housekeeping;
mod http_handler;
mod hub;
mod ledger;
mod legacy_network;
mod membership;
mod provision;
mod rate_limit;
mod send;
#[cfg(test)]
mod testing;

pub use admin::Admin;
pub use files::stored_port;
pub use ledger::Check;
pub use membership::{AuditInfo, KEY_PREFIX_MIN, MemberAct, MemberDone, MemberInfo};
pub use provision::{
    INVITE_EXPIRES_S, INVITE_EXPIRES_S_MAX, INVITE_USES_MAX, InviteInfo, InviteWish, MeshInfo,
};
pub use rate_limit::Rate;

use claudemesh_base::db;
use claudemesh_base::http::{self, Limits, Listener};
use claudemesh_base::log::Repeated;
use claudemesh_base::runtime::{Runtime, Shutdown, Slots};
use counters::Counters;
use disk_reserve::DiskReserve;
use files::Lock;
use futures_lite::future::{or, zip};
use hub::{Bounds, Hub};
use ledger::Ledger;
use legacy_network::LegacyNetwork;
use rate_limit::RateLimiter;
use smol::channel::{self, Receiver, Sender};
use smol::net::TcpListener;
use smol::net::unix::UnixListener;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where the broker listens when nothing is said (§17).
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7900);
/// WebSocket connections of all meshes together, authenticated or not.
const SOCKETS_MAX: usize = 4096;
/// What connections get to close at the end.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// The broker's settings, with their defaults (§1.2, §17).
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How long a push may stay unacknowledged before it is pushed again, in milliseconds.
    pub lease_ms: u64,
    /// How long a closed connection counts as present, in milliseconds.
    pub presence_lease_ms: u64,
    /// How fast one member may send; `None`: as fast as it can.
    pub rate: Option<Rate>,
    /// How long ids are remembered; `None`: for ever.
    pub dedupe_retention_days: Option<u32>,
    /// How long messages are kept, delivered or not.
    pub undelivered_days: u32,
    /// Connections of one mesh.
    pub connections_per_mesh_max: usize,
    /// What must stay free on the disk for a message to be taken, in bytes; 0 leaves it to the disk
    /// to say no.
    pub disk_reserved_bytes: u64,
    /// Behaves like today's network, faults included: for tests of clients.
    pub faithful: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            presence_lease_ms: 90_000,
            rate: None,
            dedupe_retention_days: Some(365),
            undelivered_days: 30,
            connections_per_mesh_max: 1024,
            disk_reserved_bytes: 64 << 20,
            faithful: false,
        }
    }
}

/// ReceiptNotice the bound address once the broker accepts connections.
pub type OnReady = Box<dyn FnOnce(SocketAddr) + Send>;

/// How to run a broker.
pub struct Options {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The broker's directory; created with mode 0700.
    pub data_dir: PathBuf,
    /// `host:port` as others reach it, for invites; by default the bound address.
    pub public_authority: Option<String>,
    /// Everything else.
    pub settings: Settings,
    /// Called once, when connections are accepted.
    pub on_ready: Option<OnReady>,
}

/// Why the broker, or a verb of its administration, failed. The text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerError {
    /// The directory of a verb holds no ledger.
    NoLedger(PathBuf),
    /// Another process holds the data directory's lock.
    AlreadyRunning(PathBuf),
    /// The address is taken (§17.3: exit 5).
    AddressTaken(SocketAddr),
    /// A file or socket failed.
    Io(String),
    /// The ledger failed.
    Ledger(db::Error),
    /// An argument is wrong; says which and what was expected.
    Invalid(String),
    /// A name is taken.
    Conflict(String),
    /// No such mesh or member.
    NotFound(String),
    /// A broker runs but does not answer.
    Unreachable(String),
    /// No broker runs, and the verb needs one.
    NotRunning(String),
}

impl BrokerError {
    fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::Io(format!("{what} {}: {error}", path.display()))
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRunning(dir) => {
                write!(f, "a broker is running on {}", dir.display())
            }
            Self::NoLedger(dir) => write!(f, "there is no broker's ledger in {}", dir.display()),
            Self::AddressTaken(at) => {
                write!(f, "{at} is taken by another program: choose another with --listen")
            }
            Self::Ledger(error) => write!(f, "the broker's ledger: {error}"),
            Self::Io(words)
            | Self::Invalid(words)
            | Self::Conflict(words)
            | Self::NotFound(words)
            | Self::Unreachable(words)
            | Self::NotRunning(words) => f.write_str(words),
        }
    }
}

impl std::error::Error for BrokerError {}

impl From<db::Error> for BrokerError {
    fn from(error: db::Error) -> Self {
        Self::Ledger(error)
    }
}

/// What every part of a running broker shares.
struct Broker {
    ledger: Ledger,
    hub: Hub,
    runtime: Runtime,
    settings: Settings,
    counters: Arc<Counters>,
    limiter: Option<RateLimiter>,
    /// The ledger does not do what is asked of it.
    ledger_failing: Repeated,
    reserve: DiskReserve,
    /// There only when this broker plays today's network.
    faithful: Option<LegacyNetwork>,
    dir: PathBuf,
    /// `host:port` for links.
    authority: String,
    started_at: Duration,
    sockets: Slots,
    /// Held by every connection's task: the end of the last one is the end of all.
    alive: Mutex<Option<Sender<Infallible>>>,
}

impl Broker {
    /// Runs the orphan check and counts what it finds.
    async fn check(&self) -> Result<Check, db::Error> {
        let check = self.ledger.check().await?;
        self.counters.orphan_checks.add(1);
        if !check.is_whole() {
            self.counters.orphans_found.add(1);
            tracing::error!(?check, "the ledger's tables do not agree");
        }
        Ok(check)
    }

    /// The ledger failed somebody who was told, or who tries again: with a full disk that is
    /// everybody, all the time.
    fn ledger_failed(&self, error: &db::Error) {
        if self.ledger_failing.happened() {
            tracing::error!(%error, "the ledger fails: senders are asked to try again, acknowledgements wait");
        }
    }

    /// The ledger stored a message: what is smaller may fit a disk that is full.
    fn ledger_works(&self) {
        if let Some(failures) = self.ledger_failing.ended() {
            tracing::info!(failures, "the ledger works again");
        }
    }

    fn alive(&self) -> Option<Sender<Infallible>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    let ledger = Ledger::open(&dir)?;
    let admin_path = dir.join(admin::SOCKET_NAME);
    let admin = files::bind_admin(&admin_path)?;
    files::store_port(&dir, bound.port())?;
    if bound.ip().is_unspecified() && public_authority.is_none() {
        tracing::warn!("invites will name 127.0.0.1: name the address others reach this broker at");
    }
    let counters = Arc::new(Counters::default());
    let bounds = Bounds {
        lease: Duration::from_millis(settings.lease_ms),
        presence_lease: Duration::from_millis(settings.presence_lease_ms),
        connections_max: settings.connections_per_mesh_max,
    };
    let (hub, wakeups) = Hub::new(bounds, Arc::clone(&counters));
    let (alive, gone) = channel::bounded(1);
    let broker = Arc::new(Broker {
        ledger: ledger.clone(),
        hub,
        limiter: settings.rate.map(RateLimiter::new),
        ledger_failing: Repeated::default(),
        reserve: DiskReserve::new(dir.clone(), settings.disk_reserved_bytes),
        faithful: settings.faithful.then(|| LegacyNetwork::new(settings.rate)),
        counters,
        settings,
        authority: public_authority.unwrap_or_else(|| authority_of(bound)),
        started_at: runtime.monotonic(),
        sockets: Slots::new(SOCKETS_MAX),
        alive: Mutex::new(Some(alive)),
        dir,
        runtime: runtime.clone(),
    });
    if let Some(on_ready) = on_ready {
        on_ready(bound);
    }
    tracing::info!(%bound, faithful = broker.faithful.is_some(), "the broker is ready");
    let ended = Box::pin(serve(broker, tcp, admin, wakeups, gone, shutdown)).await;
    // A socket that stays behind would look like a broker that does not answer.
    let _ = std::fs::remove_file(&admin_path);
    let _ = runtime.unblock(move || ledger.close()).await;
    ended
}

/// Serves until `shutdown` fires or the ledger is lost, then says goodbye. `gone` ends with the last
/// connection.
async fn serve(
    broker: Arc<Broker>,
    tcp: TcpListener,
    admin: UnixListener,
    wakeups: Receiver<()>,
    gone: Receiver<Infallible>,
    shutdown: Shutdown,
) -> Result<(), BrokerError> {
    let runtime = broker.runtime.clone();
    let front = Arc::new(http_handler::HttpHandler(Arc::clone(&broker)));
    let office = Arc::new(admin::AdminHandler(Arc::clone(&broker)));
    let limits = Limits { slots: Slots::new(SOCKETS_MAX), ..Limits::default() };
    let (tcp, admin) = (Listener::Tcp(tcp), Listener::Unix(admin));
    let serving = async {
        let front = http::serve(tcp, limits, runtime.clone(), shutdown.clone(), front);
        let office =
            http::serve(admin, Limits::default(), runtime.clone(), shutdown.clone(), office);
        zip(front, office).await;
        Ok(())
    };
    let keeping = async {
        zip(
            housekeeping::keep(Arc::clone(&broker), wakeups),
            housekeeping::forget(Arc::clone(&broker)),
        )
        .await;
        Ok(())
    };
    let lost = async {
        broker.ledger.lost().await;
        let why = "a thread of it panicked: the log has the backtrace";
        Err(db::Error::new(db::Kind::Closed, why).into())
    };
    let ended = or(Box::pin(serving), or(Box::pin(keeping), lost)).await;
    // Nobody new comes in any more; those who are here are told, and finish what they committed.
    broker.alive.lock().unwrap_or_else(PoisonError::into_inner).take();
    broker.hub.close_all(1001, "shutting down");
    runtime.timeout(GOODBYE_MAX, gone.recv()).await;
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
