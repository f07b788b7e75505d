//! How each documented error is provoked.

use super::{Case, NOBODY, SUBJECT, raw, row_id};
use crate::support::rig::{Daemon, Home, Mesh, Relay, Response, eventually, exchange, get, post};
use crate::support::snap::pin;
use crate::support::stream::Stream;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// §3.1, over both transports.
pub fn guards() -> Vec<Case> {
    let home = Home::with_config("[ipc]\nhttp_port = 0\n");
    let alice = Daemon::start_with(&home, &["--tcp"]);
    let port = home.http_port();
    let token = std::fs::read_to_string(home.daemon_dir().join("local-token")).expect("a token");
    let bearer = format!("Authorization: Bearer {}", token.trim());
    let tcp = |request: &str| {
        exchange(TcpStream::connect(("127.0.0.1", port)).expect("connects"), request)
    };
    let unix = |request: &str| alice.try_request(request).expect("answers");

    let good = raw("GET /v1/health", &["Host: 127.0.0.1", &bearer]);
    assert_eq!(tcp(&good).status(), 200, "the right token opens the door");
    let older = raw("GET /v1/health", &["Host: localhost", "Authorization: ClaudeMesh-Session x"]);
    assert_eq!(unix(&older).status(), 200, "older clients' header is ignored on the socket");

    let with_token = raw("GET /v1/health?token=abc", &["Host: localhost"]);
    let two_hosts = raw("GET /v1/health", &["Host: localhost", "Host: localhost"]);
    let absolute = raw("GET http://example.com/v1/health", &["Host: localhost"]);
    let rebound = raw("GET /v1/health", &["Host: example.com"]);
    let from_page = raw("GET /v1/peers", &["Host: localhost", "Origin: https://example.com"]);
    let fetched = raw("GET /v1/peers", &["Host: localhost", "Sec-Fetch-Site: same-origin"]);
    let preflight = raw("OPTIONS /v1/send", &["Host: localhost"]);
    let form = "POST /v1/send HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-type: application/x-www-form-urlencoded\r\ncontent-length: 2\r\n\r\n{}";
    let no_ascii = raw("GET /v1/health", &["Host: localhost", "X-Name: José"]);
    let bare = raw("GET /v1/peers", &["Host: 127.0.0.1"]);
    let basic = raw("GET /v1/peers", &["Host: 127.0.0.1", "Authorization: Basic eDp5"]);
    let wrong = raw("GET /v1/peers", &["Host: 127.0.0.1", "Authorization: Bearer wrong"]);
    // The order of the checks is part of the contract: a page learns nothing about tokens.
    let page_without_token = raw("GET /v1/peers", &["Host: 127.0.0.1", "Origin: null"]);
    vec![
        ("a token in the query".to_owned(), unix(&with_token)),
        ("two Host headers".to_owned(), unix(&two_hosts)),
        ("a target that names another host".to_owned(), unix(&absolute)),
        ("another Host".to_owned(), unix(&rebound)),
        ("an Origin".to_owned(), unix(&from_page)),
        ("Sec-Fetch-Site other than none".to_owned(), unix(&fetched)),
        ("TCP: an Origin and no token".to_owned(), tcp(&page_without_token)),
        ("OPTIONS".to_owned(), unix(&preflight)),
        ("a form".to_owned(), unix(form)),
        ("a header that is not ASCII".to_owned(), unix(&no_ascii)),
        ("TCP: no token".to_owned(), tcp(&bare)),
        ("TCP: another scheme".to_owned(), tcp(&basic)),
        ("TCP: a wrong token".to_owned(), tcp(&wrong)),
    ]
}

/// Bodies of `POST /v1/send` and `POST /v1/outbox/requeue`.
pub fn bodies() -> Vec<Case> {
    let mesh = Mesh::new();
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    let long_id = "x".repeat(256);
    let names = vec!["a"; 17];
    let mut sends: Vec<String> = [
        "",
        r#"{"to":"bob""#,
        "[]",
        r#""bob""#,
        r#"{"to":"bob","to":"bob","message":"x"}"#,
        r#"{"message":"x"}"#,
        r#"{"to":null,"message":"x"}"#,
        r#"{"to":7,"message":"x"}"#,
        r#"{"to":" ","message":"x"}"#,
        r#"{"to":"bo\u0007b","message":"x"}"#,
        r#"{"to":"@*","message":"x"}"#,
        r#"{"to":"bob"}"#,
        r#"{"to":"bob","message":7}"#,
        r#"{"to":"bob","message":""}"#,
        r#"{"to":"bob","message":"x","priority":"urgent"}"#,
        r#"{"to":"bob","message":"x","priority":1}"#,
        r#"{"to":"bob","message":"x","mesh":1}"#,
        r#"{"to":"bob","message":"x","meta":[]}"#,
        r#"{"to":"bob","message":"x","meta":{"a":1,"a":2}}"#,
        r#"{"to":"bob","message":"x","meta":{"a":{"b":[9007199254740993]}}}"#,
        r#"{"to":"bob","message":"x","meta":{"a":"\ud800"}}"#,
        r#"{"to":"bob","message":"x","mentions":"bob"}"#,
        r#"{"to":"bob","message":"x","mentions":["bob"]}"#,
        r##"{"to":"#t","message":"x","mentions":[""]}"##,
        r#"{"to":"bob","message":"x","reply_to_id":1}"#,
        r#"{"to":"bob","message":"x","reply_to_id":"a\nb"}"#,
        r#"{"to":"bob","message":"x","client_message_id":1}"#,
        r#"{"to":"bob","message":"x","client_message_id":"a b"}"#,
        r#"{"to":"bob","message":"x","client_message_id":".."}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    sends.push(json!({ "to": "bob", "message": "x", "client_message_id": long_id }).to_string());
    sends.push(json!({ "to": "#t", "message": "x", "mentions": names }).to_string());
    let requeues = [
        "{}",
        r#"{"id":1}"#,
        r#"{"id":"x","force":"yes"}"#,
        r#"{"id":"x","new_client_message_id":"a b"}"#,
        r#"{"id":"x","payload":""}"#,
        r#"{"id":"x","aborted_by":"a\u0007"}"#,
        r#"{"id":"x"}"#,
    ];
    let long_name = json!({ "id": "x", "aborted_by": "a".repeat(129) }).to_string();
    let others = [
        ("/v1/outbox/abort", "{}"),
        ("/v1/outbox/abort", r#"{"id":"x","aborted_by":" "}"#),
        ("/v1/outbox/abort", long_name.as_str()),
        ("/v1/outbox/abort", r#"{"id":"x"}"#),
        ("/v1/outbox/prune", "{}"),
        ("/v1/outbox/prune", r#"{"before":"7d"}"#),
        ("/v1/outbox/prune", r#"{"before":"2999-01-01T00:00:00.000Z"}"#),
        ("/v1/outbox/prune", r#"{"before":"2024-11-22T00:00:00.000Z","confirm":"yes"}"#),
        ("/v1/outbox/prune", r#"{"before":"2024-11-22T00:00:00.000Z","cursor":"x"}"#),
        ("/v1/inbox/seen", "{}"),
    ];
    let sends = sends.iter().map(|body| ("/v1/send", body.as_str()));
    let requeues = requeues.iter().map(|body| ("/v1/outbox/requeue", *body));
    sends
        .chain(requeues)
        .chain(others)
        .map(|(path, body)| {
            let answer = alice.try_request(&post(path, &[], body)).expect("answers");
            let shown = if body.len() > 100 { &body[..60] } else { body };
            (format!("POST {path} {shown}"), answer)
        })
        .collect()
}

pub fn queries_and_routes() -> Vec<Case> {
    let home = Home::new();
    let alice = Daemon::start(&home);
    let gets = [
        "/v1/inbox?limit=0",
        "/v1/inbox?limit=1001",
        "/v1/inbox?limit=many",
        "/v1/inbox?limit=1&limit=2",
        "/v1/inbox?since=yesterday",
        "/v1/inbox?unread_only=yes",
        "/v1/inbox?mark_seen=1",
        "/v1/inbox?cursor=x",
        "/v1/inbox?colour=red",
        "/v1/outbox?limit=501",
        "/v1/outbox?status=lost",
        "/v1/outbox?cursor=AAAA",
        "/v1/events?types=weather",
        "/v1/peers?limit=1",
        "/v1/peers?mesh=work",
        "/v1/nothing",
        "/",
        "/v1/messages/",
        "/v1/messages/nobody-sent-this",
        "/v1/messages/%20",
        "/v1/send",
    ];
    let mut cases: Vec<Case> =
        gets.iter().map(|path| (format!("GET {path}"), alice.get(path))).collect();
    for line in [
        "PUT /v1/inbox",
        "PUT /v1/outbox/requeue",
        "BREW /v1/version",
        "DELETE /v1/inbox/nobody",
        "DELETE /v1/inbox?before=yesterday",
        "DELETE /v1/inbox?topic=t",
        "DELETE /v1/inbox?mesh=",
        "DELETE /v1/inbox?mesh=demo&before=",
        "DELETE /v1/inbox/%00",
        "GET /v1/outbox/%00",
        "GET /v1/inbox/nobody",
        "GET /v1/outbox/nobody",
    ] {
        let answer = alice.try_request(&raw(line, &["Host: localhost"])).expect("answers");
        cases.push((line.to_owned(), answer));
    }
    let elsewhere = raw("GET /v1/events", &["Host: localhost", "Last-Event-ID: yesterday"]);
    let answer = alice.try_request(&elsewhere).expect("answers");
    cases.push(("GET /v1/events, Last-Event-ID: yesterday".to_owned(), answer));
    let nowhere = alice.send(&json!({ "to": "bob", "message": "x" }));
    cases.push(("a send when no mesh is attached".to_owned(), nowhere));
    let target = raw("GET *", &["Host: localhost"]);
    if let Ok(answer) = alice.try_request(&target)
        && !answer.body.is_empty()
    {
        cases.push(("GET *".to_owned(), answer));
    }
    cases
}

/// Requeueing and aborting in every state that forbids it (§4.5.3).
pub fn rows() -> Vec<Case> {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    let send = |id: &str, to: &str| {
        let sent = alice.send(&json!({ "to": to, "message": "x", "client_message_id": id }));
        assert_eq!(sent.status(), 202, "{sent:?}");
    };
    let requeue = |id: &str, more: Value| {
        let mut body = more;
        body["id"] = row_id(&alice, id);
        alice.post("/v1/outbox/requeue", &[], &body)
    };
    let abort =
        |id: &str| alice.post("/v1/outbox/abort", &[], &json!({ "id": row_id(&alice, id) }));
    let mut cases = Vec::new();
    send("done", "bob");
    alice.wait_for_status("done", "done");
    cases.push(("requeue of a done row".to_owned(), requeue("done", json!({}))));
    cases.push(("abort of a done row".to_owned(), abort("done")));
    send("dead", NOBODY);
    alice.wait_for_status("dead", "dead");
    let taken = requeue("dead", json!({ "new_client_message_id": "done" }));
    cases.push(("requeue under an id that is taken".to_owned(), taken));
    assert_eq!(alice.status("dead"), "dead", "nothing changed");
    let large = requeue("dead", json!({ "payload": "x".repeat(70_000) }));
    cases.push(("requeue with a payload too large for a frame".to_owned(), large));
    assert_eq!(alice.status("dead"), "dead", "nothing changed");
    assert_eq!(requeue("dead", json!({})).status(), 200);
    cases.push(("requeue of an aborted row".to_owned(), requeue("dead", json!({}))));
    cases.push(("abort of a requeued row".to_owned(), abort("dead")));

    relay.set_deaf(true);
    send("unanswered", "bob");
    alice.wait_for_status("unanswered", "inflight");
    cases.push(("requeue of an inflight row".to_owned(), requeue("unanswered", json!({}))));
    cases.push(("abort of an inflight row".to_owned(), abort("unanswered")));
    relay.set_closed(true);
    alice.wait_for_status("unanswered", "pending");
    let unanswered = requeue("unanswered", json!({}));
    cases.push(("requeue of a pending row with an unanswered attempt".to_owned(), unanswered));
    pin!(SUBJECT, "messages-unanswered", &alice.get("/v1/messages/unanswered"));
    let forced = json!({ "force": true, "new_client_message_id": "forced" });
    pin!(SUBJECT, "requeue-forced", &requeue("unanswered", forced));
    assert_eq!(abort("forced").status(), 200);
    cases.push(("abort of an aborted row".to_owned(), abort("forced")));
    cases
}

pub fn destinations() -> Vec<Case> {
    let mesh = Mesh::new();
    let data = mesh.broker_home.path().join("broker");
    let data = data.to_str().expect("is UTF-8");
    let invite = mesh.alice.json(&["mesh", "invite", "demo", "--data", data, "--uses", "2"]);
    let link = invite["link"].as_str().expect("a link");
    for _ in 0..2 {
        let carol = Home::new();
        carol.json(&["join", link, "--name", "carol"]);
        let daemon = Daemon::start(&carol);
        daemon.wait_for_link("open");
    }
    mesh.alice.json(&["mesh", "create", "work", "--name", "alice", "--data", data]);
    let alice = Daemon::start(&mesh.alice);
    let in_demo = |to: &str| json!({ "to": to, "message": "x", "mesh": "demo" });
    // Both must be known to have left: their connections were cut a moment ago.
    let ambiguous = eventually("two carols who left", || {
        let answer = alice.send(&in_demo("carol"));
        let candidates = answer.json()["candidates"].as_array().cloned().unwrap_or_default();
        let have_left = candidates.iter().all(|carol| carol["online"] == false);
        (candidates.len() == 2 && have_left).then_some(answer)
    });
    let large = json!({ "to": NOBODY, "message": "x".repeat(70_000), "mesh": "demo" });
    let mut elsewhere = in_demo("bob");
    elsewhere["mesh"] = json!("play");
    vec![
        ("a name of two members".to_owned(), ambiguous),
        ("a name nobody ever had".to_owned(), alice.send(&in_demo("bobb"))),
        ("a mesh that is not attached".to_owned(), alice.send(&elsewhere)),
        (
            "two meshes, and no word which".to_owned(),
            alice.send(&json!({ "to": "#t", "message": "x" })),
        ),
        ("a message too large for a frame".to_owned(), alice.send(&large)),
    ]
}

pub fn no_roster() -> Vec<Case> {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    relay.set_closed(true);
    let alice = Daemon::start(&mesh.alice);
    let answer = alice.send(&json!({ "to": "bob", "message": "x" }));
    vec![("a name, and no roster was ever fetched".to_owned(), answer)]
}

pub fn refused_mesh() -> Vec<Case> {
    let mesh = Mesh::new();
    // A daemon ends when its last mesh refuses it, so there is another.
    let data = mesh.broker_home.path().join("broker");
    let data = data.to_str().expect("is UTF-8");
    mesh.alice.json(&["mesh", "create", "work", "--name", "alice", "--data", data]);
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    let key = alice.get("/v1/version").json()["meshes"][0]["member_pubkey"].clone();
    let key = key.as_str().expect("a key");
    mesh.broker_home.json(&["member", "revoke", key, "--mesh", "demo", "--data", data]);
    alice.wait_for_link_of("work", "open");
    alice.wait_for_link_of("demo", "refused");
    pin!(SUBJECT, "health-refused", &alice.get("/v1/health"));
    let answer = alice.send(&json!({ "to": "bob", "message": "x", "mesh": "demo" }));
    vec![("a mesh whose broker revoked us".to_owned(), answer)]
}

/// §1.2, with limits small enough to reach.
pub fn limits() -> Vec<Case> {
    let config = "[ipc]\nrequests_max = 1\nstreams_max = 1\nrequest_ms = 4000\n\
                  send_body_bytes_max = 2048\n";
    let home = Home::with_config(config);
    let alice = Daemon::start(&home);
    let head = "POST /v1/send HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let large = alice.try_request(&format!("{head}content-length: 300000\r\n\r\n"));
    let mut cases = vec![("a body over the limit".to_owned(), large.expect("answers"))];

    let held = Stream::open(alice.socket(), &[]);
    let second = eventually("the stream to be counted", || {
        let answer = alice.get("/v1/events");
        (answer.status() == 429).then_some(answer)
    });
    cases.push(("one event stream too many".to_owned(), second));
    drop(held);

    let mut slow = UnixStream::connect(alice.socket()).expect("connects");
    slow.write_all(format!("{head}content-length: 10\r\n\r\n").as_bytes()).expect("writes");
    let busy = eventually("the request to be counted", || {
        let answer = alice.get("/v1/health");
        (answer.status() == 429).then_some(answer)
    });
    cases.push(("one request too many".to_owned(), busy));
    let mut late = String::new();
    slow.read_to_string(&mut late).expect("reads");
    cases.push(("a body that does not arrive".to_owned(), Response::of(&late)));
    let broken = eventually("the place of the slow request", || {
        let mut cut = UnixStream::connect(alice.socket()).expect("connects");
        let part = format!("{head}content-length: 10\r\n\r\n{{");
        cut.write_all(part.as_bytes()).expect("writes");
        cut.shutdown(Shutdown::Write).expect("shuts down");
        let mut broken = String::new();
        cut.read_to_string(&mut broken).expect("reads");
        (!broken.starts_with("HTTP/1.1 429")).then_some(broken)
    });
    if !broken.is_empty() {
        cases.push(("a body that is cut off".to_owned(), Response::of(&broken)));
    }
    cases
}

pub fn connections() -> Vec<Case> {
    let home = Home::with_config("[ipc]\nconnections_max = 2\n");
    let alice = Daemon::start(&home);
    let _held = [(), ()].map(|()| Stream::open(alice.socket(), &[]));
    let answer = eventually("both connections to be counted", || {
        alice.try_request(&get("/v1/version")).ok().filter(|answer| answer.status() == 503)
    });
    vec![("one connection too many".to_owned(), answer)]
}
