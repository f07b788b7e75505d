//! Whether a byte of a request was written, known for certain.

use super::super::Socket;
use super::ClientError;
use futures_lite::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Counts what was written, and stops all writing before it says "not written": a request given up
/// as untaken must not slip out afterwards.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<GateState>>);

#[derive(Default)]
pub(super) struct GateState {
    written_bytes: u64,
    is_closed: bool,
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn written_bytes(&self) -> u64 {
        self.state().written_bytes
    }

    pub(super) fn close(&self, written_before: u64, why: String) -> ClientError {
        let mut state = self.state();
        state.is_closed = true;
        if state.written_bytes > written_before {
            ClientError::Unanswered(why)
        } else {
            ClientError::NotWritten(why)
        }
    }
}

/// A socket behind a [`Gate`].
pub(super) struct Gated {
    pub(super) socket: Socket,
    pub(super) gate: Gate,
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, gate } = self.get_mut();
        // Held over the write, which never blocks: closing and writing cannot cross.
        let mut state = gate.state();
        if state.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let poll = Pin::new(socket).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = poll {
            state.written_bytes += written as u64;
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}
