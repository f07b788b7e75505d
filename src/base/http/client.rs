//! A small HTTP/1.1 client over one connected stream, for the CLI, for joining, and for tests.
//!
//! It follows no redirect, keeps no pool and retries nothing: it says how far a request got, and
//! the caller decides (§8).

use super::Socket;
use crate::runtime::Runtime;
mod exchange;
mod gate;

pub use exchange::{ClientError, Request, Response};

use bytes::Bytes;
use futures_lite::Stream;
use gate::{Gate, Gated};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
pub use hyper::{HeaderMap, Method};
use smol::Task;
use smol_hyper::rt::FuturesIo;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The longest answer taken whole; a page of the inbox ends at 8 MiB (§3.4).
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Connects to a Unix socket.
///
/// # Errors
/// [`ClientError::CouldNotConnect`].
pub async fn connect_unix(
    path: &Path,
    runtime: &Runtime,
    timeout: Duration,
) -> Result<Socket, ClientError> {
    within(runtime, timeout, Socket::connect_unix(path)).await
}

/// Connects to a TCP port; `host` is a name or an address, IPv6 without brackets.
///
/// # Errors
/// [`ClientError::CouldNotConnect`].
pub async fn connect_tcp(
    host: &str,
    port: u16,
    runtime: &Runtime,
    timeout: Duration,
) -> Result<Socket, ClientError> {
    within(runtime, timeout, Socket::connect_tcp(host, port)).await
}

async fn within(
    runtime: &Runtime,
    timeout: Duration,
    connecting: impl Future<Output = io::Result<Socket>>,
) -> Result<Socket, ClientError> {
    let timed_out = || Err(io::ErrorKind::TimedOut.into());
    let connected = runtime.timeout(timeout, connecting).await.unwrap_or_else(timed_out);
    connected.map_err(ClientError::CouldNotConnect)
}

/// One request on a fresh connection, closed behind it. `timeout` covers all of it.
///
/// # Errors
/// [`ClientError`], saying how far the request got.
pub async fn request(
    socket: Socket,
    runtime: &Runtime,
    request: Request,
    timeout: Duration,
) -> Result<Response, ClientError> {
    Connection::new(socket, runtime).await?.send(request, timeout).await
}

/// A connection kept for several requests, one after the other.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    gate: Gate,
    runtime: Runtime,
    /// Moves the bytes; dropping it closes the connection.
    _driver: Task<()>,
}

impl Connection {
    /// Speaks HTTP over `socket`.
    ///
    /// # Errors
    /// [`ClientError::NotWritten`].
    pub async fn new(socket: Socket, runtime: &Runtime) -> Result<Self, ClientError> {
        let gate = Gate::default();
        let io = FuturesIo::new(Gated { socket, gate: gate.clone() });
        let (sender, connection) = http1::handshake(io)
            .await
            .map_err(|error| ClientError::NotWritten(error.to_string()))?;
        let driver = runtime.spawn(async move {
            // A failure reaches whoever waits for an answer, through `sender`.
            let _ = connection.await;
        });
        Ok(Self { sender, gate, runtime: runtime.clone(), _driver: driver })
    }

    /// Whether the other end has closed, so that the next request cannot be sent.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request and waits for its whole answer. After an error the connection is of no
    /// further use.
    ///
    /// # Errors
    /// [`ClientError`], saying how far the request got.
    pub async fn send(
        &mut self,
        request: Request,
        timeout: Duration,
    ) -> Result<Response, ClientError> {
        let gate = self.gate.clone();
        let written_before = gate.written_bytes();
        let runtime = self.runtime.clone();
        let request = request.build()?;
        let exchange = async {
            let (head, body) = self.head(request).await?.into_parts();
            let body = collect(body).await?;
            Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
        };
        let answer = runtime.timeout(timeout, exchange).await;
        let answer = answer.unwrap_or_else(|| Err("no answer in time".to_owned()));
        answer.map_err(|why| gate.close(written_before, why))
    }

    /// Sends a request whose answer never ends; `timeout` covers the answer's headers only.
    ///
    /// # Errors
    /// [`ClientError`], saying how far the request got.
    pub async fn open_stream(
        mut self,
        request: Request,
        timeout: Duration,
    ) -> Result<StreamingResponse, ClientError> {
        let written_before = self.gate.written_bytes();
        let runtime = self.runtime.clone();
        let request = request.build()?;
        let head = runtime.timeout(timeout, self.head(request)).await;
        let head = head.unwrap_or_else(|| Err("no answer in time".to_owned()));
        match head {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let chunks = Chunks { body, _connection: self };
                Ok(StreamingResponse {
                    status: head.status.as_u16(),
                    headers: head.headers,
                    chunks,
                })
            }
            Err(why) => Err(self.gate.close(written_before, why)),
        }
    }

    async fn head(
        &mut self,
        request: hyper::Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Incoming>, String> {
        self.sender.ready().await.map_err(|error| error.to_string())?;
        self.sender.send_request(request).await.map_err(|error| error.to_string())
    }
}

async fn collect(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        if data.len() > RESPONSE_BYTES_MAX - bytes.len() {
            return Err(format!("the answer is longer than {RESPONSE_BYTES_MAX} bytes"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// An answer whose body is still coming.
pub struct StreamingResponse {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as it comes.
    pub chunks: Chunks,
}

/// The chunks of a streamed body, as the connection delivers them. Dropping it disconnects.
pub struct Chunks {
    body: Incoming,
    _connection: Connection,
}

impl Stream for Chunks {
    type Item = Result<Bytes, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(frame)) => frame,
            };
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(Err(_trailers)) => {}
                Err(error) => {
                    return Poll::Ready(Some(Err(ClientError::Unanswered(error.to_string()))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
