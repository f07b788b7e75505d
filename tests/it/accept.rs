//! Every answer of §4.5.1 as callers get it, and the table of `specs/delivery.md` held against it.
//!
//! Each state is reached by what happens to real processes: nothing is written to a database.

use crate::support::rig::{Daemon, Mesh, Relay, Response, eventually, post};
use crate::support::snap::{is_minted_id, pin};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

const SUBJECT: &str = "accept";
const DELIVERY: &str = include_str!("../../specs/delivery.md");
/// A valid key that no member has (the owner of the examples' mesh).
const NOBODY: &str = "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c";

/// A row's state and the request's fingerprint, as the table names them.
type Outcome = (String, String);

fn request(to: &str, id: &str, message: &str) -> Value {
    json!({ "to": to, "message": message, "client_message_id": id })
}

/// A mesh whose alice reaches her broker through a relay.
fn relayed() -> (Mesh, Relay) {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    (mesh, relay)
}

/// What a caller is told in every state, for the same request and for another.
static ANSWERS: LazyLock<BTreeMap<Outcome, Response>> = LazyLock::new(|| {
    let (mesh, relay) = relayed();
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    let mut answers = BTreeMap::new();
    let mut ask = |state: &str, to: &str| {
        for (fingerprint, message) in [("same", "hola, mesh ✔"), ("other", "adiós")] {
            let answer = alice.send(&request(to, state, message));
            answers.insert((state.to_owned(), fingerprint.to_owned()), answer);
        }
    };

    let none = alice.send(&request("bob", "done", "hola, mesh ✔"));
    alice.wait_for_status("done", "done");
    ask("done", "bob");

    for id in ["dead", "aborted"] {
        assert_eq!(alice.send(&request(NOBODY, id, "hola, mesh ✔")).status(), 202);
        alice.wait_for_status(id, "dead");
    }
    ask("dead", NOBODY);

    let dead = alice.get("/v1/outbox?status=dead").json();
    let is_ours = |row: &&Value| row["client_message_id"] == "aborted";
    let row = dead["items"].as_array().expect("rows").iter().find(is_ours).expect("is dead");
    let requeued = alice.post("/v1/outbox/requeue", &[], &json!({ "id": row["id"] }));
    assert_eq!(requeued.status(), 200, "{requeued:?}");
    ask("aborted", NOBODY);

    // The broker hears nothing from now on, so it never answers.
    relay.set_deaf(true);
    assert_eq!(alice.send(&request("bob", "inflight", "hola, mesh ✔")).status(), 202);
    alice.wait_for_status("inflight", "inflight");
    ask("inflight", "bob");

    relay.set_closed(true);
    eventually("the link to be down", || {
        (alice.get("/v1/health").json()["meshes"][0]["link"] != "open").then_some(())
    });
    assert_eq!(alice.send(&request("bob", "pending", "hola, mesh ✔")).status(), 202);
    ask("pending", "bob");
    assert_eq!(alice.status("pending"), "pending");

    answers.insert(("none".to_owned(), "—".to_owned()), none);
    answers
});

#[test]
fn every_answer_of_the_table_is_pinned_whole() {
    for ((state, fingerprint), answer) in &*ANSWERS {
        let case = if fingerprint == "—" { "new" } else { fingerprint.as_str() };
        pin!(SUBJECT, format!("{state}-{case}"), answer);
    }
}

/// One row of the table in `specs/delivery.md`.
struct Promise {
    outcome: Outcome,
    /// The status code.
    status: u16,
    /// The word after `status:`, of a success.
    word: Option<&'static str>,
    /// The name of the conflict.
    conflict: Option<&'static str>,
    /// Members the answer has.
    members: BTreeSet<&'static str>,
}

fn table() -> Vec<Promise> {
    let section = DELIVERY.split("\n## ").find(|section| section.starts_with("4.5.1 Accept"));
    let section = section.expect("specs/delivery.md has a section 4.5.1 Accept");
    let mut lines = section.lines().filter(|line| line.starts_with('|'));
    assert_eq!(lines.next(), Some("| row | fingerprint | answer |"));
    lines.skip(1).map(promise).collect()
}

fn promise(line: &'static str) -> Promise {
    let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
    let [state, fingerprint, answer] = cells[..] else { panic!("three cells: {line}") };
    let code: String = answer.chars().skip_while(|c| !c.is_ascii_digit()).take(3).collect();
    let word = answer.split("status:\"").nth(1).and_then(|rest| rest.split('"').next());
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let mut members = BTreeSet::new();
    for span in answer.split('`').skip(1).step_by(2) {
        // What stands between quotes is a value.
        for text in span.split('"').step_by(2) {
            let names = text.split(|c| !is_name(c)).filter(|name| {
                name.contains('_') || text.contains(&format!("{name}:")) && !name.is_empty()
            });
            members.extend(names.filter(|name| !name.starts_with("outbox_")));
        }
    }
    Promise {
        outcome: (state.to_owned(), fingerprint.to_owned()),
        status: code.parse().unwrap_or_else(|_| panic!("a status code: {line}")),
        word,
        conflict: answer.split(|c| !is_name(c)).find(|word| word.starts_with("outbox_")),
        members,
    }
}

#[test]
fn the_document_and_the_code_say_the_same() {
    let table = table();
    assert_eq!(table.len(), 11, "the table has eleven rows");
    for promise in &table {
        let outcome = &promise.outcome;
        let answer = ANSWERS.get(outcome).unwrap_or_else(|| {
            panic!("specs/delivery.md promises an answer for {outcome:?}, and nothing tests it")
        });
        let body = answer.json();
        assert_eq!(answer.status(), promise.status, "{outcome:?}: {answer:?}");
        assert_eq!(body["conflict"].as_str(), promise.conflict, "{outcome:?}: {answer:?}");
        if promise.status < 300 {
            assert_eq!(body["status"].as_str(), promise.word, "{outcome:?}: {answer:?}");
        }
        for member in &promise.members {
            assert!(!body[member].is_null(), "{outcome:?}: `{member}` is promised: {answer:?}");
        }
    }
    let promised: BTreeSet<&Outcome> = table.iter().map(|promise| &promise.outcome).collect();
    let tested: BTreeSet<&Outcome> = ANSWERS.keys().collect();
    assert_eq!(promised, tested, "specs/delivery.md and this test name the same outcomes");
}

#[test]
fn every_conflict_names_itself_the_fingerprint_and_the_ids() {
    let section = DELIVERY.split("Every 409: `{").nth(1).expect("the sentence");
    let promised = section.split('}').next().expect("the members");
    let promised: Vec<&str> =
        promised.split(", ").filter_map(|member| member.split(':').next()).collect();
    assert_eq!(promised.len(), 5, "{promised:?}");
    for (outcome, answer) in ANSWERS.iter().filter(|(_, answer)| answer.status() == 409) {
        let body = answer.json();
        assert_eq!(body["error"], "idempotency_key_reused", "{outcome:?}");
        for member in &promised {
            assert!(body.get(member).is_some(), "{outcome:?} lacks `{member}`: {answer:?}");
        }
    }
}

/// Alice alone, whose rows stay pending: her broker is gone, and she knows bob.
fn alice_offline() -> (Mesh, Daemon) {
    let (mesh, relay) = relayed();
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    relay.set_closed(true);
    eventually("the link to be down", || {
        (alice.get("/v1/health").json()["meshes"][0]["link"] != "open").then_some(())
    });
    (mesh, alice)
}

#[test]
fn what_makes_a_request_another_request() {
    let (_mesh, alice) = alice_offline();
    let first = json!({
        "to": "bob",
        "message": "hola",
        "client_message_id": "m",
        "meta": { "a": 1, "b": { "c": [true, null], "d": "x" } },
    });
    assert_eq!(alice.send(&first).status(), 202);
    let with = |name: &str, value: Value| {
        let mut request = first.clone();
        request[name] = value;
        alice.send(&request)
    };
    pin!(SUBJECT, "fingerprint-other-to", &with("to", json!("alice")));
    pin!(SUBJECT, "fingerprint-other-priority", &with("priority", json!("now")));
    pin!(SUBJECT, "fingerprint-other-body", &with("message", json!("hola.")));
    pin!(SUBJECT, "fingerprint-other-reply", &with("reply_to_id", json!("m0")));
    pin!(SUBJECT, "fingerprint-meta-value", &with("meta", json!({ "a": 2 })));
    // Said as text: a JSON library would put the members in order.
    let reordered = r#"{"meta":{"b":{"d":"x","c":[true,null]},"a":1.0},"client_message_id":"m",
        "message":"hola","to":"bob","priority":"next"}"#;
    let same = alice.try_request(&post("/v1/send", &[], reordered)).expect("answers");
    pin!(SUBJECT, "fingerprint-meta-reordered", &same);
    // Naming the row's own mesh changes nothing; naming another is another request.
    pin!(SUBJECT, "fingerprint-same-mesh", &with("mesh", json!("demo")));
    pin!(SUBJECT, "fingerprint-other-mesh", &with("mesh", json!("work")));
}

#[test]
fn an_id_comes_in_the_body_in_the_header_or_from_the_daemon() {
    let (_mesh, alice) = alice_offline();
    let body = json!({ "to": "bob", "message": "hola" });
    pin!(SUBJECT, "id-minted", &alice.send(&body));
    let with_key =
        |key: &str, body: &Value| alice.post("/v1/send", &[("Idempotency-Key", key)], body);
    pin!(SUBJECT, "id-header-bare", &with_key("order-17", &body));
    pin!(SUBJECT, "id-header-quoted", &with_key("\"order-18\"", &body));
    pin!(SUBJECT, "id-header-broken-quote", &with_key("\"order-19", &body));
    pin!(SUBJECT, "id-needs-encoding", &with_key("a/b%c", &body));
    let both = request("bob", "order-20", "hola");
    pin!(SUBJECT, "id-header-and-body-agree", &with_key("order-20", &both));
    pin!(SUBJECT, "id-header-and-body-disagree", &with_key("order-21", &both));
    let twice = [("Idempotency-Key", "order-22"), ("Idempotency-Key", "order-22")];
    pin!(SUBJECT, "id-header-twice", &alice.post("/v1/send", &twice, &body));
}

#[test]
fn a_minted_id_is_a_new_one_each_time() {
    let (_mesh, alice) = alice_offline();
    let body = json!({ "to": "bob", "message": "hola", "client_message_id": "" });
    let mint = || alice.send(&body).json()["client_message_id"].as_str().map(str::to_owned);
    let (first, second) = (mint().expect("an id"), mint().expect("an id"));
    assert_ne!(first, second);
    assert!(is_minted_id(&first), "{first}");
    assert!(first < second, "minted ids are time-ordered: {first} {second}");
}
