//! What a connection is waiting for, and until when.
//!
//! The socket, the service and the bodies of one connection tell its [`Progress`] what they do; the
//! task that drives the connection asks it for the next deadline. No timer is touched per request.

use super::{Limits, Socket};
use crate::runtime::Runtime;
use futures_lite::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// Why a connection's time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timeout {
    /// Part of a request came, and then not the rest of its head.
    Head,
    /// Nothing came.
    Idle,
    /// Nobody reads the answer.
    Write,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Connected; not one byte yet.
    Fresh { since: Duration },
    /// The first bytes of a request came.
    Head { since: Duration },
    /// A handler or its answer is at work; their own bounds apply.
    Answering,
    /// The answer has been handed over. Bytes of a next request that came along with the last
    /// one are with the codec, unseen here: until more come, they count as idle.
    Idle { since: Duration },
}

struct State {
    phase: Phase,
    write_blocked_since: Option<Duration>,
    peer_ended: bool,
}

/// The shared record of one connection's progress.
pub(super) struct Progress {
    runtime: Runtime,
    state: Mutex<State>,
}

impl Progress {
    pub(super) fn new(runtime: Runtime) -> Self {
        let phase = Phase::Fresh { since: runtime.monotonic() };
        let state = State { phase, write_blocked_since: None, peer_ended: false };
        Self { runtime, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's head is complete; returns when its first byte came, as far as we know.
    pub(super) fn head_complete(&self) -> Duration {
        let mut state = self.state();
        let since = match state.phase {
            Phase::Head { since } => since,
            _ => self.runtime.monotonic(),
        };
        state.phase = Phase::Answering;
        since
    }

    /// The answer is handed to the codec in full.
    pub(super) fn answered(&self) {
        self.state().phase = Phase::Idle { since: self.runtime.monotonic() };
    }

    /// Whether bytes of the peer may still be on their way when the codec has ended.
    pub(super) fn may_receive_more(&self) -> bool {
        let state = self.state();
        !state.peer_ended && !matches!(state.phase, Phase::Fresh { .. })
    }

    /// When the connection must end unless something happens first, and why.
    pub(super) fn deadline(&self, limits: &Limits) -> Option<(Duration, Timeout)> {
        let state = self.state();
        if let Some(since) = state.write_blocked_since {
            // An answer is still under way, so whatever else is late has to wait for it.
            return Some((since + limits.write_stall, Timeout::Write));
        }
        match state.phase {
            Phase::Fresh { since } => Some((since + limits.head_arrival, Timeout::Idle)),
            Phase::Head { since } => Some((since + limits.head_arrival, Timeout::Head)),
            Phase::Idle { since } => Some((since + limits.idle, Timeout::Idle)),
            Phase::Answering => None,
        }
    }

    fn on_read(&self, bytes: usize) {
        let mut state = self.state();
        if bytes == 0 {
            state.peer_ended = true;
        } else if matches!(state.phase, Phase::Fresh { .. } | Phase::Idle { .. }) {
            state.phase = Phase::Head { since: self.runtime.monotonic() };
        }
    }

    fn on_write(&self, blocked: bool) {
        let mut state = self.state();
        if !blocked {
            state.write_blocked_since = None;
        } else if state.write_blocked_since.is_none() {
            state.write_blocked_since = Some(self.runtime.monotonic());
        }
    }
}

/// A socket that reports to a [`Progress`].
pub(super) struct TrackedSocket {
    socket: Socket,
    progress: Arc<Progress>,
}

impl TrackedSocket {
    pub(super) fn new(socket: Socket, progress: Arc<Progress>) -> Self {
        Self { socket, progress }
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }
}

impl AsyncRead for TrackedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if let Poll::Ready(Ok(bytes)) = poll {
            self.progress.on_read(bytes);
        }
        poll
    }
}

impl AsyncWrite for TrackedSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.progress.on_write(poll.is_pending());
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}
