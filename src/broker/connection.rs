//! One WebSocket connection: a reader, a writer and a pump, which end together (`specs/wire.md`).
//!
//! ```text
//! reader: frames in -> hello, send, client_ack, verbs     stops reading while the writer is behind
//! writer: frames out, ping every 30 s                     gone after 75 s of silence or 30 s of stall
//! pump:   acknowledgements -> ledger; ledger -> pushes    at most 256 unacknowledged, none while the
//!                                                         writer is behind
//! ```
//!
//! Nothing a client sends ends anything but its own connection.

mod admission;
mod features;
mod hello;
mod metered;
mod parse;
mod pump;
mod read;
mod requests;
mod roster;
mod write;

pub(crate) use hello::{BANNED, sanitize};
pub(crate) use pump::store_last_acks;

use super::hub::{ConnectionEnds, ConnectionId, Hub, OutboundQueue, Outgoing};
use crate::acks::malformed_ack;
use crate::counters::Counters;
use crate::intake::Intake;
use crate::ledger::{LedgerHandle, MessageSender};
use crate::legacy_network::LegacyNetwork;
use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::Utf8Bytes;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use bytes::Bytes;
use claudemesh_base::http::Socket;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::{BrokerFrame, ClientAck, ClientFrame, ErrorFrame, to_text};
use futures_lite::future::or;
use futures_util::StreamExt;
use hello::HelloRejection;
use metered::Metered;
use parse::Parsed;
use smol::channel::{self, Receiver};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The largest frame that is read at all; a message must be far smaller (§3.6).
const FRAME_HARD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes the WebSocket library may hold back for a slow reader.
const WRITE_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long the other side gets to answer a close.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// What every connection of a broker works with.
pub(crate) struct Context {
    pub(crate) ledger: LedgerHandle,
    pub(crate) hub: Arc<Hub>,
    pub(crate) runtime: Runtime,
    pub(crate) counters: Arc<Counters>,
    pub(crate) intake: Intake,
    /// There only when this broker plays the legacy network.
    pub(crate) legacy: Option<LegacyNetwork>,
}

/// A connection from upgrade to end.
struct ClientConnection {
    context: Arc<Context>,
    outbound: OutboundQueue,
    /// When the client was last heard, on the monotonic clock.
    last_received_ms: AtomicU64,
    /// Zero before the hello.
    session: AtomicU64,
    /// Tells the pump that the session is there.
    authenticated: channel::Sender<ConnectionId>,
    /// Rung by the writer when there is room again.
    drained: Receiver<()>,
}

/// Serves one upgraded connection until it ends.
pub(crate) async fn serve(context: Arc<Context>, socket: Socket, leftover: Bytes) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_HARD_BYTES_MAX))
        .max_frame_size(Some(FRAME_HARD_BYTES_MAX))
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX);
    let (socket, meter) = Metered::new(socket);
    let web_socket =
        WebSocketStream::from_partially_read(socket, leftover.to_vec(), Role::Server, Some(config));
    let (sink, mut stream) = web_socket.await.split();
    let (outbound, ConnectionEnds { outgoing, woken, kill_switch }) = OutboundQueue::new();
    let (authenticated, session) = channel::bounded(1);
    let (drains, drained) = channel::bounded(1);
    let peer = ClientConnection {
        last_received_ms: AtomicU64::new(as_ms(context.runtime.monotonic())),
        context: Arc::clone(&context),
        outbound,
        session: AtomicU64::new(0),
        authenticated,
        drained,
    };
    let was_closed_by_us = {
        let reader = Box::pin(async {
            peer.read(&mut stream).await;
            false
        });
        let writer = Box::pin(peer.write(sink, &meter, outgoing, drains));
        let pump = Box::pin(async {
            peer.pump(&session, &woken).await;
            false
        });
        let ended = async {
            kill_switch.fired(&context.runtime).await;
            false
        };
        or(writer, or(reader, or(pump, ended))).await
    };
    peer.disconnect().await;
    if was_closed_by_us {
        // Reading on until the client hangs up, so that the close is not lost to a reset.
        let hang_up = async { while let Some(Ok(_)) = stream.next().await {} };
        context.runtime.timeout(CLOSE_MAX, hang_up).await;
    }
}

impl ClientConnection {
    fn parse(&self, text: &Utf8Bytes) -> Option<ClientFrame> {
        if text.is_empty() {
            return None;
        }
        match parse::parse(text) {
            Parsed::Frame(frame) => Some(frame),
            Parsed::Malformed { kind, id, why } => {
                self.context.counters.malformed_frames.add(1);
                match kind.as_deref() {
                    _ if self.context.legacy.is_some() => {}
                    Some("send") if self.session().is_some() => {
                        self.tell(&BrokerFrame::Ack(Box::new(malformed_ack(id, &why))));
                    }
                    Some("hello" | "session_hello") if self.session().is_none() => {
                        let rejection = HelloRejection::because("malformed");
                        self.refuse(&HelloRejection {
                            message: format!("hello: {why}"),
                            ..rejection
                        });
                    }
                    // Dropped, as on the legacy network.
                    _ => {}
                }
                None
            }
        }
    }

    async fn handle(&self, frame: ClientFrame, text: &str) -> FrameOutcome {
        let Some(id) = self.session() else {
            let authenticated = match frame {
                ClientFrame::Hello(hello) => hello::member(&self.context, *hello).await,
                ClientFrame::SessionHello(hello) => hello::session(&self.context, *hello).await,
                _ => {
                    self.error("no_hello", "say hello first", None);
                    return FrameOutcome::Done;
                }
            };
            let done = match authenticated {
                Ok(authenticated) => self.admit(authenticated).await,
                Err(rejection) => Err(rejection),
            };
            if let Err(rejection) = done {
                self.refuse(&rejection);
                // Before the writer is done: a client that does not read must not keep the place.
                self.disconnect().await;
                return FrameOutcome::Refused;
            }
            return FrameOutcome::Done;
        };
        match frame {
            ClientFrame::Send(frame) => {
                let Some(sender) = self.context.hub.message_sender(id) else {
                    return FrameOutcome::Refused;
                };
                let Some(legacy) = &self.context.legacy else {
                    return FrameOutcome::Send(sender, frame);
                };
                legacy.send(id, sender, &self.outbound, *frame).await;
                FrameOutcome::Done
            }
            ClientFrame::ClientAck(ack) => {
                match &self.context.legacy {
                    Some(legacy) => legacy.acknowledge(id, &ack),
                    None => self.acknowledge(id, &ack).await,
                }
                FrameOutcome::Done
            }
            ClientFrame::SessionHello(hello) => self.repeat_session_hello(id, *hello).await,
            ClientFrame::Hello(_) => {
                self.outbound.send(Outgoing::Close(1000, "session_replaced"));
                FrameOutcome::Refused
            }
            other => {
                requests::handle(self, id, other, text).await;
                FrameOutcome::Done
            }
        }
    }

    async fn acknowledge(&self, id: ConnectionId, ack: &ClientAck) {
        self.context.counters.client_acks.add(1);
        if let Some(message_id) = self.context.hub.acknowledge(id, ack)
            && let Some(identity) = self.context.hub.identity(id)
        {
            match self.context.ledger.acknowledge_by_id(identity.member, &message_id).await {
                Ok(told) => self.context.hub.notify_senders(told.into_iter().collect()),
                // The message comes again, and then its lease waits for the ledger.
                Err(error) => self.context.ledger.failed(&error),
            }
        }
    }

    fn open(&self) {
        if let Some(id) = self.session() {
            self.context.hub.open(id);
        }
    }

    fn refuse(&self, rejection: &HelloRejection) {
        self.context.counters.hello_refusals.add(1);
        if let Some(error) = &rejection.cause {
            self.context.ledger.failed(error);
        }
        let is_skewed = rejection.code == "timestamp_skew";
        let frame = ErrorFrame {
            code: rejection.code.to_owned(),
            message: rejection.message.clone(),
            broker_time: is_skewed.then(|| self.runtime().now().0),
            request_id: None,
        };
        self.tell(&BrokerFrame::Error(frame));
        self.outbound.send(Outgoing::Close(rejection.close.0, rejection.close.1));
    }

    fn error(&self, code: &str, message: &str, request_id: Option<String>) {
        let (code, message) = (code.to_owned(), message.to_owned());
        let frame = ErrorFrame { code, message, broker_time: None, request_id };
        self.tell(&BrokerFrame::Error(frame));
    }

    fn tell(&self, frame: &BrokerFrame) {
        self.outbound.send(Outgoing::Frame(to_text(frame).into()));
    }

    fn runtime(&self) -> &Runtime {
        &self.context.runtime
    }

    fn session(&self) -> Option<ConnectionId> {
        Some(self.session.load(Ordering::Relaxed)).filter(|id| *id > 0)
    }

    fn mark_received(&self) {
        self.last_received_ms.store(as_ms(self.runtime().monotonic()), Ordering::Relaxed);
    }

    fn last_received_at(&self) -> Duration {
        Duration::from_millis(self.last_received_ms.load(Ordering::Relaxed))
    }
}

fn as_ms(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

enum FrameOutcome {
    Done,
    Send(MessageSender, Box<claudemesh_base::wire::SendFrame>),
    Refused,
}

#[cfg(test)]
mod tests;
