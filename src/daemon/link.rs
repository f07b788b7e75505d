//! Keeps one mesh connected: carries out what [`fsm::link`](claudemesh_fsm::link) decides, with a
//! real socket (§15, §15.5, §15.6, `specs/wire.md`).
//!
//! ```text
//! dial ─▶ hello ─▶ negotiate ─▶ open ──▶ LinkTransport (out), InboundPush (in), roster
//!   ▲       │          │          │
//!   └─ wait ◀──────────┴──────────┴──▶ refused
//! ```
//!
//! A link is one task: it reads, writes and watches the time in one place, and spawns nothing. It
//! knows no outbox and no inbox: it hands out a [`LinkTransport`](crate::port::LinkTransport) while it is
//! open and passes pushes on. It keeps no message: what it could not hand over stays the sender's,
//! or the broker's.

mod commands;
mod connection;
mod driver;
mod pending_sends;
mod receipt_queries;
mod roster_refresh;
mod socket;
mod suspend;
mod tls;
mod topics;
mod view;
mod yielding;

pub use commands::{LinkCommandReceiver, LinkHandle};
pub use socket::{CLOSE_MAX, CONNECT_MAX, MESSAGE_BYTES_MAX};
pub use tls::{TlsError, TlsRoots};

use crate::port::{InboundPush, LinkObserver, LinkView};
use claudemesh_base::message::SecretKey;
use claudemesh_base::runtime::{BoxFuture, Runtime};
use claudemesh_fsm::link::{LinkState, Timers};
use claudemesh_fsm::negotiate::FeaturePolicy;
use commands::LinkCommands;
use driver::LinkDriver;
use smol::channel::Sender;
use std::sync::Arc;
use std::time::Duration;

/// How many acknowledgements of pushes may wait to be written.
pub const CLIENT_ACKS_MAX: usize = 256;
/// The feature that lists members who are not connected; asked for, never required.
pub const OFFLINE_ROSTER: &str = "offline_roster";
/// The most characters of a broker's words that are kept; the rest says nothing new.
pub const WORDS_CHARS_MAX: usize = 512;

/// One mesh's link.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// Where the broker listens: `ws://` or `wss://`, `/ws` included, used as it is.
    pub broker_url: String,
    /// The mesh's id on the wire; also names the mesh in the log.
    pub mesh_id: String,
    /// The member row's id.
    pub member_id: String,
    /// The member key.
    pub secret: SecretKey,
    /// Stable per install and mesh: a second connection with it replaces the first.
    pub session_id: String,
    /// Overrides the member's name.
    pub display_name: Option<String>,
    /// Shown in the roster.
    pub hostname: Option<String>,
    /// Shown in the roster; required by today's network.
    pub cwd: String,
    /// This process; required by today's network.
    pub pid: u32,
    /// The timers of §15.5.
    pub timers: Timers,
    /// See [`CONNECT_MAX`].
    pub connect_max: Duration,
    /// How long a broker may take to answer a send.
    pub ack_max: Duration,
    /// How many sends may wait for their answers at once (§4.6); at least 1.
    pub inflight_max: usize,
    /// What is asked of the broker (§15).
    pub policy: FeaturePolicy,
    /// `outbox.max_age_hours`, if it is set (§4.9).
    pub max_age_override_hours: Option<u64>,
    /// Who may vouch for a `wss://` broker.
    pub tls_roots: TlsRoots,
}

/// Keeps the link alive until `stop` completes; then says goodbye and ends within
/// [`CLOSE_MAX`]. A refused link stays refused until then, or until the other end of `orders` says
/// to dial again. After the host slept it dials again by itself (§14). Pushes go to `inbound`; while
/// it is full nothing is read, and the broker keeps the rest.
pub async fn run(
    config: LinkConfig,
    runtime: Runtime,
    observer: Arc<dyn LinkObserver>,
    inbound: Sender<InboundPush>,
    stop: BoxFuture<()>,
    orders: LinkCommandReceiver,
) {
    let commands = LinkCommands::new(stop, orders);
    let mut driver = LinkDriver::new(config, runtime, observer.clone(), inbound, commands);
    Box::pin(driver.run()).await;
    observer.down(LinkView::plain(LinkState::Offline));
}

#[cfg(test)]
mod tests;
