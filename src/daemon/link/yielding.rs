//! A reader that does not keep its task to itself.
//!
//! Whoever reads a message reads until it is whole, and the other side decides when that is: one of
//! empty fragments never is. Here others have their turn in the middle of it.

use futures_lite::{AsyncRead, AsyncWrite};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

/// How many reads in a row may find something before somebody else's turn. One more than it takes to
/// empty a socket that holds little, so that ordinary traffic costs no turn.
const READS_MAX: u32 = 2;

/// `T`, read in turns.
pub(super) struct YieldingReader<T> {
    io: T,
    reads: u32,
}

impl<T> YieldingReader<T> {
    pub(super) const fn new(io: T) -> Self {
        Self { io, reads: 0 }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for YieldingReader<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.reads == READS_MAX {
            self.reads = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        self.reads = if read.is_ready() { self.reads + 1 } else { 0 };
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for YieldingReader<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_close(cx)
    }
}
