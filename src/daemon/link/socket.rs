//! One WebSocket to a broker: dialled, read, written and closed, with a bound on everything.
//!
//! The only file of the link that names WebSocket types. It decides nothing: what a frame or a
//! close code means is for others, and so is the time.

use super::tls::{Tls, TlsError};
use super::yielding::YieldingReader;
use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::error::CapacityError;
use async_tungstenite::tungstenite::handshake::client::Request;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketStream, client_async_with_config};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::BrokerFrame;
use claudemesh_fsm::link::Closed;
use futures_lite::future::yield_now;
use futures_lite::{AsyncRead, AsyncWrite, Stream};
use futures_rustls::pki_types::ServerName;
use futures_util::Sink;
use smol::net::TcpStream;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long name resolution, TCP, TLS and the WebSocket handshake may take together, by default.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a broker may take to answer our close frame.
pub const CLOSE_MAX: Duration = Duration::from_secs(2);
/// The most a broker's message may weigh, in bytes: a roster of 1,024 connections of 4 KiB each.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The read buffer, in bytes; allocated at once, so small.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// How much is gathered before it is written without being asked, in bytes.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;
/// The most that waits for a socket that takes nothing, in bytes. One frame is added only while
/// the last write went through, so this is never reached with frames of the size we send.
const WRITE_BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The address is not one of a WebSocket.
    #[error("brokerUrl {0}; write ws://host/ws or wss://host/ws")]
    BadUrl(&'static str),
    /// Name resolution or TCP failed.
    #[error("{0}")]
    Connect(io::Error),
    /// No TLS client could be made.
    #[error("{0}")]
    Tls(TlsError),
    /// TLS failed: mostly a certificate that nobody we trust vouches for.
    #[error("TLS: {0}")]
    TlsHandshake(io::Error),
    /// The other side does not speak WebSocket to us.
    #[error("WebSocket: {0}")]
    Handshake(Box<Error>),
    /// All of it together took too long.
    #[error("no WebSocket within {0:?}")]
    TooSlow(Duration),
}

/// What came from the broker.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A frame.
    Frame(BrokerFrame),
    /// A message that is no frame.
    Malformed,
    /// A ping or a pong: somebody is there.
    Alive,
    /// The end.
    Closed(Closed),
}

trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

/// One WebSocket.
pub(super) struct WebSocket {
    stream: WebSocketStream<YieldingReader<Box<dyn Io>>>,
}

impl WebSocket {
    /// Connects to `url` within `limit`.
    pub(super) async fn dial(
        url: &str,
        tls: &mut Tls,
        runtime: &Runtime,
        limit: Duration,
    ) -> Result<Self, DialError> {
        let dialled = runtime.timeout(limit, Box::pin(connect(url, tls, runtime))).await;
        dialled.unwrap_or(Err(DialError::TooSlow(limit)))
    }

    /// The next thing heard.
    pub(super) fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        Poll::Ready(match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
            Some(Ok(Message::Text(text))) => parsed(text.as_bytes()),
            // Binary messages with JSON in them are legal on today's network (`specs/wire.md`).
            Some(Ok(Message::Binary(bytes))) => parsed(&bytes),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Incoming::Alive,
            Some(Ok(Message::Close(frame))) => Incoming::Closed(closed(frame)),
            Some(Err(error)) => Incoming::Closed(failed(&error)),
            None => Incoming::Closed(Closed::default()),
        })
    }

    /// Whether another frame may be fed.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Pin::new(&mut self.stream).poll_ready(cx).map_err(|error| failed(&error))
    }

    /// Takes a frame that will be on its way after the next [`poll_flush`](Self::poll_flush) at
    /// the latest.
    pub(super) fn feed(&mut self, text: String) -> Result<(), Closed> {
        self.start(Message::text(text))
    }

    /// Takes a ping likewise.
    pub(super) fn feed_ping(&mut self) -> Result<(), Closed> {
        self.start(Message::Ping(Vec::new().into()))
    }

    /// Writes what was fed.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(|error| failed(&error))
    }

    /// Says goodbye and waits until the broker did, for [`CLOSE_MAX`] at most. `reason` must not
    /// exceed the 123 bytes that a close frame has room for.
    pub(super) async fn send_close(&mut self, runtime: &Runtime, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        let said = async {
            poll_fn(|cx| self.poll_room(cx)).await?;
            self.start(Message::Close(Some(frame)))?;
            poll_fn(|cx| self.poll_flush(cx)).await?;
            // What else arrives is nobody's any more, and may never end: others have their turn
            // after each, and so has the time.
            while !matches!(poll_fn(|cx| self.poll_incoming(cx)).await, Incoming::Closed(_)) {
                yield_now().await;
            }
            Ok::<(), Closed>(())
        };
        if runtime.timeout(CLOSE_MAX, said).await.is_none() {
            tracing::debug!(code, "the broker did not answer our close frame in time");
        }
    }

    /// Answers the broker's own close frame, if that costs no waiting: the connection is over
    /// whether the answer arrives or not.
    pub(super) async fn finish_close(&mut self) {
        let _ = poll_fn(|cx| Poll::Ready(self.poll_flush(cx))).await;
    }

    fn start(&mut self, message: Message) -> Result<(), Closed> {
        Pin::new(&mut self.stream).start_send(message).map_err(|error| failed(&error))
    }
}

async fn connect(url: &str, tls: &mut Tls, runtime: &Runtime) -> Result<WebSocket, DialError> {
    let request =
        url.into_client_request().map_err(|_| DialError::BadUrl("is not a WebSocket address"))?;
    let (secure, host, port) = address(&request)?;
    let addresses = resolve(&host, port, runtime).await.map_err(DialError::Connect)?;
    let tcp = TcpStream::connect(addresses.as_slice()).await.map_err(DialError::Connect)?;
    // Frames are gathered here already; a delay on top would only be a delay.
    tcp.set_nodelay(true).map_err(DialError::Connect)?;
    let io: Box<dyn Io> = if secure {
        let name = ServerName::try_from(host).map_err(|_| DialError::BadUrl("has a bad host"))?;
        let connector = tls.connector(runtime).await.map_err(DialError::Tls)?;
        Box::new(connector.connect(name, tcp).await.map_err(DialError::TlsHandshake)?)
    } else {
        Box::new(tcp)
    };
    let shaken = client_async_with_config(request, YieldingReader::new(io), Some(limits())).await;
    let (stream, _) = shaken.map_err(|error| DialError::Handshake(Box::new(error)))?;
    Ok(WebSocket { stream })
}

/// Where `host` is. The system's resolver blocks, so a name is looked up beside the executor.
async fn resolve(host: &str, port: u16, runtime: &Runtime) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let name = host.to_owned();
    let found =
        runtime.unblock(move || (name.as_str(), port).to_socket_addrs().map(Vec::from_iter));
    found.await.unwrap_or_else(|| Err(io::ErrorKind::Other.into()))
}

/// Whether to use TLS, and where to.
fn address(request: &Request) -> Result<(bool, String, u16), DialError> {
    let uri = request.uri();
    let secure = match uri.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => return Err(DialError::BadUrl("is not a WebSocket address")),
    };
    let host = uri.host().ok_or(DialError::BadUrl("has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((secure, host, uri.port_u16().unwrap_or(if secure { 443 } else { 80 })))
}

fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

fn parsed(json: &[u8]) -> Incoming {
    serde_json::from_slice(json).map_or(Incoming::Malformed, Incoming::Frame)
}

fn closed(frame: Option<CloseFrame>) -> Closed {
    frame.map_or_else(Closed::default, |frame| Closed {
        code: Some(frame.code.into()),
        reason: frame.reason.as_str().to_owned(),
    })
}

/// A local end, in words. It has no code: the broker gave none.
fn failed(error: &Error) -> Closed {
    let reason = match error {
        Error::ConnectionClosed | Error::AlreadyClosed => String::new(),
        Error::Capacity(CapacityError::MessageTooLong { size, .. }) => {
            format!("the broker sent {size} bytes in one message, more than {MESSAGE_BYTES_MAX}")
        }
        other => format!("connection lost: {other}"),
    };
    Closed { code: None, reason }
}
