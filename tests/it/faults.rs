//! Brokers that misbehave: the daemon stays well, and says what is wrong in words. What it spends meanwhile is measured by `idle`.

use crate::support::rig::{Daemon, Mesh, eventually};
use crate::support::script::{Script, Socket, open, receive_type, say};
use crate::support::vitals;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::{self, Message};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A condition is logged once and then counted; start and state changes have lines of their own.
const LOG_LINES_MAX: usize = 20;
const TIMERS: &str = "[link]\nbackoff_cap_ms = 100\nhello_ms = 300\nnegotiation_ms = 300\n\
    ack_ms = 300\n[outbox]\nbackoff_cap_ms = 100\n";

/// A daemon whose broker is this script.
pub struct Faulty {
    // Dropped first: it dials the script as long as it lives.
    pub alice: Daemon,
    mesh: Mesh,
    script: Script,
}

impl Faulty {
    pub fn start(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let mut mesh = Mesh::new();
        mesh.broker.process.kill();
        let script = Script::start(serve);
        let config = mesh.alice.daemon_dir().join("config.toml");
        std::fs::write(config, TIMERS).expect("writes");
        mesh.alice.reach_broker_through(script.port);
        let alice = Daemon::start(&mesh.alice);
        Self { mesh, script, alice }
    }

    fn link(&self) -> Value {
        self.alice.get("/v1/health").json()["meshes"][0].clone()
    }

    /// The link, once it gives a reason with `words` in it.
    fn wait_for_reason(&self, words: &str) -> Value {
        let link = eventually(&format!("a reason with `{words}`, last {}", self.link()), || {
            let link = self.link();
            link["reason"].as_str().is_some_and(|reason| reason.contains(words)).then_some(link)
        });
        let status = self.mesh.alice.cli(&["daemon", "status"]);
        assert!(status.status.success(), "{status:?}");
        link
    }

    fn send(&self, id: &str) {
        let body = json!({"to": "*", "message": "m", "client_message_id": id});
        let answer = self.alice.send(&body);
        assert_eq!(answer.status(), 202, "{answer:?}");
    }

    /// Accepting works, the log is short however often was dialled, and nothing secret is in it.
    fn assert_well(&self, dials_min: usize) {
        eventually("more dials", || (self.script.connections() >= dials_min).then_some(()));
        self.send("while-it-is-so");
        self.assert_quiet(LOG_LINES_MAX);
    }

    fn assert_quiet(&self, log_lines_max: usize) {
        let pid = self.alice.process.pid();
        vitals::assert_healthy(&self.alice, &self.mesh.alice, pid, log_lines_max);
        vitals::assert_clean_log(&self.mesh.alice);
    }
}

/// Reads until the other side is gone.
pub fn listen_only(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
}

fn listen_on(socket: &mut Socket) {
    while socket.read().is_ok() {}
}

#[test]
fn a_broker_that_closes_at_once() {
    let faulty = Faulty::start(|stream, _| drop(stream));
    faulty.wait_for_reason("");
    faulty.assert_well(10);
}

#[test]
fn a_broker_that_accepts_and_never_speaks() {
    let faulty = Faulty::start(|stream, _| listen_only(stream));
    // The whole upgrade has its own, longer limit: until then the link is dialling, and well.
    faulty.alice.wait_for_link("dialing");
    faulty.assert_well(1);
}

#[test]
fn a_broker_that_upgrades_and_never_speaks() {
    let faulty = Faulty::start(|stream, _| {
        if let Ok(mut socket) = tungstenite::accept(stream) {
            listen_on(&mut socket);
        }
    });
    faulty.wait_for_reason("hello");
    faulty.assert_well(3);
}

#[test]
fn a_broker_that_answers_garbage_instead_of_an_upgrade() {
    let faulty = Faulty::start(|mut stream, number| {
        let answers: [&[u8]; 5] = [
            b"\0\x01\x02\x03 garbage \xff\xfe",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.9\r\n",
        ];
        let _ = stream.write_all(answers[number % answers.len()]);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        listen_only(stream);
    });
    faulty.wait_for_reason("");
    faulty.assert_well(10);
}

#[test]
fn a_broker_whose_answer_to_the_upgrade_never_ends() {
    let faulty = Faulty::start(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n");
        while stream.write_all(&[b'x'; 16 * 1024]).is_ok() {}
    });
    faulty.wait_for_reason("");
    faulty.assert_well(5);
}

#[test]
fn a_broker_that_sends_frames_of_twenty_megabytes() {
    let faulty = Faulty::start(|stream, _| {
        let Some(mut socket) = open(stream) else { return };
        let huge = "x".repeat(20 * 1024 * 1024);
        let frame = json!({"type": "push", "messageId": "huge", "ciphertext": huge});
        let _ = socket.send(Message::text(frame.to_string()));
        listen_on(&mut socket);
    });
    eventually("a second dial", || (faulty.script.connections() > 1).then_some(()));
    faulty.wait_for_reason("");
    assert_eq!(faulty.alice.inbox().len(), 0);
    // Making twenty megabytes takes the script longer than taking them takes the daemon.
    faulty.assert_well(4);
}

#[test]
fn a_broker_that_acks_what_was_never_sent() {
    let faulty = Faulty::start(|stream, _| {
        let Some(mut socket) = open(stream) else { return };
        while let Some(send) = receive_type(&mut socket, "send") {
            for id in ["never", "", "while", "\0", &"x".repeat(10_000)] {
                for broker_id in ["b", "", "\n"] {
                    let ack = json!({"type": "ack", "id": id, "messageId": broker_id,
                        "client_message_id": id, "broker_message_id": broker_id, "code": 201});
                    say(&mut socket, &ack);
                }
            }
            let ack =
                json!({"type": "ack", "id": send["id"], "messageId": "right", "queued": true});
            say(&mut socket, &ack);
        }
    });
    faulty.alice.wait_for_link("open");
    faulty.send("one");
    faulty.alice.wait_for_status("one", "done");
    let row = faulty.alice.get("/v1/messages/one").json();
    assert_eq!(row["broker_message_id"], "right", "{row}");
    faulty.assert_well(1);
}

#[test]
fn a_broker_that_acks_twice_and_out_of_order() {
    let faulty = Faulty::start(|stream, _| {
        let Some(mut socket) = open(stream) else { return };
        let mut waiting = Vec::new();
        while let Some(send) = receive_type(&mut socket, "send") {
            waiting.push(send["id"].as_str().unwrap_or_default().to_owned());
            // Only once several wait, the last one first, and each twice with two names.
            if waiting.len() == 8 {
                for id in waiting.drain(..).rev() {
                    for name in ["first", "second"] {
                        let broker_id = format!("{name}-{id}");
                        let ack = json!({"type": "ack", "id": id, "messageId": broker_id});
                        say(&mut socket, &ack);
                    }
                }
            }
        }
    });
    faulty.alice.wait_for_link("open");
    let ids: Vec<String> = (0..16).map(|number| format!("m{number:02}")).collect();
    ids.iter().for_each(|id| faulty.send(id));
    for id in &ids {
        faulty.alice.wait_for_status(id, "done");
        let row = faulty.alice.get(&format!("/v1/messages/{id}")).json();
        // Done is done: the second answer changes nothing.
        assert_eq!(row["broker_message_id"], format!("first-{id}"), "{row}");
    }
    vitals::assert_clean_log(&faulty.mesh.alice);
}

#[test]
fn a_broker_that_never_acks() {
    let faulty = Faulty::start(|stream, _| {
        if let Some(mut socket) = open(stream) {
            listen_on(&mut socket);
        }
    });
    faulty.alice.wait_for_link("open");
    faulty.send("unanswered");
    let row = eventually("a second attempt", || {
        let row = faulty.alice.get("/v1/messages/unanswered").json();
        (row["attempts"].as_u64() >= Some(2) && row["status"] == "pending").then_some(row)
    });
    assert_eq!(row["may_have_been_sent"], true, "{row}");
    assert!(row["last_error"].as_str().is_some_and(|why| why.contains("no answer")), "{row}");
    // The link stays: a slow answer is no reason to lose the others.
    assert_eq!(faulty.link()["link"], "open");
    faulty.assert_well(1);
}

#[test]
fn a_broker_that_refuses_every_send_says_so_in_the_row() {
    let faulty = Faulty::start(|stream, _| {
        let Some(mut socket) = open(stream) else { return };
        while let Some(send) = receive_type(&mut socket, "send") {
            let ack = json!({"type": "ack", "id": send["id"], "messageId": "", "queued": false,
                "error": "not a member of this topic\u{1b}[31m", "code": 403});
            say(&mut socket, &ack);
        }
    });
    faulty.alice.wait_for_link("open");
    faulty.send("refused");
    faulty.alice.wait_for_status("refused", "dead");
    let row = faulty.alice.get("/v1/messages/refused").json();
    assert!(row["last_error"].as_str().is_some_and(|why| why.contains("not a member")), "{row}");
    faulty.assert_well(1);
}

#[test]
fn a_broker_that_closes_over_a_large_frame_gets_it_once_and_the_small_ones_pass() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let faulty = Faulty::start(move |stream, _| {
        let Some(mut socket) = open(stream) else { return };
        while let Some(send) = receive_type(&mut socket, "send") {
            if send.to_string().len() > 4000 {
                count.fetch_add(1, Ordering::SeqCst);
                let (code, reason) = (1009.into(), "message too big".into());
                let _ = socket.close(Some(CloseFrame { code, reason }));
                return listen_on(&mut socket);
            }
            let ack = json!({"type": "ack", "id": send["id"], "messageId": "b", "queued": true});
            say(&mut socket, &ack);
        }
    });
    faulty.alice.wait_for_link("open");
    let large = json!({"to": "*", "message": "x".repeat(6000), "client_message_id": "large"});
    assert_eq!(faulty.alice.send(&large).status(), 202);
    let ids: Vec<String> = (0..10).map(|number| format!("small-{number}")).collect();
    ids.iter().for_each(|id| faulty.send(id));
    ids.iter().for_each(|id| faulty.alice.wait_for_status(id, "done"));
    faulty.alice.wait_for_status("large", "dead");
    let row = faulty.alice.get("/v1/messages/large").json();
    let words = row["last_error"].as_str().unwrap_or_default();
    assert!(words.contains("payload too large") && words.contains("1009"), "{row}");
    // What is as large is refused before it is accepted, once the link is open again.
    faulty.alice.wait_for_link("open");
    let larger = json!({"to": "*", "message": "x".repeat(8000), "client_message_id": "larger"});
    assert_eq!(faulty.alice.send(&larger).status(), 413);
    assert_eq!(seen.load(Ordering::SeqCst), 1, "it was sent again");
    faulty.assert_well(2);
}

/// Every code and reason of the table in `specs/wire.md`, and what the reason in `status` says.
const CLOSES: [(u16, &str); 15] = [
    (1000, "session_replaced"),
    (1000, "disconnected"),
    (1001, "shutting down"),
    (1008, "timestamp_skew"),
    (1008, "capacity"),
    (1008, "bad_signature"),
    (1008, "unauthorized"),
    (1009, "message too big"),
    (1011, "unavailable"),
    (4001, "kicked"),
    (4002, "banned"),
    (4003, "replaced_by_newer_connection"),
    (4004, "member_already_connected"),
    (4010, "{}"),
    (4321, "what is this"),
];

#[test]
fn a_broker_that_closes_with_every_code_there_is() {
    let turn = Arc::new(AtomicUsize::new(0));
    let now = turn.clone();
    // A daemon ends when its last mesh refuses it, so there is another, and it is well.
    let mesh = Mesh::new();
    let script = Script::start(move |stream, _| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        let _ = receive_type(&mut socket, "hello");
        let (code, reason) = CLOSES[now.load(Ordering::SeqCst)];
        let _ = socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
        listen_on(&mut socket);
    });
    let data = mesh.broker_home.path().join("broker");
    mesh.alice.json(&["mesh", "create", "a", "--data", data.to_str().expect("is UTF-8")]);
    mesh.alice.reach_broker_of("a", script.port);
    std::fs::write(mesh.alice.daemon_dir().join("config.toml"), TIMERS).expect("writes");
    let alice = Daemon::start(&mesh.alice);
    let faulty = Faulty { mesh, script, alice };
    for (number, (code, reason)) in CLOSES.into_iter().enumerate() {
        turn.store(number, Ordering::SeqCst);
        assert!(faulty.mesh.alice.cli(&["daemon", "reload"]).status.success());
        let remedy = faulty.wait_for_reason(&format!("{code} {reason}"))["remedy"].clone();
        assert_eq!(remedy.is_null(), [1000, 1001, 1011].contains(&code) && number != 0, "{remedy}");
    }
    faulty.alice.wait_for_link_of("demo", "open");
    // Each code says one line, each reload another.
    faulty.assert_quiet(LOG_LINES_MAX + 2 * CLOSES.len());
}

#[test]
fn a_broker_that_pushes_to_many_what_is_no_text() {
    const SENDER: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
    // Sealed with a topic key, and no base64 at all; by the broker's word or by the topic's name.
    let bodies = [
        ("sealed", json!("gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaX"), json!("#ops"), json!("ops")),
        ("rubbish", json!("no base64!"), json!("*"), Value::Null),
        ("unsaid", json!("//79"), Value::Null, json!("ops")),
    ];
    let (acked, acks) = std::sync::mpsc::channel();
    let faulty = Faulty::start(move |stream, _| {
        let Some(mut socket) = open(stream) else { return };
        for (id, ciphertext, target, topic) in &bodies {
            let push = json!({"type": "push", "messageId": id, "meshId": "m", "senderPubkey": SENDER,
                "senderMemberPubkey": SENDER, "priority": "next", "nonce": "", "topic": topic,
                "ciphertext": ciphertext, "createdAt": "2024-11-22T01:17:46.601Z",
                "targetSpec": target, "client_message_id": format!("c-{id}")});
            say(&mut socket, &push);
        }
        while let Some(ack) = receive_type(&mut socket, "client_ack") {
            let _ = acked.send(ack["brokerMessageId"].clone());
        }
    });
    let inbox = eventually("all of them", || {
        let inbox = faulty.alice.inbox();
        (inbox.len() == 3).then_some(inbox)
    });
    for message in &inbox {
        assert_eq!(message["undecryptable"], true, "{message}");
        assert_eq!((&message["body"], &message["encryption"]), (&Value::Null, &json!("none")));
    }
    // Stored, and only then acknowledged: the broker need not keep what nobody here can read.
    let mut ids: Vec<Value> = (0..3).map(|_| acks.recv().expect("an acknowledgement")).collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, ["rubbish", "sealed", "unsaid"]);
    faulty.assert_well(1);
}
