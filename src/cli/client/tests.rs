//! The client against a socket that answers with what each test tells it to.

use super::*;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use serde_json::json;
use smol::Executor;
use smol::net::unix::UnixListener;
use std::future::Future;
use std::sync::Arc;

/// Runs `test` on a client whose daemon answers every connection with `answer`, and yields the
/// requests that came.
fn against<F: Future<Output = ()>>(answer: &str, test: impl FnOnce(Client) -> F) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = Paths::under(dir.path()).expect("absolute");
    std::fs::create_dir(&paths.daemon_dir).expect("created");
    let executor = Arc::new(Executor::new());
    let runtime = Runtime::real(Arc::clone(&executor));
    let (sender, requests) = smol::channel::unbounded();
    smol::block_on(executor.run(async {
        let listener = UnixListener::bind(paths.socket()).expect("bound");
        let answer = answer.to_owned();
        let serving = runtime.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = vec![0; 64 * 1024];
                let size = stream.read(&mut buffer).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&buffer[..size]).into_owned();
                sender.try_send(request).expect("unbounded");
                // The test may be gone already, which is its right.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        test(Client::new(&paths, &runtime)).await;
        drop(serving);
    }));
    std::iter::from_fn(|| requests.try_recv().ok()).collect()
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn without_a_daemon_it_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = Paths::under(dir.path()).expect("absolute");
    let executor = Arc::new(Executor::new());
    let client = Client::new(&paths, &Runtime::real(Arc::clone(&executor)));
    let error = smol::block_on(executor.run(client.health())).expect_err("nobody there");
    assert!(matches!(error, Error::NotRunning) && error.is_certainly_not_taken());
    // A socket file that a killed daemon left behind is no daemon either.
    std::fs::create_dir(&paths.daemon_dir).expect("created");
    drop(std::os::unix::net::UnixListener::bind(paths.socket()).expect("bound"));
    let error = smol::block_on(executor.run(client.health())).expect_err("nobody there");
    assert!(matches!(error, Error::NotRunning), "{error:?}");
}

#[test]
fn what_was_written_and_not_answered_is_of_unknown_outcome() {
    let requests = against("", |client| async move {
        let message = SendBody { to: "bob".into(), message: "x".into(), ..SendBody::default() };
        let error = client.send(&message).await.expect_err("cut off");
        assert!(matches!(error, Error::Unanswered(_)) && !error.is_certainly_not_taken());
    });
    assert!(requests[0].starts_with("POST /v1/send HTTP/1.1\r\n"), "{requests:?}");
}

#[test]
fn a_problem_keeps_its_code_and_its_members() {
    let body = r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"name one","error":"mesh_required","attached":["demo"]}"#;
    against(&answer("400 Bad Request", body), |client| async move {
        let Err(Error::Problem(problem)) = client.peers(None).await else { panic!("a problem") };
        assert_eq!(problem.error, "mesh_required");
        assert_eq!((problem.status, problem.detail.as_str()), (400, "name one"));
        assert_eq!(Value::Object(problem.extra), json!({ "attached": ["demo"] }));
    });
    against(&answer("503 Service Unavailable", ""), |client| async move {
        let Err(Error::Problem(problem)) = client.events(&[], None).await else {
            panic!("a problem")
        };
        assert_eq!(problem.detail, "the daemon answered with HTTP status 503");
    });
}

#[test]
fn whatever_a_caller_names_is_encoded() {
    let page = answer("200 OK", r#"{"items":[],"next_cursor":null,"marked_seen":0}"#);
    let requests = against(&page, |client| async move {
        let query = InboxQuery {
            topic: Some("#a&b=c d".into()),
            unread_only: true,
            limit: Some(3),
            ..InboxQuery::default()
        };
        let page = client.inbox(&query).await.expect("a page");
        assert!(page.items.is_empty());
        // The answer is no message; what was asked for is the point.
        client.message("a/b?c✔").await.expect_err("not a status");
    });
    let line = |nth: usize| requests[nth].lines().next().expect("a request line").to_owned();
    assert_eq!(line(0), "GET /v1/inbox?topic=%23a%26b%3Dc%20d&unread_only=true&limit=3 HTTP/1.1");
    assert_eq!(line(1), "GET /v1/messages/a%2Fb%3Fc%E2%9C%94 HTTP/1.1");
}

#[test]
fn events_come_until_the_daemon_ends_the_stream() {
    let stream = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 46\r\n\r\n\
                  : connected\n\nid: e-1\nevent: message\ndata: {}\n\n";
    let requests = against(stream, |client| async move {
        let types = ["message".to_owned(), "outbox".to_owned()];
        let mut events = client.events(&types, Some("e-0")).await.expect("opened");
        let event = events.next().await.expect("alive").expect("an event");
        assert_eq!((event.id.as_deref(), event.data.as_str()), (Some("e-1"), "{}"));
        assert_eq!(events.next().await.expect("alive"), None);
    });
    assert!(requests[0].starts_with("GET /v1/events?types=message%2Coutbox HTTP/1.1\r\n"));
    assert!(requests[0].contains("last-event-id: e-0\r\n"));
}
