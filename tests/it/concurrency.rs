//! Many callers at once: one id is one row, whoever asks first (§4.5.1).

use crate::support::rig::{Daemon, Mesh, PATIENCE, Response, eventually, post};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Barrier;

/// Calls `call` from `count` threads that start together.
fn together<T: Send>(count: usize, call: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(count);
    std::thread::scope(|scope| {
        let start = |number| {
            let (barrier, call) = (&barrier, &call);
            scope.spawn(move || {
                barrier.wait();
                call(number)
            })
        };
        let threads: Vec<_> = (0..count).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

/// Every row of the outbox.
fn rows(daemon: &Daemon) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut path = "/v1/outbox?limit=500".to_owned();
    loop {
        let page = daemon.get(&path).json();
        rows.extend(page["items"].as_array().expect("items").clone());
        match page["next_cursor"].as_str() {
            None => return rows,
            Some(cursor) => path = format!("/v1/outbox?limit=500&cursor={cursor}"),
        }
    }
}

fn rows_of(daemon: &Daemon, id: &str) -> usize {
    rows(daemon).iter().filter(|row| row["client_message_id"] == id).count()
}

/// Answers of one accepted id agree: queued, inflight, or done with one broker id.
fn assert_agree(answers: &[Response]) {
    let mut broker_ids = BTreeSet::new();
    for answer in answers {
        let body = answer.json();
        match (answer.status(), body["status"].as_str()) {
            (202, Some("queued" | "inflight")) => {}
            (200, Some("done")) => {
                assert_eq!(body["duplicate"], true, "{body}");
                broker_ids.insert(body["broker_message_id"].as_str().expect("an id").to_owned());
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert!(broker_ids.len() <= 1, "{broker_ids:?}");
}

fn alice_and_bob() -> (Mesh, Daemon, Daemon) {
    let mesh = Mesh::new();
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    (mesh, alice, bob)
}

#[test]
fn two_hundred_identical_sends_make_one_row() {
    let (_mesh, alice, bob) = alice_and_bob();
    let body = json!({"to": "bob", "message": "once", "client_message_id": "same"});
    let answers = together(200, |_| alice.send(&body));
    assert_agree(&answers);
    alice.wait_for_status("same", "done");
    let again = alice.send(&body);
    assert_eq!(again.status(), 200);
    assert_agree(&[answers, vec![again]].concat());
    assert_eq!(rows_of(&alice, "same"), 1);
    let inbox = eventually("the message", || Some(bob.inbox()).filter(|inbox| !inbox.is_empty()));
    assert_eq!(inbox.len(), 1, "{inbox:?}");
}

#[test]
fn two_hundred_identical_sends_make_one_row_while_the_broker_is_away() {
    let (mut mesh, alice, bob) = alice_and_bob();
    mesh.broker.process.kill();
    let body = json!({"to": "bob", "message": "once", "client_message_id": "same"});
    assert_agree(&together(200, |_| alice.send(&body)));
    assert_eq!(rows_of(&alice, "same"), 1);
    mesh.restart_broker();
    alice.wait_for_status("same", "done");
    eventually("the message", || (!bob.inbox().is_empty()).then_some(()));
    assert_eq!(bob.inbox().len(), 1);
}

#[test]
fn of_two_bodies_under_one_id_one_wins_and_the_other_is_told() {
    let (_mesh, alice, bob) = alice_and_bob();
    for round in 0..10 {
        let id = format!("torn-{round}");
        let send = |number: usize| {
            let message = ["left", "right"][number % 2];
            let body = json!({"to": "bob", "message": message, "client_message_id": id});
            (message, alice.send(&body))
        };
        let answers = together(60, send);
        let (won, lost): (Vec<_>, Vec<_>) =
            answers.into_iter().partition(|(_, answer)| answer.status() < 300);
        let winners: BTreeSet<&str> = won.iter().map(|(message, _)| *message).collect();
        assert_eq!((winners.len(), won.len(), lost.len()), (1, 30, 30), "{winners:?}");
        assert_agree(&won.iter().map(|(_, answer)| answer.clone()).collect::<Vec<_>>());
        let mut prefixes = BTreeSet::new();
        for (message, answer) in &lost {
            assert!(!winners.contains(message));
            assert_eq!(answer.status(), 409, "{answer:?}");
            let body = answer.json();
            assert_eq!(body["error"], "idempotency_key_reused", "{body}");
            let conflict = body["conflict"].as_str().expect("a conflict");
            assert!(conflict.ends_with("_fingerprint_mismatch"), "{conflict}");
            prefixes.insert(body["daemon_fingerprint_prefix"].to_string());
        }
        assert_eq!(prefixes.len(), 1);
        assert_eq!(rows_of(&alice, &id), 1);
        alice.wait_for_status(&id, "done");
        let arrived = eventually("the message", || {
            let mut inbox = bob.inbox();
            inbox.retain(|message| message["client_message_id"] == id.as_str());
            (!inbox.is_empty()).then_some(inbox)
        });
        assert_eq!(arrived.len(), 1);
        assert!(winners.contains(arrived[0]["body"].as_str().expect("a body")));
    }
}

/// A connection that is kept.
struct Kept {
    stream: BufReader<UnixStream>,
}

impl Kept {
    fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream: BufReader::new(stream) }
    }

    fn send(&mut self, body: &Value) -> (u16, Value) {
        let request = post("/v1/send", &[], &body.to_string());
        let request = request.replace("connection: close\r\n", "");
        self.stream.get_mut().write_all(request.as_bytes()).expect("writes");
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).expect("reads");
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().expect("a status");
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("reads");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }
}

#[test]
fn what_sixty_four_senders_send_arrives_once_each() {
    const SENDERS: usize = 64;
    const EACH: usize = 200;
    let (_mesh, alice, bob) = alice_and_bob();
    let started = std::time::Instant::now();
    together(SENDERS, |sender| {
        let mut kept = Kept::open(alice.socket());
        for number in 0..EACH {
            let id = format!("s{sender}-{number}");
            let body = json!({"to": "bob", "message": format!("of {id}"), "client_message_id": id});
            // Half of them on connections of their own.
            let status =
                if sender % 2 == 0 { kept.send(&body).0 } else { alice.send(&body).status() };
            assert_eq!(status, 202, "{id}");
        }
    });
    println!("{} accepts in {:?}", SENDERS * EACH, started.elapsed());
    eventually("an empty outbox", || {
        let outbox = &alice.get("/v1/health").json()["outbox"];
        (outbox["done"] == SENDERS * EACH).then_some(())
    });
    let mut arrived = BTreeMap::new();
    let inbox = eventually("every message", || {
        Some(bob.inbox()).filter(|inbox| inbox.len() >= SENDERS * EACH)
    });
    println!("all there after {:?}", started.elapsed());
    for message in &inbox {
        let id = message["client_message_id"].as_str().expect("an id").to_owned();
        assert_eq!(message["body"], format!("of {id}"));
        let broker_id = message["broker_message_id"].clone();
        assert!(arrived.insert(id.clone(), broker_id).is_none(), "{id} arrived twice");
    }
    let rows = rows(&alice);
    assert_eq!((rows.len(), arrived.len()), (SENDERS * EACH, SENDERS * EACH));
    for row in rows {
        let id = row["client_message_id"].as_str().expect("an id");
        assert_eq!(row["status"], "done", "{row}");
        assert_eq!(arrived[id], row["broker_message_id"], "{id}");
    }
}

#[test]
fn one_request_in_many_spellings_is_one_row() {
    let (_mesh, alice, _bob) = alice_and_bob();
    let base = json!({"to": "bob", "message": "m", "meta": {"a": 1, "b": [2, {"c": 3, "d": 4}]}});
    let with = |changes: Value| {
        let mut body = base.clone();
        let changes = changes.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(changes);
        body.to_string()
    };
    let reordered = r#"{"meta":{"b":[2,{"d":4,"c":3}],"a":1},"message":"m","to":"bob"}"#;
    let same: Vec<(Vec<(&str, &str)>, String)> = vec![
        (vec![], with(json!({"client_message_id": "id-1"}))),
        (vec![], with(json!({"client_message_id": "  id-1 "}))),
        (vec![("Idempotency-Key", "id-1")], base.to_string()),
        (vec![("idempotency-key", "\"id-1\"")], base.to_string()),
        (vec![("IDEMPOTENCY-KEY", "  id-1  ")], with(json!({"client_message_id": ""}))),
        (vec![("Idempotency-Key", "id-1")], with(json!({"client_message_id": "id-1"}))),
        (vec![("Idempotency-Key", "id-1")], with(json!({"client_message_id": null}))),
        (vec![("Idempotency-Key", "")], with(json!({"client_message_id": "id-1"}))),
        (vec![("Idempotency-Key", "id-1")], with(json!({"priority": "next"}))),
        (vec![("Idempotency-Key", "id-1")], with(json!({"priority": null}))),
        (vec![("Idempotency-Key", "id-1")], with(json!({"mesh": "demo"}))),
        (vec![("Idempotency-Key", "id-1")], with(json!({"reply_to_id": null, "mentions": []}))),
        (vec![("Idempotency-Key", "id-1")], with(json!({"to": " bob "}))),
        (vec![("Idempotency-Key", "id-1")], with(json!({"unknown": [1, 2, 3]}))),
        (vec![("Idempotency-Key", "id-1")], reordered.to_owned()),
        (
            vec![("Idempotency-Key", "id-1")],
            with(json!({"message": "m"})).replace("\"m\"", "\"\\u006d\""),
        ),
    ];
    let answers = together(same.len() * 4, |number| {
        let (headers, body) = &same[number % same.len()];
        alice.try_request(&post("/v1/send", headers, body)).expect("answers")
    });
    assert_agree(&answers);
    assert_eq!(rows_of(&alice, "id-1"), 1);

    let other = [
        json!({"message": "M"}),
        json!({"message": "m "}),
        json!({"priority": "low"}),
        json!({"reply_to_id": "r"}),
        json!({"meta": {"a": 1}}),
        json!({"meta": {}}),
        json!({"meta": null}),
        json!({"to": "alice"}),
        json!({"to": "*"}),
    ];
    for answer in together(other.len() * 4, |number| {
        let body = with(other[number % other.len()].clone());
        let headers = [("Idempotency-Key", "id-1")];
        alice.try_request(&post("/v1/send", &headers, &body)).expect("answers")
    }) {
        assert_eq!(answer.status(), 409, "{answer:?}");
        assert_eq!(answer.json()["error"], "idempotency_key_reused");
    }

    type Bad = (&'static [(&'static str, &'static str)], Value, &'static str);
    let bad: [Bad; 6] = [
        (
            &[("Idempotency-Key", "id-1")],
            json!({"client_message_id": "id-2"}),
            "idempotency_key_conflict",
        ),
        (
            &[("Idempotency-Key", "id-1"), ("Idempotency-Key", "id-1")],
            json!({}),
            "invalid_client_message_id",
        ),
        (&[("Idempotency-Key", "\"id-1")], json!({}), "invalid_client_message_id"),
        (&[("Idempotency-Key", "id 1")], json!({}), "invalid_client_message_id"),
        (&[], json!({"client_message_id": ".."}), "invalid_client_message_id"),
        (&[], json!({"client_message_id": "x".repeat(256)}), "invalid_client_message_id"),
    ];
    for (headers, changes, code) in bad {
        let answer =
            alice.try_request(&post("/v1/send", headers, &with(changes))).expect("answers");
        assert_eq!((answer.status(), answer.json()["error"].as_str()), (400, Some(code)));
    }
    assert_eq!(rows(&alice).len(), 1);
}
