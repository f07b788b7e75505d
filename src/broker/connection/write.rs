//! The writer of a connection: what is queued, a ping now and then, and the verdict that nobody is
//! there any more (`specs/wire.md`).

use super::ClientConnection;
use super::metered::{Meter, Metered};
use crate::hub::Outgoing;
use async_tungstenite::WebSocketSender;
use async_tungstenite::tungstenite::protocol::frame::{CloseFrame, coding::CloseCode};
use async_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use bytes::Bytes;
use futures_lite::future::or;
use futures_util::SinkExt;
use smol::channel::{self, Receiver};
use std::time::Duration;

/// How often a ping goes out.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Silence after which a connection is dead.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// How long a write may go on without one byte being taken.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// Frames written with one flush: bounds how long a ping may wait behind them.
const WRITTEN_AT_ONCE_MAX: usize = 64;

type Sink = WebSocketSender<Metered>;

enum WriteOutcome {
    /// So much of what waited, in bytes.
    Queued(usize),
    Closed,
}

impl ClientConnection {
    /// Writes what is queued until the connection ends. `true` when we closed it ourselves.
    pub(super) async fn write(
        &self,
        mut sink: Sink,
        meter: &Meter,
        outgoing: Receiver<Outgoing>,
        drains: channel::Sender<()>,
    ) -> bool {
        let mut ping_at = self.runtime().monotonic() + PING_EVERY;
        loop {
            let dead_at = self.last_received_at() + SILENCE_MAX;
            let timer = async {
                self.runtime().sleep_until(ping_at.min(dead_at)).await;
                None
            };
            let next = or(async { outgoing.recv().await.ok() }, timer).await;
            if next.is_none() {
                let now = self.runtime().monotonic();
                if now >= self.last_received_at() + SILENCE_MAX {
                    return false;
                }
                if now < ping_at {
                    continue;
                }
                ping_at = now + PING_EVERY;
            }
            let writing = async {
                match next {
                    Some(first) => write_all(&mut sink, first, &outgoing).await,
                    None => ping(&mut sink).await,
                }
            };
            let stalled = async {
                // A slow reader is no dead one: what waits for it is bounded.
                meter.stalls(self.runtime(), WRITE_STALL_MAX).await;
                None
            };
            match or(async { writing.await.ok() }, stalled).await {
                Some(WriteOutcome::Queued(bytes)) if self.outbound.on_written(bytes) => {
                    // Whoever was not listened to cannot have been silent.
                    self.mark_received();
                    let _ = drains.try_send(());
                }
                Some(WriteOutcome::Queued(_)) => {}
                Some(WriteOutcome::Closed) => return true,
                None => return false,
            }
        }
    }
}

async fn ping(sink: &mut Sink) -> tungstenite::Result<WriteOutcome> {
    sink.send(Message::Ping(Bytes::new())).await?;
    Ok(WriteOutcome::Queued(0))
}

/// Writes a frame and what waits behind it, with one flush.
async fn write_all(
    sink: &mut Sink,
    first: Outgoing,
    outgoing: &Receiver<Outgoing>,
) -> tungstenite::Result<WriteOutcome> {
    let mut next = Some(first);
    let (mut written, mut bytes) = (0, 0);
    while let Some(frame) = next {
        bytes += frame.weight();
        match frame {
            Outgoing::Frame(text) => sink.feed(Message::Text(text)).await?,
            Outgoing::Close(code, reason) => {
                let reason = Utf8Bytes::from_static(reason);
                let frame = CloseFrame { code: CloseCode::from(code), reason };
                sink.send(Message::Close(Some(frame))).await?;
                return Ok(WriteOutcome::Closed);
            }
        }
        written += 1;
        next = if written < WRITTEN_AT_ONCE_MAX { outgoing.try_recv().ok() } else { None };
    }
    sink.flush().await?;
    Ok(WriteOutcome::Queued(bytes))
}
