//! The client's promises, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use super::*;
use crate::http::testing::{run, start};
use crate::http::{Body, Limits, Peer, full, stream};
use crate::runtime::{BoxFuture, Shutdown};
use futures_lite::{AsyncReadExt, StreamExt};
use smol::channel;
use smol::net::TcpListener;
use smol::net::unix::UnixStream;
use std::net::Ipv4Addr;
use std::sync::Arc;

const SHORT: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(20);

#[test]
fn the_client_keeps_a_connection_and_reads_streams_as_they_come() {
    run(|runtime| async move {
        let (events, queue) = channel::bounded::<bytes::Bytes>(4);
        let handler =
            move |request: hyper::Request<Incoming>, _: Peer| -> BoxFuture<hyper::Response<Body>> {
                let queue = queue.clone();
                Box::pin(async move {
                    match request.uri().path() {
                        "/events" => hyper::Response::new(stream(queue)),
                        path => hyper::Response::new(full(path.to_owned())),
                    }
                })
            };
        let server = start(&runtime, Limits::default(), Shutdown::new(), Arc::new(handler)).await;
        let socket = connect_tcp("127.0.0.1", server.address.port(), &runtime, SOON).await;
        let mut connection = Connection::new(socket.unwrap(), &runtime).await.unwrap();
        for path in ["/a", "/b"] {
            let asked = Request::new(Method::GET, path);
            let response = connection.send(asked, SOON).await.unwrap();
            assert_eq!((response.status, response.body), (200, path.as_bytes().to_vec()));
        }
        let opened = connection.open_stream(Request::get("/events"), SOON).await;
        let mut chunks = opened.unwrap().chunks;
        for chunk in ["one", "two"] {
            events.send(chunk.into()).await.unwrap();
            assert_eq!(chunks.next().await.unwrap().unwrap(), chunk);
        }
        events.close();
        assert!(chunks.next().await.is_none());
    });
}

#[test]
fn the_client_says_how_far_a_request_got() {
    run(|runtime| async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let get = || Request::get("/");

        // Read in part, then gone: the other side may have acted on it.
        let (near, mut far) = UnixStream::pair().unwrap();
        let all_closed = async move { far.read_exact(&mut [0]).await.unwrap() };
        let asked = request(Socket::Unix(near), &runtime, get(), SOON);
        let (answer, ()) = futures_lite::future::zip(asked, all_closed).await;
        let error = answer.unwrap_err();
        assert!(matches!(error, ClientError::Unanswered(_)), "{error}");

        // Never answered.
        let (near, _far) = UnixStream::pair().unwrap();
        let asked = request(Socket::Unix(near), &runtime, get(), SHORT);
        let error = asked.await.unwrap_err();
        assert!(matches!(error, ClientError::Unanswered(_)), "{error}");

        // Closed by the other side before anything could be written.
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let error = request(Socket::Unix(near), &runtime, get(), SOON).await.unwrap_err();
        assert!(matches!(error, ClientError::NotWritten(_)), "{error}");
        let bad = get().header("x", "line\nbreak");
        let (near, _far) = UnixStream::pair().unwrap();
        let error = request(Socket::Unix(near), &runtime, bad, SOON).await.unwrap_err();
        assert!(matches!(error, ClientError::NotWritten(_)) && error.is_certainly_not_taken());

        drop(listener);
        let error = connect_tcp("127.0.0.1", port, &runtime, SOON).await.unwrap_err();
        assert!(matches!(error, ClientError::CouldNotConnect(_)), "{error}");
    });
}
