//! The server's promises, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use super::client;
use super::testing::{Running, exchange, read_all, run, start, until};
use super::*;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;
use smol::net::unix::UnixListener;

/// How long a test waits for what comes at once.
const SOON: Duration = Duration::from_secs(20);

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("no answer")
}

/// Echoes path and body; `/big` answers with 8 MiB, `/status` with the error of the body.
fn echo(runtime: &Runtime) -> Arc<dyn Handler> {
    let runtime = runtime.clone();
    Arc::new(move |request: Request<Incoming>, peer: Peer| -> BoxFuture<Response<Body>> {
        let runtime = runtime.clone();
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            if path == "/big" {
                return Response::new(full(vec![b'x'; 8 << 20]));
            }
            match read_body(request.into_body(), 1024, &runtime, peer.arrival_deadline).await {
                Ok(body) => Response::new(full([path.as_bytes(), b" ", &body].concat())),
                Err(error) => {
                    let mut response = Response::new(full(format!("{error:?}")));
                    *response.status_mut() = match error {
                        BodyError::TooLarge { .. } => hyper::StatusCode::PAYLOAD_TOO_LARGE,
                        BodyError::TimedOut => hyper::StatusCode::REQUEST_TIMEOUT,
                        BodyError::Broken => hyper::StatusCode::BAD_REQUEST,
                    };
                    response
                }
            }
        })
    })
}

async fn start_echo(runtime: &Runtime, limits: Limits) -> Running {
    start(runtime, limits, Shutdown::new(), echo(runtime)).await
}

const SHORT: Duration = Duration::from_millis(200);

#[test]
fn too_long_a_head_is_431() {
    run(|runtime| async move {
        let server = start_echo(&runtime, Limits::default()).await;
        let long = format!("GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n", "a".repeat(17 * 1024));
        assert_eq!(status(&exchange(server.address, long.as_bytes()).await), "431");
        let line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(17 * 1024));
        assert_eq!(status(&exchange(server.address, line.as_bytes()).await), "431");
        let fits =
            format!("GET / HTTP/1.1\r\nconnection: close\r\na: {}\r\n\r\n", "a".repeat(15 * 1024));
        assert_eq!(status(&exchange(server.address, fits.as_bytes()).await), "200");
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert_eq!(status(&exchange(server.address, many.as_bytes()).await), "431");
    });
}

#[test]
fn a_head_that_does_not_arrive_is_408() {
    run(|runtime| async move {
        let limits = Limits { head_arrival: SHORT, ..Limits::default() };
        let server = start_echo(&runtime, limits).await;
        let answer = exchange(server.address, b"GET / HTTP/1.1\r\nhost:").await;
        assert_eq!(status(&answer), "408");
        let behind_another = b"GET /1 HTTP/1.1\r\n\r\n";
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(behind_another).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        stream.write_all(b"GET /2 HT").await.unwrap();
        assert!(read_all(&mut stream).await.contains("HTTP/1.1 408 "));
    });
}

#[test]
fn half_a_head_in_the_packet_of_another_request_is_408_by_the_idle_limit() {
    run(|runtime| async move {
        let server = start_echo(&runtime, Limits { idle: SHORT, ..Limits::default() }).await;
        let answer = exchange(server.address, b"GET /1 HTTP/1.1\r\n\r\nGET /2 HT").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("HTTP/1.1 408 "));
    });
}

#[test]
fn an_idle_connection_closes_quietly() {
    run(|runtime| async move {
        let limits = Limits { idle: SHORT, head_arrival: SHORT, ..Limits::default() };
        let server = start_echo(&runtime, limits).await;
        assert_eq!(exchange(server.address, b"").await, "");
        let answer = exchange(server.address, b"GET /once HTTP/1.1\r\n\r\n").await;
        assert!(answer.ends_with("/once "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1);
    });
}

#[test]
fn a_body_that_does_not_arrive_is_408() {
    run(|runtime| async move {
        let limits = Limits { request_arrival: SHORT, ..Limits::default() };
        let server = start_echo(&runtime, limits).await;
        let request = b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\nhalf";
        assert_eq!(status(&exchange(server.address, request).await), "408");
    });
}

#[test]
fn a_body_beyond_its_limit_is_refused_and_the_answer_arrives() {
    run(|runtime| async move {
        let server = start_echo(&runtime, Limits::default()).await;
        let body = "x".repeat(300 * 1024);
        let sized = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        assert_eq!(status(&exchange(server.address, sized.as_bytes()).await), "413");
        let chunked = format!(
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        assert_eq!(status(&exchange(server.address, chunked.as_bytes()).await), "413");
    });
}

#[test]
fn contradicting_lengths_are_400() {
    run(|runtime| async move {
        let server = start_echo(&runtime, Limits::default()).await;
        for lengths in ["content-length: 1\r\ncontent-length: 2", "content-length: +1"] {
            let request = format!("POST / HTTP/1.1\r\n{lengths}\r\n\r\nxx");
            assert_eq!(status(&exchange(server.address, request.as_bytes()).await), "400");
        }
    });
}

#[test]
fn one_connection_too_many_gets_503_and_a_freed_place_serves_again() {
    run(|runtime| async move {
        let limits = Limits { slots: Slots::new(1), ..Limits::default() };
        let slots = limits.slots.clone();
        let server = start_echo(&runtime, limits).await;
        let mut first = TcpStream::connect(server.address).await.unwrap();
        first.write_all(b"GET /1 HTTP/1.1\r\n\r\n").await.unwrap();
        first.read_exact(&mut [0; 12]).await.unwrap();
        let request = b"GET /2 HTTP/1.1\r\nconnection: close\r\n\r\n";
        assert_eq!(status(&exchange(server.address, request).await), "503");
        drop(first);
        until(&runtime, || slots.taken() == 0).await;
        assert_eq!(status(&exchange(server.address, request).await), "200");
    });
}

#[test]
fn an_answer_nobody_reads_is_dropped() {
    run(|runtime| async move {
        let limits = Limits { write_stall: SHORT, ..Limits::default() };
        let slots = limits.slots.clone();
        let server = start_echo(&runtime, limits).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /big HTTP/1.1\r\n\r\n").await.unwrap();
        until(&runtime, || slots.taken() == 1).await;
        until(&runtime, || slots.taken() == 0).await;
    });
}

#[test]
fn an_answer_read_slowly_arrives_whole() {
    run(|runtime| async move {
        let limits = Limits { idle: SHORT, head_arrival: SHORT, ..Limits::default() };
        let server = start_echo(&runtime, limits).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /big HTTP/1.1\r\n\r\n").await.unwrap();
        runtime.sleep(3 * SHORT).await;
        assert!(read_all(&mut stream).await.len() > 8 << 20);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(|runtime| async move {
        let server = start_echo(&runtime, Limits::default()).await;
        let mut requests = String::new();
        for number in 0..40 {
            requests += &format!("POST /{number} HTTP/1.1\r\ncontent-length: 2\r\n\r\nab");
        }
        requests += "GET /end HTTP/1.1\r\nconnection: close\r\n\r\n";
        let answers = exchange(server.address, requests.as_bytes()).await;
        let bodies = answers.split("HTTP/1.1 200 OK").skip(1);
        let bodies: Vec<&str> = bodies.map(|one| one.split("\r\n\r\n").nth(1).unwrap()).collect();
        let mut expected: Vec<String> = (0..40).map(|number| format!("/{number} ab")).collect();
        expected.push("/end ".to_owned());
        assert_eq!(bodies, expected);
    });
}

/// A handler that says when it has begun and waits to be released.
fn held() -> (Arc<dyn Handler>, channel::Receiver<()>, channel::Sender<()>) {
    let (begun, has_begun) = channel::unbounded();
    let (release, released) = channel::unbounded();
    let handler = move |_: Request<Incoming>, _: Peer| -> BoxFuture<Response<Body>> {
        let (begun, released) = (begun.clone(), released.clone());
        Box::pin(async move {
            let _ = begun.send(()).await;
            let _ = released.recv().await;
            Response::new(full("finished"))
        })
    };
    (Arc::new(handler), has_begun, release)
}

#[test]
fn shutdown_finishes_what_is_in_flight_and_closes_the_rest() {
    run(|runtime| async move {
        let (handler, has_begun, release) = held();
        let server = start(&runtime, Limits::default(), Shutdown::new(), handler).await;
        let mut idle = TcpStream::connect(server.address).await.unwrap();
        let mut busy = TcpStream::connect(server.address).await.unwrap();
        busy.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        has_begun.recv().await.unwrap();
        server.trigger.fire();
        assert_eq!(read_all(&mut idle).await, "");
        assert!(TcpStream::connect(server.address).await.is_err());
        release.send(()).await.unwrap();
        assert!(read_all(&mut busy).await.ends_with("finished"));
        server.task.await;
    });
}

#[test]
fn shutdown_does_not_wait_for_ever() {
    run(|runtime| async move {
        let (handler, has_begun, _release) = held();
        let limits = Limits { drain: SHORT, ..Limits::default() };
        let slots = limits.slots.clone();
        let server = start(&runtime, limits, Shutdown::new(), handler).await;
        let mut busy = TcpStream::connect(server.address).await.unwrap();
        busy.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        has_begun.recv().await.unwrap();
        server.trigger.fire();
        server.task.await;
        assert_eq!(slots.taken(), 0);
    });
}

#[test]
fn a_disconnect_drops_the_handler() {
    run(|runtime| async move {
        let (handler, has_begun, release) = held();
        let server = start(&runtime, Limits::default(), Shutdown::new(), handler).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        has_begun.recv().await.unwrap();
        // One receiver is the server's own; the other belongs to the handler at work.
        assert_eq!(release.receiver_count(), 2);
        drop(stream);
        until(&runtime, || release.receiver_count() == 1).await;
    });
}

#[test]
fn an_upgraded_socket_keeps_the_bytes_sent_right_behind_the_request() {
    run(|runtime| async move {
        let spawner = runtime.clone();
        let handler = move |mut request: Request<Incoming>, _: Peer| {
            let upgrade = upgraded(hyper::upgrade::on(&mut request));
            let echo = async move {
                let (mut socket, early) = upgrade.await.unwrap();
                socket.write_all(&early).await.unwrap();
                socket.close().await.unwrap();
            };
            spawner.spawn(echo).detach();
            let mut response = Response::new(empty());
            *response.status_mut() = hyper::StatusCode::SWITCHING_PROTOCOLS;
            Box::pin(async { response }) as BoxFuture<Response<Body>>
        };
        let server = start(&runtime, Limits::default(), Shutdown::new(), Arc::new(handler)).await;
        let request = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nearly";
        let answer = exchange(server.address, request).await;
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\nearly"));
    });
}

#[test]
fn a_unix_peer_is_known_by_its_uid() {
    run(|runtime| async move {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let listener = Listener::Unix(UnixListener::bind(&path).unwrap());
        let handler = |_: Request<Incoming>, peer: Peer| -> BoxFuture<Response<Body>> {
            Box::pin(async move { Response::new(full(format!("{:?}", peer.transport))) })
        };
        let (_trigger, shutdown) = Shutdown::new();
        let limits = Limits::default();
        let serving = serve(listener, limits, runtime.clone(), shutdown, Arc::new(handler));
        let _server = runtime.spawn(serving);
        let socket = client::connect_unix(&path, &runtime, SOON).await.unwrap();
        let request = client::Request::get("/");
        let response = client::request(socket, &runtime, request, SOON).await.unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(response.body, format!("Unix {{ uid: {uid} }}").as_bytes());
    });
}
