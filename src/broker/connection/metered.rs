//! A socket that counts what it has taken, so that a slow reader can be told from one that is gone.

use claudemesh_base::http::Socket;
use claudemesh_base::runtime::Runtime;
use futures_lite::{AsyncRead, AsyncWrite};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How many bytes a socket has taken. A clone counts the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Completes once nothing was taken for `limit`.
    pub(super) async fn stalls(&self, runtime: &Runtime, limit: Duration) {
        loop {
            let before = self.0.load(Ordering::Relaxed);
            runtime.sleep(limit).await;
            if self.0.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// A socket and its meter.
#[derive(Debug)]
pub(super) struct Metered {
    socket: Socket,
    meter: Meter,
}

impl Metered {
    pub(super) fn new(socket: Socket) -> (Self, Meter) {
        let meter = Meter::default();
        (Self { socket, meter: meter.clone() }, meter)
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, meter } = self.get_mut();
        let taken = ready!(Pin::new(socket).poll_write(cx, bytes))?;
        meter.0.fetch_add(taken as u64, Ordering::Relaxed);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
    use smol::Executor;
    use smol::net::unix::UnixStream;

    #[test]
    fn a_reader_is_slow_while_it_takes_anything_and_stalled_when_it_takes_nothing() {
        const LIMIT: Duration = Duration::from_millis(300);
        let runtime = Runtime::real(Arc::new(Executor::new()));
        smol::block_on(async {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            let (mut socket, meter) = Metered::new(Socket::Unix(ours));
            let mut left = 8;
            let reading = async {
                let mut buffer = vec![0; 64 * 1024];
                while left > 0 {
                    runtime.sleep(LIMIT / 4).await;
                    // Enough for the system to let the writer go on.
                    for _ in 0..8 {
                        theirs.read_exact(&mut buffer).await.expect("reads");
                    }
                    left -= 1;
                }
                future::pending::<()>().await;
            };
            let writing = async {
                loop {
                    socket.write_all(&[7; 4096]).await.expect("writes");
                }
            };
            let began = runtime.monotonic();
            future::or(meter.stalls(&runtime, LIMIT), future::or(writing, reading)).await;
            assert!(runtime.monotonic() - began > LIMIT * 2, "it was let read");
            assert_eq!(left, 0);
        });
    }
}
