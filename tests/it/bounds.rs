//! What the outbox may weigh and what stays free on the disk (§1.2): a daemon that nears a bound
//! says so, one that reached it takes nothing new and forgets nothing, and both end by themselves.

use crate::support::rig::{self, Daemon, Home, Mesh, Response, eventually};
use crate::support::small_disk::SmallDisk;
use crate::support::snap::pin;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

/// What each message of these tests weighs, about.
const MESSAGE_BYTES: usize = 40_000;

fn body(id: &str) -> Value {
    json!({"to": "*", "message": "x".repeat(MESSAGE_BYTES), "client_message_id": id})
}

/// Adds to a home's `config.toml`.
fn configure(home: &Home, more: &str) {
    let path = home.daemon_dir().join("config.toml");
    let config = std::fs::read_to_string(&path).expect("reads");
    // Sections stand once in a file.
    std::fs::write(&path, config.replace("[outbox]\n", &format!("[outbox]\n{more}")))
        .expect("writes");
}

/// Sends until the daemon takes no more; the ids that were accepted, and the refusal.
fn send_until_refused(daemon: &Daemon, name: &str) -> (Vec<String>, Response) {
    let mut accepted = Vec::new();
    for number in 0..100 {
        let id = format!("{name}-{number}");
        let answer = daemon.send(&body(&id));
        if answer.status() != 202 {
            return (accepted, answer);
        }
        accepted.push(id);
    }
    panic!("{} messages were accepted", accepted.len());
}

fn health(daemon: &Daemon) -> Value {
    daemon.get("/v1/health").json()
}

/// Reads `system` events from a stream that is already open.
fn next_system_event(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Value {
    loop {
        let line = lines.next().expect("the stream goes on").expect("reads");
        if let Some(data) = line.strip_prefix("data: ") {
            return serde_json::from_str(data).expect("JSON");
        }
    }
}

#[test]
fn an_outbox_that_fills_up_warns_refuses_and_takes_more_once_it_was_sent() {
    let mut mesh = Mesh::new();
    configure(&mesh.alice, "max_bytes = 1048576\n");
    mesh.broker.process.kill();
    let alice = Daemon::start(&mesh.alice);
    let mut stream = UnixStream::connect(alice.socket()).expect("connects");
    stream.set_read_timeout(Some(rig::PATIENCE)).expect("sets");
    let request = "GET /v1/events?types=system HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("writes");
    let mut events = BufReader::new(stream).lines();
    while !events.next().expect("a line").expect("reads").contains(": connected") {}

    let (accepted, refusal) = send_until_refused(&alice, "m");
    pin!("ipc", "507-insufficient_storage", &refusal);
    assert_eq!(accepted.len(), 25, "24.6 messages are 95 % of 1 MiB");
    let warned = next_system_event(&mut events);
    assert_eq!((&warned["subject"], &warned["level"]), (&json!("outbox"), &json!("warning")));
    let refused = next_system_event(&mut events);
    assert_eq!((&refused["subject"], &refused["level"]), (&json!("outbox"), &json!("refusing")));
    let told = health(&alice);
    assert_eq!((&told["status"], &told["outbox"]["percent"]), (&json!("degraded"), &json!(96)));
    assert!(told["reasons"][0].as_str().expect("a reason").contains("outbox.max_bytes"), "{told}");
    // Nothing was consumed, and what was accepted is answered as ever.
    assert_eq!(alice.get("/v1/messages/m-25").status(), 404);
    assert_eq!(alice.send(&body("m-3")).status(), 202);
    let other = json!({"to": "*", "message": "other", "client_message_id": "m-3"});
    assert_eq!(alice.send(&other).status(), 409);
    // A successor is one more row.
    let row = alice.get("/v1/outbox?limit=1").json()["items"][0]["id"].clone();
    let requeued = alice.post("/v1/outbox/requeue", &[], &json!({ "id": row }));
    assert_eq!(requeued.status(), 507, "{requeued:?}");
    // Kept over a restart, not counted anew.
    drop(alice);
    let alice = Daemon::start(&mesh.alice);
    assert_eq!(health(&alice)["outbox"]["percent"], 96);
    assert_eq!(alice.send(&body("m-25")).status(), 507);

    mesh.restart_broker();
    accepted.iter().for_each(|id| alice.wait_for_status(id, "done"));
    eventually("an outbox that takes more", || {
        let told = health(&alice);
        (told["status"] == "ok" && told["outbox"]["bytes"] == 0).then_some(())
    });
    assert_eq!(alice.send(&body("m-25")).status(), 202);
}

#[test]
fn a_disk_without_its_reserve_stores_nothing_new_and_recovers_by_itself() {
    let mesh = Mesh::new();
    let reserve = "[disk]\nreserved_bytes = 1048576\n";
    let Some(disk) = SmallDisk::mount(&mesh.bob.daemon_dir(), reserve) else { return };
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    bob.wait_for_link("open");
    eventually("a daemon that is well", || (health(&bob)["status"] == "ok").then_some(()));
    assert_eq!(bob.send(&body("before")).status(), 202);
    bob.wait_for_status("before", "done");
    disk.fill_up_to(2_000_000);
    eventually("a daemon that noticed", || {
        let told = health(&bob);
        (told["reasons"][0].as_str()?.contains("disk.reserved_bytes")).then_some(())
    });
    let refused = bob.send(&body("refused"));
    assert_eq!(refused.status(), 507, "{refused:?}");
    assert!(refused.json()["detail"].as_str().expect("words").contains("free some space"));
    assert_eq!(bob.get("/v1/messages/refused").status(), 404);
    assert_eq!(bob.send(&body("before")).status(), 200, "a retry is answered");
    assert_eq!(bob.get("/v1/events").status(), 507);
    // What arrives stays with the broker.
    let to_bob = json!({"to": "bob", "message": "hola", "client_message_id": "inbound"});
    assert_eq!(alice.send(&to_bob).status(), 202);
    alice.wait_for_status("inbound", "done");
    assert_eq!(bob.inbox().len(), 0);
    disk.make_room();
    eventually("a daemon that is well", || (health(&bob)["status"] == "ok").then_some(()));
    assert_eq!(bob.send(&body("refused")).status(), 202);
    eventually("the message, once its lease ended", || (bob.inbox().len() == 1).then_some(()));
}

#[test]
fn an_idle_daemon_does_not_ask_the_file_system() {
    // Shown by what it knows: without a question, it does not notice.
    let mesh = Mesh::new();
    let reserve = "[disk]\nreserved_bytes = 1048576\n";
    let Some(disk) = SmallDisk::mount(&mesh.alice.daemon_dir(), reserve) else { return };
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link("open");
    disk.fill_up_to(2_000_000);
    assert!(!mesh.alice.log().contains("disk.reserved_bytes"));
    eventually("the answer of somebody who asks", || {
        (health(&alice)["status"] == "degraded").then_some(())
    });
    let said = mesh.alice.wait_for_log("disk.reserved_bytes");
    assert_eq!(said.len(), 1, "{said:?}");
}
