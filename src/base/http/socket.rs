//! One type for Unix and TCP sockets, listening and connected, and the way to take a socket over
//! after an upgrade.

use super::progress::TrackedSocket;
use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite};
use hyper::upgrade::OnUpgrade;
use smol::net::unix::{UnixListener, UnixStream};
use smol::net::{TcpListener, TcpStream};
use smol_hyper::rt::FuturesIo;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// A Unix socket; peers of other users are turned away.
    Unix(UnixListener),
    /// A TCP port.
    Tcp(TcpListener),
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Unix(listener) => Ok(Socket::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
        }
    }
}

/// A connected stream.
#[derive(Debug)]
pub enum Socket {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

impl Socket {
    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect_unix(path: &Path) -> io::Result<Self> {
        Ok(Self::Unix(UnixStream::connect(path).await?))
    }

    /// Connects to a TCP port; `host` is a name or an address.
    ///
    /// # Errors
    /// What the operating system or its resolver says.
    pub async fn connect_tcp(host: &str, port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_close(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}

/// The socket behind an upgrade that was answered with 101, and the bytes the client sent right
/// behind its request: whoever speaks next must read those first.
///
/// Get `on_upgrade` from `hyper::upgrade::on(&mut request)` inside the handler, and await this in
/// a task of its own: it completes only after the handler's answer is written.
///
/// # Errors
/// When the connection ended before the upgrade.
pub async fn upgraded(on_upgrade: OnUpgrade) -> io::Result<(Socket, Bytes)> {
    let upgraded = on_upgrade.await.map_err(io::Error::other)?;
    let parts = upgraded
        .downcast::<FuturesIo<TrackedSocket>>()
        .map_err(|_| io::Error::other("the upgraded connection is not one of this server's"))?;
    Ok((parts.io.into_inner().into_socket(), parts.read_buf))
}
