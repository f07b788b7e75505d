//! One connection, from its first byte to its last.
//!
//! The codec closes a connection it has answered with an error; it never drops it with bytes
//! unread, because the kernel would then reset it and could take the answer with it.

use super::body::TrackedBody;
use super::progress::{Progress, Timeout, TrackedSocket};
use super::{Body, Peer, Server, Socket, Transport};
use crate::runtime::{BoxFuture, Runtime};
use futures_lite::future::or;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use smol_hyper::rt::FuturesIo;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// hyper's smallest read buffer; smaller limits are raised to it.
const HEADER_BYTES_MIN: usize = 8 * 1024;
/// How long a closed connection may still deliver what nobody reads.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// How much of it is thrown away before the connection is dropped all the same.
const LINGER_BYTES_MAX: usize = 512 * 1024;

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const TOO_MANY_CONNECTIONS: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\n\
    content-length: 160\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"too many connections are open: try again in a second\",\
    \"error\":\"too_many_connections\"}";

type Codec = http1::UpgradeableConnection<FuturesIo<TrackedSocket>, Service>;

/// How the driving of a connection ended.
enum DriveEnd {
    /// The codec is done, well or not: it has said what there is to say.
    Done,
    Expired(Timeout),
    Aborted,
}

/// Serves one connection until it ends.
pub(super) async fn run(server: &Arc<Server>, socket: Socket, transport: Transport) {
    let progress = Arc::new(Progress::new(server.runtime.clone()));
    let io = FuturesIo::new(TrackedSocket::new(socket, Arc::clone(&progress)));
    let service =
        Service { server: Arc::clone(server), progress: Arc::clone(&progress), transport };
    let mut codec = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(server.limits.header_bytes_max.max(HEADER_BYTES_MIN))
        .serve_connection(io, service)
        .with_upgrades();
    let abort = async {
        server.abort.wait().await;
        DriveEnd::Aborted
    };
    let ending = or(abort, drive(server, &progress, &mut codec)).await;
    let Some(parts) = codec.into_parts() else { return };
    let socket = parts.io.into_inner().into_socket();
    match ending {
        DriveEnd::Done if progress.may_receive_more() => linger(&server.runtime, socket).await,
        DriveEnd::Expired(Timeout::Head) => {
            write_final_response(&server.runtime, socket, REQUEST_TIMEOUT).await
        }
        // A head that began in the same packet as the request before it is only seen here.
        DriveEnd::Expired(Timeout::Idle) if !parts.read_buf.is_empty() => {
            write_final_response(&server.runtime, socket, REQUEST_TIMEOUT).await;
        }
        DriveEnd::Done | DriveEnd::Expired(_) | DriveEnd::Aborted => {}
    }
}

/// Tells a connection beyond the limit so, and closes it.
pub(super) async fn refuse(server: &Arc<Server>, socket: Socket) {
    or(server.abort.wait(), write_final_response(&server.runtime, socket, TOO_MANY_CONNECTIONS))
        .await;
}

/// Polls the codec, its deadlines and the shutdown signal. One timer is kept: while it is set for
/// earlier than the next deadline it stays, and costs one wake-up at most.
async fn drive(server: &Server, progress: &Progress, codec: &mut Codec) -> DriveEnd {
    let mut shutdown = pin!(server.shutdown.wait());
    let mut stopping = false;
    let mut timer: Option<(Duration, BoxFuture<()>)> = None;
    poll_fn(|cx| {
        if !stopping && shutdown.as_mut().poll(cx).is_ready() {
            stopping = true;
            Pin::new(&mut *codec).graceful_shutdown();
        }
        if Pin::new(&mut *codec).poll(cx).is_ready() {
            return Poll::Ready(DriveEnd::Done);
        }
        while let Some((deadline, timeout)) = progress.deadline(&server.limits) {
            if server.runtime.monotonic() >= deadline {
                return Poll::Ready(DriveEnd::Expired(timeout));
            }
            let (_, sleep) = match &mut timer {
                Some(set) if set.0 <= deadline => set,
                slot => slot.insert((deadline, sleep_until(&server.runtime, deadline))),
            };
            if sleep.as_mut().poll(cx).is_pending() {
                break;
            }
            timer = None;
        }
        Poll::Pending
    })
    .await
}

fn sleep_until(runtime: &Runtime, deadline: Duration) -> BoxFuture<()> {
    let runtime = runtime.clone();
    Box::pin(async move { runtime.sleep_until(deadline).await })
}

/// Says one last thing past the codec.
async fn write_final_response(runtime: &Runtime, mut socket: Socket, words: &[u8]) {
    if let Some(Ok(())) = runtime.timeout(LINGER_MAX, socket.write_all(words)).await {
        linger(runtime, socket).await;
    }
}

/// Closes our side and reads away what is still on its way, so that the answer gets through.
async fn linger(runtime: &Runtime, mut socket: Socket) {
    let discard = async {
        let mut buffer = vec![0; 4096];
        let mut total = 0;
        let _ = socket.close().await;
        while let Ok(bytes @ 1..) = socket.read(&mut buffer).await {
            total += bytes;
            if total > LINGER_BYTES_MAX {
                return;
            }
        }
    };
    // Whether the peer ended or the time did, the connection is dropped.
    let _ = runtime.timeout(LINGER_MAX, discard).await;
}

/// The handler, as hyper wants to see it.
struct Service {
    server: Arc<Server>,
    progress: Arc<Progress>,
    transport: Transport,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<TrackedBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        let arrival_deadline = self.progress.head_complete() + self.server.limits.request_arrival;
        let peer = Peer { transport: self.transport, arrival_deadline };
        let answer = self.server.handler.handle(request, peer);
        Answer { answer, progress: Arc::clone(&self.progress) }
    }
}

/// A handler's answer under way; its body will report to the watch.
struct Answer {
    answer: BoxFuture<Response<Body>>,
    progress: Arc<Progress>,
}

impl Future for Answer {
    type Output = Result<Response<TrackedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let progress = Arc::clone(&self.progress);
        self.answer
            .as_mut()
            .poll(cx)
            .map(|response| Ok(response.map(|body| TrackedBody::new(body, progress))))
    }
}
