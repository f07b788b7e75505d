//! The adapter over real sockets: guard, limits, routing and streams as a caller meets them.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use super::*;
use crate::api::reply::Answer;
use crate::api::routes::routes;
use claudemesh_base::http::client::{self, Chunks, Connection, Request, Response};
use claudemesh_base::http::testing::{Running, exchange, run, start, until};
use claudemesh_base::http::{Limits, Socket, Transport};
use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt};
use smol::channel::{self, Sender};
use smol::net::TcpStream;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const BODY_LIMITS: BodyLimits = BodyLimits {
    send_bytes_max: 256 * 1024,
    requeue_bytes_max: 200 * 1024,
    seen_bytes_max: 64 * 1024,
    other_bytes_max: 16 * 1024,
};
const TOKEN: &str = "token";

#[derive(Clone)]
struct State {
    events: Receiver<Bytes>,
    gate: Receiver<()>,
    begun: Sender<()>,
}

static TABLE: [Route<State>; 7] = routes![
    Get "/v1/health" done, other_bytes_max, "";
    Post "/v1/send" echo, send_bytes_max, "";
    Get "/v1/transport" transport, other_bytes_max, "";
    Get "/v1/hold" hold, other_bytes_max, "";
    Get "/v1/events" events, other_bytes_max, "";
    Get "/v1/inbox" done, other_bytes_max, "";
    Delete "/v1/inbox" done, other_bytes_max, "";
];

async fn done(_: tide::Request<State>) -> Answer {
    Ok(reply::ok(&true))
}

async fn echo(mut request: tide::Request<State>) -> Answer {
    Ok(reply::ok(&request.body_string().await.unwrap()))
}

async fn transport(request: tide::Request<State>) -> Answer {
    let transport: Option<&Transport> = request.ext();
    Ok(reply::ok(&format!("{transport:?}")))
}

async fn hold(request: tide::Request<State>) -> Answer {
    let state = request.state();
    let _ = state.begun.send(()).await;
    let _ = state.gate.recv().await;
    Ok(reply::ok(&true))
}

async fn events(request: tide::Request<State>) -> Answer {
    let mut response = reply::ok_text("text/event-stream", String::new());
    response.insert_ext(EventStream(request.state().events.clone()));
    Ok(response)
}

struct Daemon {
    server: Running,
    runtime: Runtime,
    events: Sender<Bytes>,
    gate: Sender<()>,
    has_begun: Receiver<()>,
}

async fn daemon(runtime: &Runtime, in_flight_max: usize, limits: Limits) -> Daemon {
    let (events, event_queue) = channel::bounded(4);
    let (gate, gate_open) = channel::unbounded();
    let (begun, has_begun) = channel::unbounded();
    let signal = Shutdown::new();
    let handler = handler(ApiService {
        router: Router::new(State { events: event_queue, gate: gate_open, begun }, &TABLE),
        token: AcceptedToken::new(TOKEN),
        public_health: false,
        in_flight: Slots::new(in_flight_max),
        body_limits: BODY_LIMITS,
        shutdown: signal.1.clone(),
        runtime: runtime.clone(),
    });
    let server = start(runtime, limits, signal, handler).await;
    Daemon { server, runtime: runtime.clone(), events, gate, has_begun }
}

impl Daemon {
    async fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.server.address).await.unwrap();
        Connection::new(Socket::Tcp(stream), &self.runtime).await.unwrap()
    }

    async fn ask(&self, request: Request) -> Response {
        let request = request.header("authorization", format!("Bearer {TOKEN}"));
        self.connect().await.send(request, SOON).await.unwrap()
    }

    async fn events(&self) -> Chunks {
        let request = Request::get("/v1/events").header("authorization", "Bearer token");
        let opened = self.connect().await.open_stream(request, SOON).await.unwrap();
        assert_eq!(opened.status, 200);
        assert_eq!(opened.headers["content-type"], "text/event-stream");
        opened.chunks
    }
}

fn error(response: &Response) -> (u16, String) {
    assert_eq!(response.headers["content-type"], "application/problem+json");
    let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(body["status"], response.status);
    (response.status, body["error"].as_str().unwrap().to_owned())
}

fn expect(response: &Response, status: u16, code: &str) {
    assert_eq!(error(response), (status, code.to_owned()));
}

#[test]
fn an_admitted_request_reaches_its_route() {
    run(|runtime| async move {
        let daemon = daemon(&runtime, 8, Limits::default()).await;
        let sent = daemon.ask(Request::post_json("/v1/send", "{}")).await;
        assert_eq!((sent.status, sent.body), (200, b"\"{}\"".to_vec()));
        assert_eq!(sent.headers["content-type"], "application/json");
        let transport = daemon.ask(Request::get("/v1/transport")).await;
        assert_eq!(transport.body, b"\"Some(Tcp)\"");
    });
}

#[test]
fn the_guard_stands_before_everything() {
    run(|runtime| async move {
        let daemon = daemon(&runtime, 8, Limits::default()).await;
        let stranger = Request::get("/v1/nowhere");
        let answer = daemon.connect().await.send(stranger, SOON).await.unwrap();
        expect(&answer, 401, "missing_bearer_token");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        let page = daemon.ask(Request::get("/v1/health").header("origin", "https://a")).await;
        expect(&page, 403, "forbidden_origin");
        assert!(!page.headers.contains_key("access-control-allow-origin"));
        let query = daemon.ask(Request::get("/v1/health?token=secret")).await;
        expect(&query, 400, "token_in_query");
        assert!(!String::from_utf8_lossy(&query.body).contains("secret"));
    });
}

#[test]
fn unknown_routes_and_wrong_methods_are_told_apart() {
    run(|runtime| async move {
        let daemon = daemon(&runtime, 8, Limits::default()).await;
        for path in
            ["/", "/v1", "/v1/nowhere", "//v1/health", "/v1/health/", "/%00", "//a/v1/health"]
        {
            expect(&daemon.ask(Request::get(path)).await, 404, "not_found");
        }
        for method in ["POST", "DELETE", "BREW", "CONNECTED"] {
            let method = client::Method::from_bytes(method.as_bytes()).unwrap();
            let answer = daemon.ask(Request::new(method, "/v1/health")).await;
            expect(&answer, 405, "method_not_allowed");
            assert_eq!(answer.headers["allow"], "GET");
        }
        let answer = daemon.ask(Request::get("/v1/send")).await;
        assert_eq!(answer.headers["allow"], "POST");
        let head = daemon.ask(Request::new(client::Method::HEAD, "/v1/health")).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        let answer = daemon.ask(Request::post_json("/v1/inbox", "{}")).await;
        assert_eq!(answer.headers["allow"], "GET, DELETE");
    });
}

#[test]
fn each_route_has_its_body_limit() {
    run(|runtime| async move {
        let daemon = daemon(&runtime, 8, Limits::default()).await;
        let fits = daemon.ask(Request::post_json("/v1/send", vec![b'x'; 256 * 1024])).await;
        assert_eq!(fits.status, 200);
        let over = daemon.ask(Request::post_json("/v1/send", vec![b'x'; 256 * 1024 + 1])).await;
        expect(&over, 413, "payload_too_large");
    });
}

#[test]
fn a_header_that_is_not_ascii_is_400_and_names_itself() {
    run(|runtime| async move {
        let daemon = daemon(&runtime, 8, Limits::default()).await;
        let request = b"GET /v1/health HTTP/1.1\r\nauthorization: Bearer token\r\n\
            connection: close\r\nx-name: J\xc3\xbcrgen\r\n\r\n";
        let answer = exchange(daemon.server.address, request).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("x-name"), "{answer}");
    });
}

#[test]
fn a_late_body_is_408_and_http_1_0_needs_no_host() {
    run(|runtime| async move {
        let limits = Limits { request_arrival: Duration::from_millis(60), ..Limits::default() };
        let daemon = daemon(&runtime, 8, limits).await;
        let late = b"POST /v1/send HTTP/1.1\r\nauthorization: Bearer token\r\n\
            content-length: 9\r\n\r\nhalf";
        let answer = exchange(daemon.server.address, late).await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("request_timeout"));
        let old = b"GET /v1/health HTTP/1.0\r\nauthorization: Bearer token\r\n\r\n";
        assert!(exchange(daemon.server.address, old).await.starts_with("HTTP/1.0 200 "));
    });
}

#[test]
fn requests_beyond_those_in_flight_are_told_to_come_back() {
    run(|runtime| async move {
        let daemon = daemon(&runtime, 1, Limits::default()).await;
        let held = daemon.ask(Request::get("/v1/hold"));
        let meanwhile = async {
            daemon.has_begun.recv().await.unwrap();
            let busy = daemon.ask(Request::get("/v1/health")).await;
            expect(&busy, 429, "daemon_busy");
            assert_eq!(busy.headers["retry-after"], "1");
            daemon.gate.send(()).await.unwrap();
        };
        let (held, ()) = futures_lite::future::zip(held, meanwhile).await;
        assert_eq!(held.status, 200);
        assert_eq!(daemon.ask(Request::get("/v1/health")).await.status, 200);
    });
}

#[test]
fn events_arrive_one_by_one_and_hold_no_place_in_flight() {
    run(|runtime| async move {
        let daemon = daemon(&runtime, 1, Limits::default()).await;
        let mut chunks = daemon.events().await;
        assert_eq!(daemon.ask(Request::get("/v1/health")).await.status, 200);
        for event in ["id: 1\n\n", "id: 2\n\n"] {
            daemon.events.send(event.into()).await.unwrap();
            assert_eq!(chunks.next().await.unwrap().unwrap(), event);
        }
    });
}

#[test]
fn streams_end_cleanly_at_shutdown() {
    run(|runtime| async move {
        let daemon = daemon(&runtime, 1, Limits::default()).await;
        let mut chunks = daemon.events().await;
        daemon.server.trigger.fire();
        assert!(chunks.next().await.is_none());
        daemon.server.task.await;
    });
}

#[test]
fn a_reader_that_leaves_closes_the_queue_of_its_stream() {
    run(|runtime| async move {
        let daemon = daemon(&runtime, 1, Limits::default()).await;
        let chunks = daemon.events().await;
        // One receiver is the state's own.
        assert_eq!(daemon.events.receiver_count(), 2);
        drop(chunks);
        until(&runtime, || daemon.events.receiver_count() == 1).await;
    });
}

/// Seeded, so that a failure can be replayed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

const PARTS: [&[u8]; 24] = [
    b"GET ",
    b"POST ",
    b"/v1/send",
    b"/v1/health",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b" HTTP/9.9",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"host: localhost\r\n",
    b"authorization: Bearer token\r\n",
    b"content-length: 5\r\n",
    b"content-length: -1\r\n",
    b"transfer-encoding: chunked\r\n",
    b"\0",
    b"ffffffffffffffff\r\n",
    b"0\r\n\r\n",
    b"{\"to\":",
    b"\xff\xfe",
    b": ",
    b"expect: 100-continue\r\n",
    b"upgrade: h2c\r\nconnection: upgrade\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

fn malformed(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = Vec::new();
    if dice.roll(2) == 0 {
        bytes.extend_from_slice(b"POST /v1/send HTTP/1.1\r\nauthorization: Bearer token\r\n");
    }
    for _ in 0..=dice.roll(12) {
        bytes.extend_from_slice(PARTS[dice.roll(PARTS.len())]);
    }
    for _ in 0..dice.roll(3) {
        let at = dice.roll(bytes.len());
        bytes[at] = u8::try_from(dice.roll(256)).unwrap();
    }
    bytes
}

#[test]
fn five_thousand_malformed_requests_change_nothing() {
    run(|runtime| async move {
        let limits = Limits::default();
        let slots = limits.slots.clone();
        let daemon = daemon(&runtime, 64, limits).await;
        let mut dice = Dice(0x5eed_c1a0_de00_0001);
        for _ in 0..100 {
            let mut batch = Vec::new();
            for _ in 0..50 {
                let mut stream = TcpStream::connect(daemon.server.address).await.unwrap();
                // The server may have hung up already; that is an answer too.
                let _ = stream.write_all(&malformed(&mut dice)).await;
                let _ = stream.shutdown(std::net::Shutdown::Write);
                batch.push(stream);
            }
            for mut stream in batch {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
        until(&runtime, || slots.taken() == 0).await;
        assert_eq!(daemon.ask(Request::get("/v1/health")).await.status, 200);
    });
}
