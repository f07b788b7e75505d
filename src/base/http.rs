//! HTTP/1.1 for the daemon's IPC and the embedded broker: accept loops, limits, timers, shutdown.
//!
//! hyper reads and writes the protocol; everything around it is ours, so that each wait and each
//! buffer has a named bound (§1.2):
//!
//! ```text
//! accept -> peer credentials (§3.1) -> a slot, or 503 -> one task per connection
//! task: hyper codec over a watched socket -> Handler -> answer -> idle, or close
//!       watch: head 10 s -> 408, idle 75 s -> quiet close, unread answer 30 s -> dropped
//! shutdown: no new connections, no new requests, those in flight finish within `drain`
//! ```
//!
//! It knows no route, no token and no JSON; it catches no panic. What the codec refuses before a
//! request exists is answered by the codec with an empty body.

pub mod client;

mod body;
mod connection;
mod credentials;
mod progress;
mod socket;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use body::{Body, BodyError, empty, full, read_body, stream};
pub use socket::{Listener, Socket, upgraded};

use crate::runtime::{BoxFuture, Runtime, Shutdown, Slots};
use futures_lite::future::or;
use hyper::body::Incoming;
use hyper::{Request, Response};
use smol::channel::{self, Sender};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Request line and headers together, in bytes; beyond it the codec answers 431. At most 100
/// headers are taken besides: hyper's own bound, cheapest left at its default.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// From a request's first byte to the end of its headers.
pub const HEAD_ARRIVAL_MAX: Duration = Duration::from_secs(10);
/// Between an answer and the next request on one connection.
pub const IDLE_MAX: Duration = Duration::from_secs(75);
/// From a request's first byte to the end of its body.
pub const REQUEST_ARRIVAL_MAX: Duration = Duration::from_secs(30);
/// How long an answer may wait without one byte being taken.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// Open connections of all listeners that share one [`Slots`].
pub const CONNECTIONS_MAX: usize = 512;
/// What requests in flight get to finish at shutdown (§14).
pub const DRAIN_MAX: Duration = Duration::from_secs(5);
/// Connections over the limit that may wait for their 503 to be read; the rest are just closed.
const REFUSALS_MAX: usize = 64;
/// The pause after `accept` failed for want of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);

/// The bounds of one server (§1.2). `Limits::default()` is the contract; tests shorten it.
#[derive(Clone)]
pub struct Limits {
    /// Bytes of request line and headers; at least 8 KiB, which is hyper's minimum.
    pub header_bytes_max: usize,
    /// A started head must be complete within this.
    pub head_arrival: Duration,
    /// A connection without a request is closed quietly after this.
    pub idle: Duration,
    /// A whole request must be complete within this; handed to handlers in [`Peer`].
    pub request_arrival: Duration,
    /// An answer that makes no progress is dropped, with its connection, after this.
    pub write_stall: Duration,
    /// What requests in flight get to finish at shutdown.
    pub drain: Duration,
    /// Open connections. A clone shares the count: two listeners, one budget.
    pub slots: Slots,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes_max: HEADER_BYTES_MAX,
            head_arrival: HEAD_ARRIVAL_MAX,
            idle: IDLE_MAX,
            request_arrival: REQUEST_ARRIVAL_MAX,
            write_stall: WRITE_STALL_MAX,
            drain: DRAIN_MAX,
            slots: Slots::new(CONNECTIONS_MAX),
        }
    }
}

/// The way a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The Unix socket; the peer runs as `uid`, which is ours or root.
    Unix {
        /// The peer's user id, from its credentials.
        uid: u32,
    },
    /// A TCP port.
    Tcp,
}

/// Who asks, and until when the rest of the request may arrive.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The way the request came in.
    pub transport: Transport,
    /// [`Runtime::monotonic`] time by which the whole request must be here: for [`read_body`].
    pub arrival_deadline: Duration,
}

/// What answers requests. The future is dropped when the client disconnects.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request<Incoming>, peer: Peer) -> BoxFuture<Response<Body>>;
}

impl<F> Handler for F
where
    F: Fn(Request<Incoming>, Peer) -> BoxFuture<Response<Body>> + Send + Sync + 'static,
{
    fn handle(&self, request: Request<Incoming>, peer: Peer) -> BoxFuture<Response<Body>> {
        self(request, peer)
    }
}

/// What every connection of one listener shares.
struct Server {
    limits: Limits,
    refusals: Slots,
    runtime: Runtime,
    shutdown: Shutdown,
    /// Fires when `drain` is over, or when the future of [`serve`] is dropped.
    abort: Shutdown,
    handler: Arc<dyn Handler>,
}

/// Serves `listener` until `shutdown` fires, then lets requests in flight finish for at most
/// `limits.drain` and returns once every connection is gone. Dropping the future closes all.
///
/// An upgraded connection (WebSocket) leaves the limits and the shutdown of this server: whoever
/// took it with [`upgraded`] answers for it.
pub async fn serve(
    listener: Listener,
    limits: Limits,
    runtime: Runtime,
    shutdown: Shutdown,
    handler: Arc<dyn Handler>,
) {
    let (alive, all_closed) = channel::bounded::<Infallible>(1);
    let (abort_trigger, abort) = Shutdown::new();
    let refusals = Slots::new(REFUSALS_MAX);
    let server = Arc::new(Server { limits, refusals, runtime, shutdown, abort, handler });
    accept_until_shutdown(&server, &listener, &alive).await;
    drop(listener);
    drop(alive);
    // Nothing is ever sent: `recv` ends when the last connection drops its sender.
    if server.runtime.timeout(server.limits.drain, all_closed.recv()).await.is_none() {
        abort_trigger.fire();
        let _ = all_closed.recv().await;
    }
}

async fn accept_until_shutdown(
    server: &Arc<Server>,
    listener: &Listener,
    alive: &Sender<Infallible>,
) {
    let mut failures: u64 = 0;
    loop {
        let stop = async {
            server.shutdown.wait().await;
            None
        };
        let Some(accepted) = or(stop, async { Some(listener.accept().await) }).await else {
            return;
        };
        match accepted {
            Ok(socket) => {
                if failures > 0 {
                    tracing::info!(failures, "accepting connections again");
                    failures = 0;
                }
                admit(server, socket, alive);
            }
            Err(error) if is_peer_error(&error) => {}
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                }
                failures += 1;
                or(server.shutdown.wait(), server.runtime.sleep(ACCEPT_BACKOFF)).await;
            }
        }
    }
}

/// A connection that ended before it was accepted says nothing about this machine.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn admit(server: &Arc<Server>, socket: Socket, alive: &Sender<Infallible>) {
    let Some(transport) = credentials::transport_of(&socket) else {
        tracing::warn!("closed a connection of another user");
        return;
    };
    let alive = alive.clone();
    let shared = Arc::clone(server);
    if let Some(slot) = server.limits.slots.take() {
        let task = async move {
            connection::run(&shared, socket, transport).await;
            drop((slot, alive));
        };
        server.runtime.spawn(task).detach();
    } else if let Some(slot) = server.refusals.take() {
        let task = async move {
            connection::refuse(&shared, socket).await;
            drop((slot, alive));
        };
        server.runtime.spawn(task).detach();
    }
}
