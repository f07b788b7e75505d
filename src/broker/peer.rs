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

mod features;
mod hello;
mod metered;
mod parse;
mod pump;
mod roster;
mod verbs;
mod welcome;
mod write;

pub(crate) use hello::{BANNED, clean};
pub(crate) use pump::store_last_acks;

use super::Broker;
use super::ledger::Sender as Author;
use super::route::{ConnectionId, Ends, Lines, Outgoing};
use super::send::{send, system_event, unreadable};
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use async_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use async_tungstenite::{WebSocketReceiver, WebSocketStream};
use bytes::Bytes;
use claudemesh_base::http::Socket;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::{BrokerFrame, ClientAck, ClientFrame, ErrorFrame, to_text};
use futures_lite::future::or;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hello::Rejection;
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
/// From the upgrade to a hello.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// How long a client that does not negotiate waits for its queue.
const NEGOTIATION_GRACE: Duration = Duration::from_millis(250);
/// How long the other side gets to answer a close.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Sends of one connection that may wait for their commit.
const SENDS_IN_FLIGHT_MAX: usize = 256;
/// Frames read before other connections get their turn.
const READ_AT_ONCE_MAX: u32 = 16;

type Stream = WebSocketReceiver<Metered>;

/// A connection from upgrade to end.
struct Peer {
    broker: Arc<Broker>,
    lines: Lines,
    /// When the client was last heard, on the monotonic clock.
    heard_at_ms: AtomicU64,
    /// Zero before the hello.
    session: AtomicU64,
    /// Tells the pump that the session is there.
    greeted: channel::Sender<ConnectionId>,
    /// Rung by the writer when there is room again.
    drained: Receiver<()>,
}

/// Serves one upgraded connection until it ends.
pub(crate) async fn serve(broker: Arc<Broker>, socket: Socket, leftover: Bytes) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(FRAME_HARD_BYTES_MAX))
        .max_frame_size(Some(FRAME_HARD_BYTES_MAX))
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX);
    let (socket, meter) = Metered::new(socket);
    let web_socket =
        WebSocketStream::from_partially_read(socket, leftover.to_vec(), Role::Server, Some(config));
    let (sink, mut stream) = web_socket.await.split();
    let (lines, Ends { outgoing, woken, cutoff }) = Lines::new();
    let (greeted, session) = channel::bounded(1);
    let (drains, drained) = channel::bounded(1);
    let peer = Peer {
        heard_at_ms: AtomicU64::new(as_ms(broker.runtime.monotonic())),
        broker: Arc::clone(&broker),
        lines,
        session: AtomicU64::new(0),
        greeted,
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
            cutoff.reached(&broker.runtime).await;
            false
        };
        or(writer, or(reader, or(pump, ended))).await
    };
    peer.depart().await;
    if was_closed_by_us {
        // Reading on until the client hangs up, so that the close is not lost to a reset.
        let hang_up = async { while let Some(Ok(_)) = stream.next().await {} };
        broker.runtime.timeout(CLOSE_MAX, hang_up).await;
    }
}

impl Peer {
    async fn read(&self, stream: &mut Stream) {
        let mut sends = FuturesUnordered::new();
        let mut negotiating = None;
        let mut read: u32 = 0;
        loop {
            read = read.wrapping_add(1);
            if read.is_multiple_of(READ_AT_ONCE_MAX) {
                // A client that always has more to say must not keep the executor to itself.
                smol::future::yield_now().await;
            }
            while !self.lines.has_room() {
                let _ = self.drained.recv().await;
            }
            let limit = self.read_limit(&negotiating);
            let next = async {
                if sends.len() >= SENDS_IN_FLIGHT_MAX {
                    sends.next().await;
                    return Event::Sent;
                }
                let frame = async { Event::Frame(stream.next().await) };
                if sends.is_empty() {
                    return frame.await;
                }
                or(frame, async {
                    sends.next().await;
                    Event::Sent
                })
                .await
            };
            let event = match limit {
                None => next.await,
                Some(at) => {
                    or(next, async {
                        self.runtime().sleep_until(at).await;
                        Event::Late
                    })
                    .await
                }
            };
            match event {
                Event::Sent => {}
                Event::Late if self.session().is_none() => {
                    self.refuse(&Rejection::because("hello_timeout"));
                    return std::future::pending().await;
                }
                Event::Late => {
                    negotiating = None;
                    self.open();
                }
                Event::Frame(frame) => {
                    let text = match self.heard(frame) {
                        Heard::Text(text) => text,
                        Heard::TooLarge => {
                            self.lines.send(Outgoing::Close(1009, "frame too large"));
                            return std::future::pending().await;
                        }
                        Heard::Nothing => return,
                    };
                    let Some(frame) = self.parse(&text) else { continue };
                    let is_new = self.session().is_none();
                    match self.handle(frame, &text).await {
                        Handled::Done => {}
                        Handled::Send(author, frame) => {
                            let broker = Arc::clone(&self.broker);
                            let lines = self.lines.clone();
                            sends.push(async move { send(&broker, author, lines, *frame).await });
                        }
                        // The writer closes; nothing more is read.
                        Handled::Refused => return std::future::pending().await,
                    }
                    match (is_new, self.session()) {
                        (true, Some(_)) => {
                            negotiating = Some(self.runtime().monotonic() + NEGOTIATION_GRACE);
                        }
                        // Whatever a client says next, it is done with its greeting.
                        (false, Some(_)) if negotiating.take().is_some() => self.open(),
                        _ => {}
                    }
                }
            }
        }
    }

    /// The next moment the reader must not sleep through.
    fn read_limit(&self, negotiating: &Option<Duration>) -> Option<Duration> {
        match self.session() {
            // Today's network waits for a hello for ever.
            None if self.broker.faithful.is_some() => None,
            None => Some(self.heard_at() + HELLO_MAX),
            Some(_) => *negotiating,
        }
    }

    fn heard(&self, frame: Option<tungstenite::Result<Message>>) -> Heard {
        let message = match frame {
            Some(Ok(message)) => message,
            Some(Err(tungstenite::Error::Capacity(_))) => return Heard::TooLarge,
            Some(Err(_)) | None => return Heard::Nothing,
        };
        // Before a hello, only a hello buys time.
        if self.session().is_some() {
            self.set_heard();
        }
        Heard::Text(match message {
            Message::Text(text) => text,
            Message::Binary(bytes) => Utf8Bytes::try_from(bytes).unwrap_or_default(),
            // The library answers a close; the stream ends once that is done.
            _ => Utf8Bytes::default(),
        })
    }

    fn parse(&self, text: &Utf8Bytes) -> Option<ClientFrame> {
        if text.is_empty() {
            return None;
        }
        match parse::parse(text) {
            Parsed::Frame(frame) => Some(frame),
            Parsed::Malformed { kind, id, why } => {
                self.broker.counters.malformed_frames.add(1);
                match kind.as_deref() {
                    _ if self.broker.faithful.is_some() => {}
                    Some("send") if self.session().is_some() => {
                        self.tell(&BrokerFrame::Ack(Box::new(unreadable(id, &why))));
                    }
                    Some("hello" | "session_hello") if self.session().is_none() => {
                        let rejection = Rejection::because("malformed");
                        self.refuse(&Rejection { message: format!("hello: {why}"), ..rejection });
                    }
                    // Dropped, as on today's network.
                    _ => {}
                }
                None
            }
        }
    }

    async fn handle(&self, frame: ClientFrame, text: &str) -> Handled {
        let Some(id) = self.session() else {
            let greeted = match frame {
                ClientFrame::Hello(hello) => hello::member(&self.broker, *hello).await,
                ClientFrame::SessionHello(hello) => hello::session(&self.broker, *hello).await,
                _ => {
                    self.error("no_hello", "say hello first", None);
                    return Handled::Done;
                }
            };
            let done = match greeted {
                Ok(greeted) => self.welcome(greeted).await,
                Err(rejection) => Err(rejection),
            };
            if let Err(rejection) = done {
                self.refuse(&rejection);
                // Before the writer is done: a client that does not read must not keep the place.
                self.depart().await;
                return Handled::Refused;
            }
            return Handled::Done;
        };
        match frame {
            ClientFrame::Send(frame) => {
                let Some(author) = self.broker.hub.author(id) else { return Handled::Refused };
                let Some(faithful) = &self.broker.faithful else {
                    return Handled::Send(author, frame);
                };
                faithful.send(&self.broker, id, author, &self.lines, *frame).await;
                Handled::Done
            }
            ClientFrame::ClientAck(ack) => {
                match &self.broker.faithful {
                    Some(faithful) => faithful.acknowledge(&self.broker, id, &ack),
                    None => self.acknowledge(id, &ack).await,
                }
                Handled::Done
            }
            ClientFrame::SessionHello(hello) => self.greet_again(id, *hello).await,
            ClientFrame::Hello(_) => {
                self.lines.send(Outgoing::Close(1000, "session_replaced"));
                Handled::Refused
            }
            other => {
                verbs::handle(self, id, other, text).await;
                Handled::Done
            }
        }
    }

    async fn acknowledge(&self, id: ConnectionId, ack: &ClientAck) {
        self.broker.counters.client_acks.add(1);
        if let Some(message_id) = self.broker.hub.acknowledge(id, ack)
            && let Some(identity) = self.broker.hub.identity(id)
        {
            match self.broker.ledger.acknowledge_by_id(identity.member, &message_id).await {
                Ok(told) => self.broker.hub.tell_receipts(told.into_iter().collect()),
                // The message comes again, and then its lease waits for the ledger.
                Err(error) => self.broker.ledger_failed(&error),
            }
        }
    }

    fn open(&self) {
        if let Some(id) = self.session() {
            self.broker.hub.open(id);
        }
    }

    fn refuse(&self, rejection: &Rejection) {
        self.broker.counters.hello_refusals.add(1);
        if let Some(error) = &rejection.cause {
            self.broker.ledger_failed(error);
        }
        let is_skewed = rejection.code == "timestamp_skew";
        let frame = ErrorFrame {
            code: rejection.code.to_owned(),
            message: rejection.message.clone(),
            broker_time: is_skewed.then(|| self.runtime().now().0),
            request_id: None,
        };
        self.tell(&BrokerFrame::Error(frame));
        self.lines.send(Outgoing::Close(rejection.close.0, rejection.close.1));
    }

    fn error(&self, code: &str, message: &str, request_id: Option<String>) {
        let (code, message) = (code.to_owned(), message.to_owned());
        let frame = ErrorFrame { code, message, broker_time: None, request_id };
        self.tell(&BrokerFrame::Error(frame));
    }

    fn tell(&self, frame: &BrokerFrame) {
        self.lines.send(Outgoing::Frame(to_text(frame).into()));
    }

    fn runtime(&self) -> &Runtime {
        &self.broker.runtime
    }

    fn session(&self) -> Option<ConnectionId> {
        Some(self.session.load(Ordering::Relaxed)).filter(|id| *id > 0)
    }

    fn set_heard(&self) {
        self.heard_at_ms.store(as_ms(self.runtime().monotonic()), Ordering::Relaxed);
    }

    fn heard_at(&self) -> Duration {
        Duration::from_millis(self.heard_at_ms.load(Ordering::Relaxed))
    }
}

fn as_ms(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

enum Event {
    Frame(Option<tungstenite::Result<Message>>),
    Sent,
    Late,
}

enum Heard {
    /// Empty for frames that carry none.
    Text(Utf8Bytes),
    TooLarge,
    /// The connection is over.
    Nothing,
}

enum Handled {
    Done,
    Send(Author, Box<claudemesh_base::wire::SendFrame>),
    Refused,
}

#[cfg(test)]
mod tests;
