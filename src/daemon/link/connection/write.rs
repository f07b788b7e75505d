//! What a connection says: its own frames first, then acknowledgements, then sends.

use super::Connection;
use claudemesh_base::wire::{ClientFrame, to_text};
use claudemesh_fsm::link::Closed;
use futures_lite::Stream;
use std::task::{Context, Poll};
use std::time::Duration;

impl Connection {
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, now: Duration) -> Result<(), Closed> {
        while let Poll::Ready(room) = self.socket.poll_room(cx) {
            room?;
            if let Some(text) = self.queue.pop_front() {
                self.socket.feed(text)?;
            } else if self.ping {
                self.ping = false;
                self.socket.feed_ping()?;
            } else if let Poll::Ready(text) = self.poll_frame(cx, now) {
                self.socket.feed(text)?;
            } else {
                break;
            }
        }
        match self.socket.poll_flush(cx) {
            Poll::Ready(flushed) => {
                self.stalled_since = None;
                flushed
            }
            Poll::Pending => {
                self.stalled_since.get_or_insert(now);
                Ok(())
            }
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>, now: Duration) -> Poll<String> {
        if self.may_ack
            && let Poll::Ready(Some(ack)) = self.client_acks.1.as_mut().poll_next(cx)
        {
            self.delivered = true;
            return Poll::Ready(to_text(&ClientFrame::ClientAck(ack)));
        }
        if !self.may_send {
            return Poll::Pending;
        }
        match self.pending_sends.poll_frame(cx, now) {
            Poll::Pending => self.pending_sends.receipt_queries.poll_frame(cx),
            frame => frame,
        }
    }

    /// What was committed is acknowledged before we go, as far as it costs no waiting.
    pub(super) fn flush_client_acks(&mut self) {
        while self.may_ack
            && let Ok(ack) = self.client_acks.1.try_recv()
        {
            if self.socket.feed(to_text(&ClientFrame::ClientAck(ack))).is_err() {
                return;
            }
        }
    }
}
