//! The reader of a connection: one frame after the other, while the writer keeps up.

use super::hello::HelloRejection;
use super::metered::Metered;
use super::{ClientConnection, FrameOutcome};
use crate::hub::Outgoing;
use async_tungstenite::WebSocketReceiver;
use async_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use futures_lite::future::or;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;

/// From the upgrade to a hello.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// How long a client that does not negotiate waits for its queue.
const NEGOTIATION_GRACE: Duration = Duration::from_millis(250);
/// Sends of one connection that may wait for their commit.
const SENDS_IN_FLIGHT_MAX: usize = 256;
/// Frames read before other connections get their turn.
const READ_AT_ONCE_MAX: u32 = 16;

type Stream = WebSocketReceiver<Metered>;

enum ReaderEvent {
    Frame(Option<tungstenite::Result<Message>>),
    Sent,
    Late,
}

enum Incoming {
    /// Empty for frames that carry none.
    Text(Utf8Bytes),
    TooLarge,
    /// The connection is over.
    Nothing,
}

impl ClientConnection {
    /// Reads until the connection ends.
    pub(super) async fn read(&self, stream: &mut Stream) {
        let mut sends = FuturesUnordered::new();
        let mut negotiating = None;
        let mut read: u32 = 0;
        loop {
            read = read.wrapping_add(1);
            if read.is_multiple_of(READ_AT_ONCE_MAX) {
                // A client that always has more to say must not keep the executor to itself.
                smol::future::yield_now().await;
            }
            while !self.outbound.has_room() {
                let drained = async {
                    let _ = self.drained.recv().await;
                };
                // What is being sent goes on: it may hold what others wait for.
                or(drained, next_sent(&mut sends)).await;
            }
            let limit = self.read_limit(negotiating);
            let text = match self.next_event(stream, &mut sends, limit).await {
                ReaderEvent::Sent => continue,
                ReaderEvent::Late if self.session().is_none() => {
                    self.refuse(&HelloRejection::because("hello_timeout"));
                    drop(sends);
                    return std::future::pending().await;
                }
                ReaderEvent::Late => {
                    negotiating = None;
                    self.open();
                    continue;
                }
                ReaderEvent::Frame(frame) => match self.incoming(frame) {
                    Incoming::Text(text) => text,
                    Incoming::TooLarge => {
                        self.outbound.send(Outgoing::Close(1009, "frame too large"));
                        drop(sends);
                        return std::future::pending().await;
                    }
                    Incoming::Nothing => return,
                },
            };
            let Some(frame) = self.parse(&text) else { continue };
            let is_new = self.session().is_none();
            match self.handle(frame, &text).await {
                FrameOutcome::Done => {}
                FrameOutcome::Send(sender, frame) => {
                    let (context, outbound) = (Arc::clone(&self.context), self.outbound.clone());
                    sends.push(async move { context.intake.send(sender, outbound, *frame).await });
                }
                // The writer closes; nothing more is read.
                FrameOutcome::Refused => {
                    drop(sends);
                    return std::future::pending().await;
                }
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

    /// Waits for a frame, for the end of one of the sends in flight, or for the limit.
    async fn next_event<F: Future<Output = ()>>(
        &self,
        stream: &mut Stream,
        sends: &mut FuturesUnordered<F>,
        limit: Option<Duration>,
    ) -> ReaderEvent {
        let is_full = sends.len() >= SENDS_IN_FLIGHT_MAX;
        let frame = async {
            match is_full {
                true => std::future::pending().await,
                false => ReaderEvent::Frame(stream.next().await),
            }
        };
        let sent = async {
            next_sent(sends).await;
            ReaderEvent::Sent
        };
        let late = async {
            match limit {
                None => std::future::pending().await,
                Some(at) => {
                    self.runtime().sleep_until(at).await;
                    ReaderEvent::Late
                }
            }
        };
        or(frame, or(sent, late)).await
    }

    /// The next moment the reader must not sleep through.
    fn read_limit(&self, negotiating: Option<Duration>) -> Option<Duration> {
        match self.session() {
            // The legacy network waits for a hello for ever.
            None if self.context.legacy.is_some() => None,
            None => Some(self.last_received_at() + HELLO_MAX),
            Some(_) => negotiating,
        }
    }

    fn incoming(&self, frame: Option<tungstenite::Result<Message>>) -> Incoming {
        let message = match frame {
            Some(Ok(message)) => message,
            Some(Err(tungstenite::Error::Capacity(_))) => return Incoming::TooLarge,
            Some(Err(_)) | None => return Incoming::Nothing,
        };
        // Before a hello, only a hello buys time.
        if self.session().is_some() {
            self.mark_received();
        }
        Incoming::Text(match message {
            Message::Text(text) => text,
            Message::Binary(bytes) => Utf8Bytes::try_from(bytes).unwrap_or_default(),
            // The library answers a close; the stream ends once that is done.
            _ => Utf8Bytes::default(),
        })
    }
}

/// Completes when one of the sends in flight has; never while there is none.
async fn next_sent<F: Future<Output = ()>>(sends: &mut FuturesUnordered<F>) {
    if sends.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}
