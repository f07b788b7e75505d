//! The local API as its callers get it: what each route answers, and every documented error.
//!
//! Each answer comes from real processes. A code that no test reaches is in [`NOT_REACHED`] with
//! the reason; a code that is not in `specs/ipc.md` fails.

use crate::support::rig::{
    self, Daemon, Home, Mesh, Relay, Response, eventually, exchange, get, post,
};
use crate::support::snap::{Page, pin};
use crate::support::stream::Stream;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

const SUBJECT: &str = "ipc";
const IPC: &str = include_str!("../../specs/ipc.md");
/// A valid key that no member has (the owner of the examples' mesh).
const NOBODY: &str = "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c";

/// Documented codes that nothing here reaches, and why.
const NOT_REACHED: &[(&str, &str)] = &[
    ("internal", "needs a defect"),
    ("broker_unreachable", "passthrough routes are not served yet"),
    ("store_damaged", "needs a damaged disk: see the tests of db"),
    ("insufficient_storage", "needs a full disk: see the tests of db"),
    ("bad_request", "what tide alone would refuse: the table of routes refuses it before"),
];

/// An answer, and what was asked.
type Case = (String, Response);

#[test]
fn what_each_route_answers() {
    let mesh = Mesh::new();
    let (alice, mut bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    bob.wait_for_link("open");
    eventually("bob online", || {
        let peers = alice.get("/v1/peers").json();
        let is_here = |peer: &&Value| peer["displayName"] == "bob" && peer["online"] != false;
        peers["peers"].as_array()?.iter().find(is_here).map(drop)
    });
    pin!(SUBJECT, "version", &alice.get("/v1/version"));
    pin!(SUBJECT, "peers", &alice.get("/v1/peers?mesh=demo"));
    pin!(SUBJECT, "inbox-empty", &bob.get("/v1/inbox"));
    pin!(SUBJECT, "outbox-empty", &alice.get("/v1/outbox"));

    for (id, body) in [("m1", "hola, mesh ✔"), ("m2", "adiós")] {
        let meta = json!({ "ticket": 42 });
        let sent = json!({ "to": "bob", "message": body, "client_message_id": id, "meta": meta });
        assert_eq!(alice.send(&sent).status(), 202);
        alice.wait_for_status(id, "done");
        eventually("the message", || bob.inbox().iter().find(|m| m["body"] == body).map(drop));
    }
    let everybody = json!({ "to": "*", "message": "all", "client_message_id": "m3" });
    pin!(SUBJECT, "send-to-everybody", &alice.send(&everybody));
    alice.wait_for_status("m3", "done");
    eventually("the message", || (bob.inbox().len() == 3).then_some(()));
    pin!(SUBJECT, "health", &alice.get("/v1/health"));
    alice.wait_for_receipt("m1");
    pin!(SUBJECT, "messages-done", &alice.get("/v1/messages/m1"));
    pin!(SUBJECT, "inbox", &bob.get("/v1/inbox"));
    pin!(SUBJECT, "inbox-page", &bob.get("/v1/inbox?mesh=demo&unread_only=true&limit=1"));
    pin!(SUBJECT, "inbox-last-page", &last_page(&bob));
    pin!(SUBJECT, "inbox-mark-seen", &bob.get("/v1/inbox?limit=1&mark_seen=true"));
    pin!(SUBJECT, "inbox-unread", &bob.get("/v1/inbox?unread_only=true&limit=1"));

    let dead = json!({ "to": NOBODY, "message": "nobody", "client_message_id": "m4" });
    assert_eq!(alice.send(&dead).status(), 202);
    alice.wait_for_status("m4", "dead");
    pin!(SUBJECT, "messages-dead", &alice.get("/v1/messages/m4"));
    pin!(SUBJECT, "outbox-dead", &alice.get("/v1/outbox?status=dead&mesh=demo&limit=1"));
    pin!(SUBJECT, "outbox-page", &alice.get("/v1/outbox?limit=1"));
    assert_eq!(alice.get("/v1/outbox?mesh=work").json()["items"], json!([]));
    let requeue = json!({
        "id": row_id(&alice, "m4"),
        "new_client_message_id": "m5",
        "payload": "nobody, again",
        "aborted_by": "alice",
    });
    pin!(SUBJECT, "requeue", &alice.post("/v1/outbox/requeue", &[], &requeue));
    pin!(SUBJECT, "messages-aborted", &alice.get("/v1/messages/m4"));
    pin!(SUBJECT, "outbox-aborted", &alice.get("/v1/outbox?status=aborted"));
    operator_verbs(&alice);
    clearing(&bob);
    bob.process.kill();
}

/// One row and its chain, abort and prune: alice has a dead row m5, requeued from m4.
fn operator_verbs(alice: &Daemon) {
    alice.wait_for_status("m5", "dead");
    let row = |id: &str| row_id(alice, id).as_str().expect("an id").to_owned();
    let abort = json!({ "id": row("m5"), "aborted_by": "alice" });
    pin!(SUBJECT, "abort", &alice.post("/v1/outbox/abort", &[], &abort));
    pin!(SUBJECT, "outbox-row", &alice.get(&format!("/v1/outbox/{}", row("m4"))));
    let then = alice.get("/v1/messages/m4").json()["enqueued_at"].clone();
    let prune = |confirm: bool| {
        let body = json!({ "before": then, "confirm": confirm });
        alice.post("/v1/outbox/prune", &[], &body)
    };
    pin!(SUBJECT, "prune-counts", &prune(false));
    assert_eq!(row_of(alice, "m1")["payload_bytes"], 14);
    pin!(SUBJECT, "prune", &prune(true));
    assert_eq!(prune(false).json()["rows"], 0);
    pin!(SUBJECT, "outbox-row-shrunk", &alice.get(&format!("/v1/outbox/{}", row("m1"))));
    let again = json!({ "to": "bob", "message": "hola, mesh ✔", "client_message_id": "m1",
                        "meta": { "ticket": 42 } });
    assert_eq!(alice.send(&again).json()["status"], "done", "and is still known");
}

/// Bob has m1, m2 and m3.
fn clearing(bob: &Daemon) {
    let delete = |target: &str| {
        bob.try_request(&raw(&format!("DELETE {target}"), &["Host: localhost"])).expect("answers")
    };
    let newest = bob.inbox()[0].clone();
    let id = newest["id"].as_str().expect("an id");
    pin!(SUBJECT, "inbox-remove", &delete(&format!("/v1/inbox/{id}")));
    assert_eq!(delete(&format!("/v1/inbox/{id}")).status(), 404);
    let none = delete("/v1/inbox?mesh=demo&before=2024-11-01T00:00:00.000Z").json();
    assert_eq!(none, json!({ "removed": 0 }));
    assert_eq!(bob.inbox().len(), 2);
    pin!(SUBJECT, "inbox-clear", &delete("/v1/inbox"));
    assert!(bob.inbox().is_empty());
}

fn last_page(daemon: &Daemon) -> Response {
    let first = daemon.get("/v1/inbox?limit=2").json();
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    daemon.get(&format!("/v1/inbox?limit=2&cursor={cursor}"))
}

fn row_id(daemon: &Daemon, client_message_id: &str) -> Value {
    row_of(daemon, client_message_id)["id"].clone()
}

fn row_of(daemon: &Daemon, client_message_id: &str) -> Value {
    let rows = daemon.get("/v1/outbox?limit=500").json();
    let rows = rows["items"].as_array().expect("rows").clone();
    let row = rows.into_iter().find(|row| row["client_message_id"] == client_message_id);
    row.expect("a row")
}

#[test]
fn a_daemon_that_cannot_reach_its_broker_says_what_it_knows() {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    relay.set_closed(true);
    let alice = Daemon::start(&mesh.alice);
    // The link dials again and again: only an answer that says so is the one to pin.
    let waiting = alice.get_once("/v1/peers", "a link that waits", |peers| {
        peers["meshes"][0]["link"] == "waiting"
    });
    pin!(SUBJECT, "peers-unknown", &waiting);
    let to_key = json!({ "to": NOBODY, "message": "hola", "client_message_id": "m" });
    assert_eq!(alice.send(&to_key).status(), 202, "a key needs no roster");
    pin!(SUBJECT, "messages-pending", &alice.get("/v1/messages/m"));
    relay.set_closed(false);
    alice.wait_for_peer("bob");
    relay.set_closed(true);
    alice.get_once("/v1/peers", "a roster of before", |peers| {
        peers["meshes"][0]["roster"] == "cached"
    });
}

#[test]
fn every_documented_error_is_pinned_or_listed_as_out_of_reach() {
    let cases = [
        guards(),
        bodies(),
        queries_and_routes(),
        rows(),
        destinations(),
        no_roster(),
        refused_mesh(),
        limits(),
        connections(),
    ];
    let mut by_code: BTreeMap<(u16, String), String> = BTreeMap::new();
    for (title, response) in cases.iter().flatten() {
        let body = response.json();
        let code = body["error"].as_str().unwrap_or_else(|| panic!("{title}: {response:?}"));
        let page = by_code.entry((response.status(), code.to_owned())).or_default();
        let _ = writeln!(page, "# {title}\n{}\n", response.text());
    }
    for ((status, code), page) in &by_code {
        pin!(SUBJECT, format!("{status}-{code}"), page.trim_end());
    }
    let documented = documented();
    let not_reached: BTreeSet<&str> = NOT_REACHED.iter().map(|(code, _)| *code).collect();
    for (status, code) in by_code.keys() {
        assert!(
            documented.contains(&(*status, code.clone())),
            "{status} {code} is not in the table of specs/ipc.md"
        );
        assert!(!not_reached.contains(code.as_str()), "{code} is reached: take it off the list");
    }
    // What a send is told about its id is pinned by tests/it/accept.rs.
    let elsewhere = ["idempotency_key_conflict", "idempotency_key_reused"];
    for (status, code) in &documented {
        let is_pinned = by_code.contains_key(&(*status, code.clone()))
            || not_reached.contains(code.as_str())
            || elsewhere.contains(&code.as_str());
        assert!(is_pinned, "{status} {code} of specs/ipc.md is neither reached nor listed");
    }
}

/// The table of errors in `specs/ipc.md`: status and code.
fn documented() -> BTreeSet<(u16, String)> {
    let section = IPC.split("\n### Errors\n").nth(1).expect("a section");
    let table = section.split("One literal answer").next().expect("a table");
    let mut documented = BTreeSet::new();
    for line in table.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let [status, codes, _] = cells[..]
            && let Ok(status) = status.parse()
        {
            documented.extend(codes.split('`').skip(1).step_by(2).map(|c| (status, c.to_owned())));
        }
    }
    assert!(documented.len() > 40, "the table was read: {documented:?}");
    documented
}

/// A request as raw text: the line, then headers, and `connection: close`.
fn raw(line: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{line} HTTP/1.1\r\n{headers}connection: close\r\n\r\n")
}

/// §3.1, over both transports.
fn guards() -> Vec<Case> {
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
fn bodies() -> Vec<Case> {
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

fn queries_and_routes() -> Vec<Case> {
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
fn rows() -> Vec<Case> {
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

fn destinations() -> Vec<Case> {
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

fn no_roster() -> Vec<Case> {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    relay.set_closed(true);
    let alice = Daemon::start(&mesh.alice);
    let answer = alice.send(&json!({ "to": "bob", "message": "x" }));
    vec![("a name, and no roster was ever fetched".to_owned(), answer)]
}

fn refused_mesh() -> Vec<Case> {
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
fn limits() -> Vec<Case> {
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

fn connections() -> Vec<Case> {
    let home = Home::with_config("[ipc]\nconnections_max = 2\n");
    let alice = Daemon::start(&home);
    let _held = [(), ()].map(|()| Stream::open(alice.socket(), &[]));
    let answer = eventually("both connections to be counted", || {
        alice.try_request(&get("/v1/version")).ok().filter(|answer| answer.status() == 503)
    });
    vec![("one connection too many".to_owned(), answer)]
}

#[test]
fn a_stream_begins_at_once_and_tells_what_happens() {
    let mesh = Mesh::new();
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    bob.wait_for_link("open");
    let mut received = Stream::open(bob.socket(), &[]);
    let mut sent = Stream::open(alice.socket(), &[]);
    let mut only_messages = Stream::open_at(alice.socket(), "/v1/events?types=message", &[]);
    pin!(SUBJECT, "events-head", &received.head);
    // Before anything happened.
    assert_eq!(received.next_block(), ": connected");
    assert_eq!(sent.next_block(), ": connected");
    assert_eq!(only_messages.next_block(), ": connected");

    let to_bob = json!({ "to": "bob", "message": "hola", "client_message_id": "m1" });
    assert_eq!(alice.send(&to_bob).status(), 202);
    let message = received.next_of("message");
    let (epoch, seq) = message.id.as_deref().and_then(|id| id.rsplit_once('-')).expect("an id");
    assert!(!epoch.is_empty() && seq.parse::<i64>().is_ok(), "{message:?}");
    pin!(SUBJECT, "events-message", &message.render());
    let states: Vec<String> = [("pending", 0), ("inflight", 0), ("done", 0), ("done", 1)]
        .iter()
        .map(|(status, stored)| {
            let event = sent.next_of("outbox");
            assert_eq!(event.json()["status"], *status);
            assert_eq!(event.json()["receipt"]["stored"].as_u64().unwrap_or_default(), *stored);
            assert_eq!(event.id, None, "only messages have a place");
            event.render()
        })
        .collect();
    pin!(SUBJECT, "events-outbox", &states.join("\n"));

    // Alice sent, so she has outbox events; the filtered stream shows what arrives alone.
    let to_alice = json!({ "to": "alice", "message": "adiós", "client_message_id": "m2" });
    eventually("bob to know alice", || (bob.send(&to_alice).status() == 202).then_some(()));
    assert_eq!(only_messages.next_event().kind, "message");
}

#[test]
fn a_link_that_goes_down_and_up_is_told() {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link("open");
    let mut events = Stream::open_at(alice.socket(), "/v1/events?types=broker_status", &[]);
    assert_eq!(events.next_block(), ": connected");
    relay.cut();
    let mut pages = Vec::new();
    let mut seen = BTreeSet::new();
    loop {
        let event = events.next_of("broker_status");
        let state = event.json()["state"].as_str().expect("a state").to_owned();
        if seen.insert(state.clone()) {
            pages.push((state.clone(), event.render()));
        }
        if state == "open" {
            break;
        }
    }
    for (state, page) in pages.iter().filter(|(state, _)| state == "open" || state == "waiting") {
        pin!(SUBJECT, format!("events-broker-{state}"), page);
    }
}

#[test]
fn a_listener_that_comes_back_gets_what_it_missed_once_and_in_order() {
    let mesh = Mesh::new();
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    bob.wait_for_link("open");
    let send = |number: usize| {
        let body = json!({
            "to": "bob", "message": number.to_string(), "client_message_id": format!("m{number}"),
        });
        assert_eq!(alice.send(&body).status(), 202);
    };
    let arrived = |count: usize| {
        eventually("the messages", || (bob.inbox().len() == count).then_some(()));
    };
    let mut first = Stream::open_at(bob.socket(), "/v1/events?types=message", &[]);
    assert_eq!(first.next_block(), ": connected");
    send(0);
    let seen = first.next_of("message");
    drop(first);
    for number in 1..10 {
        send(number);
    }
    arrived(10);
    let id = seen.id.expect("an id");
    let last = format!("Last-Event-ID: {id}");
    let mut second = Stream::open_at(bob.socket(), "/v1/events?types=message", &[&last]);
    // While it catches up, more arrives.
    for number in 10..20 {
        send(number);
    }
    arrived(20);
    let stored: Vec<String> = bob
        .inbox()
        .iter()
        .rev()
        .skip(1)
        .map(|message| message["body"].as_str().expect("a body").to_owned())
        .collect();
    let mut told = Vec::new();
    let mut places = vec![place(&id)];
    while told.len() < stored.len() {
        let event = second.next_of("message");
        places.push(place(event.id.as_deref().expect("an id")));
        told.push(event.json()["body"].as_str().expect("a body").to_owned());
    }
    assert_eq!(told, stored, "every message, once, in the order it was stored");
    assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");

    // Nothing is told twice after the seam either.
    send(20);
    assert_eq!(second.next_event().json()["body"], "20");
    let foreign = "Last-Event-ID: 00000000-1";
    let mut third = Stream::open(bob.socket(), &[foreign]);
    assert_eq!(third.next_block(), ": connected");
    let lagged = third.next_of("lagged").render();
    let epoch = id.rsplit_once('-').map(|(epoch, _)| epoch.to_owned()).expect("an id");
    pin!(SUBJECT, "events-lagged", &lagged.replace(&epoch, "<epoch>"));
    // Another database's id says nothing about this one, so all of it follows.
    assert_eq!(third.next_of("message").id.as_deref().map(place), Some(1));

    // A message that was deleted takes nothing from the id that its listener has.
    let newest = bob.inbox()[0].clone();
    let path = format!("/v1/inbox/{}", newest["id"].as_str().expect("an id"));
    let delete = rig::get(&path).replacen("GET", "DELETE", 1);
    assert_eq!(bob.try_request(&delete).expect("answers").status(), 200);
    let last = format!("Last-Event-ID: {epoch}-{}", stored.len() + 2);
    let mut after = Stream::open(bob.socket(), &[&last]);
    assert_eq!(after.next_block(), ": connected");
    send(21);
    assert_eq!(after.next_event().json()["body"], "21");

    // Nor does one that is ahead of this one, as after an older copy was put back.
    let ahead = format!("Last-Event-ID: {epoch}-500");
    let mut fourth = Stream::open(bob.socket(), &[&ahead]);
    assert_eq!(fourth.next_of("lagged").json()["reason"], "unknown_epoch");
    assert_eq!(fourth.next_of("message").id.as_deref().map(place), Some(1));
}

fn place(id: &str) -> i64 {
    id.rsplit_once('-').and_then(|(_, seq)| seq.parse().ok()).expect("a place")
}

#[test]
fn health_over_tcp_needs_no_token_only_where_that_was_asked_for() {
    let home = Home::with_config("[ipc]\nhttp_port = 0\n");
    let _alice = Daemon::start_with(&home, &["--tcp", "--public-health"]);
    let port = home.http_port();
    let ask = |path: &str| {
        exchange(TcpStream::connect(("127.0.0.1", port)).expect("connects"), &get(path)).status()
    };
    assert_eq!((ask("/v1/health"), ask("/v1/version")), (200, 401));
}
