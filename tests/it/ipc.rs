//! The local API as its callers get it: what each route answers, and every documented error.
//!
//! Each answer comes from real processes. A code that no test reaches is in [`NOT_REACHED`] with
//! the reason; a code that is not in `specs/ipc.md` fails.

mod errors;
mod streams;

use crate::support::rig::{Daemon, Home, Mesh, Relay, Response, eventually, exchange, get};
use crate::support::snap::{Page, pin};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::TcpStream;

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
        errors::guards(),
        errors::bodies(),
        errors::queries_and_routes(),
        errors::rows(),
        errors::destinations(),
        errors::no_roster(),
        errors::refused_mesh(),
        errors::limits(),
        errors::connections(),
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
