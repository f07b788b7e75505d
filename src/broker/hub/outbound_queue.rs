//! What waits for one connection's reader: bounded in frames and in bytes (§17.1).

use async_tungstenite::tungstenite::Utf8Bytes;
use claudemesh_base::runtime::{Runtime, Shutdown, Trigger};
use futures_lite::future::or;
use smol::channel::{self, Receiver, Sender};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Frames that may wait for one connection's reader.
pub(crate) const OUTGOING_MAX: usize = 2048;
/// Bytes that may wait for it. Far above the pause, so that only a reader that everybody else fills
/// up is let go for them.
const OUTGOING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// While this much waits for a client, nothing more is read from it and no messages are fetched for it:
/// one answer (3 MiB at the most) and one read of the queue may come on top.
pub(crate) const OUTGOING_PAUSE_BYTES: usize = 2 * 1024 * 1024;
/// How long a client that was sent away may take to read what waits for it, and the close. One that
/// takes a few bytes now and then would keep its socket for ever.
const CLOSE_WRITE_MAX: Duration = Duration::from_secs(60);
/// What the smallest frame counts as: 512 of them make a pause.
const FRAME_BYTES_MIN: usize = OUTGOING_PAUSE_BYTES / 512;

/// What a connection's writer is given.
#[derive(Debug, Clone)]
pub(crate) enum Outgoing {
    Frame(Utf8Bytes),
    /// The last thing it writes.
    Close(u16, &'static str),
}

impl Outgoing {
    /// What it counts as while it waits, in bytes.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Frame(text) => text.len().max(FRAME_BYTES_MIN),
            Self::Close(..) => 0,
        }
    }
}

/// The ends of a connection that the hub holds.
#[derive(Clone)]
pub(crate) struct OutboundQueue {
    out: Sender<Outgoing>,
    /// The weight of what was queued and not written yet.
    unwritten_bytes: Arc<AtomicUsize>,
    /// Wakes the connection's pump.
    wake: Sender<()>,
    /// Fires when the connection must end without ceremony.
    kill: Arc<Trigger>,
    /// Fires when its close is queued.
    close_queued: Arc<Trigger>,
}

/// The ends of a connection that its tasks hold.
pub(crate) struct ConnectionEnds {
    pub(crate) outgoing: Receiver<Outgoing>,
    pub(crate) woken: Receiver<()>,
    pub(crate) kill_switch: KillSwitch,
}

/// The end of a connection that its client has no say in.
pub(crate) struct KillSwitch {
    pub(super) kill: Shutdown,
    close_queued: Shutdown,
}

impl KillSwitch {
    /// Completes when the connection is over, whatever its client still reads.
    pub(crate) async fn fired(&self, runtime: &Runtime) {
        let close_written = async {
            self.close_queued.wait().await;
            runtime.sleep(CLOSE_WRITE_MAX).await;
        };
        or(self.kill.wait(), close_written).await;
    }
}

impl OutboundQueue {
    pub(crate) fn new() -> (Self, ConnectionEnds) {
        let (out, outgoing) = channel::bounded(OUTGOING_MAX);
        let (wake, woken) = channel::bounded(1);
        let [(kill, kill_fired), (close_queued, close_was_queued)] =
            [Shutdown::new(), Shutdown::new()];
        let outbound = Self {
            out,
            unwritten_bytes: Arc::default(),
            wake,
            kill: Arc::new(kill),
            close_queued: Arc::new(close_queued),
        };
        let kill_switch = KillSwitch { kill: kill_fired, close_queued: close_was_queued };
        (outbound, ConnectionEnds { outgoing, woken, kill_switch })
    }

    /// Queues a frame. A connection whose queue is full does not read: it goes, and what was
    /// pushed to it waits in the ledger.
    pub(crate) fn send(&self, outgoing: Outgoing) -> bool {
        if let Outgoing::Close(..) = outgoing {
            self.close_queued.fire();
        }
        let weight = outgoing.weight();
        let unwritten = self.unwritten_bytes.fetch_add(weight, Ordering::Relaxed);
        let fits = weight == 0 || unwritten < OUTGOING_BYTES_MAX;
        let is_sent = fits && self.out.try_send(outgoing).is_ok();
        if !is_sent {
            self.kill.fire();
        }
        is_sent
    }

    /// Whether the reader keeps up, so that more may be asked of it.
    pub(crate) fn has_room(&self) -> bool {
        self.unwritten_bytes.load(Ordering::Relaxed) < OUTGOING_PAUSE_BYTES
    }

    /// Whether everything that was queued is written.
    pub(crate) fn is_idle(&self) -> bool {
        self.unwritten_bytes.load(Ordering::Relaxed) == 0
    }

    /// So much of what was queued is written. Whether there is room again where there was none: the
    /// pump is told, and the reader must be.
    pub(crate) fn on_written(&self, bytes: usize) -> bool {
        let unwritten = self.unwritten_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let pause = OUTGOING_PAUSE_BYTES;
        let has_room_again = unwritten >= pause && unwritten - bytes < pause;
        if has_room_again {
            self.wake();
        }
        has_room_again
    }

    pub(crate) fn wake(&self) {
        // A full channel means the pump is about to look anyway.
        let _ = self.wake.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudemesh_base::runtime::testing::fast;
    use futures_lite::future::poll_once;

    #[test]
    fn who_is_sent_away_has_a_while_to_read_it_and_no_longer() {
        smol::block_on(async {
            let runtime = fast(Runtime::real(Arc::default()), 200);
            let (outbound, ConnectionEnds { outgoing, kill_switch, .. }) = OutboundQueue::new();
            assert!(outbound.send(Outgoing::Frame("hola".into())));
            assert!(poll_once(kill_switch.fired(&runtime)).await.is_none(), "nobody was sent away");
            assert!(outbound.send(Outgoing::Close(1000, "session_replaced")));
            let began = runtime.monotonic();
            assert!(
                poll_once(kill_switch.fired(&runtime)).await.is_none(),
                "there is time to read it"
            );
            kill_switch.fired(&runtime).await;
            assert!(runtime.monotonic() - began >= CLOSE_WRITE_MAX);
            assert_eq!(outgoing.len(), 2, "it was not read at all");
        });
    }
}
