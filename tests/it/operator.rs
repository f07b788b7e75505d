//! What an operator sees and does, on real daemons: the verbs of `outbox`, and stores that stay
//! small (§1.2, §4.5.2, §4.5.3, §8).

use crate::support::rig::{Daemon, Home, Mesh, Relay, eventually};
use crate::support::snap::pin;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A valid key that no member has (the owner of the examples' mesh).
const NOBODY: &str = "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c";

fn row_id(daemon: &Daemon, client_message_id: &str) -> String {
    let rows = daemon.get("/v1/outbox?limit=500").json();
    let rows = rows["items"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["client_message_id"] == client_message_id);
    row.expect("a row")["id"].as_str().expect("an id").to_owned()
}

fn send(daemon: &Daemon, to: &str, id: &str) -> Value {
    let sent = json!({ "to": to, "message": "hola, mesh ✔", "client_message_id": id });
    daemon.send(&sent).json()
}

/// Commands and what they said, as a page.
struct Session<'a> {
    home: &'a Home,
    page: String,
}

impl Session<'_> {
    fn run(&mut self, args: &[&str], exit: i32) -> String {
        let output = self.home.cli(args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(exit), "{args:?}: {out}{err}");
        let _ = writeln!(self.page, "$ claudemesh {}\n{out}{err}", args.join(" "));
        out
    }
}

#[test]
fn the_verbs_of_the_outbox_say_what_they_did_and_what_may_have_happened() {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    send(&alice, "bob", "done");
    alice.wait_for_status("done", "done");
    for id in ["failed", "given-up"] {
        send(&alice, NOBODY, id);
        alice.wait_for_status(id, "dead");
    }
    let mut session = Session { home: &mesh.alice, page: String::new() };

    let given_up = row_id(&alice, "given-up");
    session.run(&["outbox", "inspect", &given_up], 0);
    session.run(&["outbox", "abort", &given_up], 0);
    session.run(&["outbox", "abort", &given_up], 5);
    session.run(&["daemon", "outbox", "abort", "nobody"], 1);

    let failed = row_id(&alice, "failed");
    let patch = mesh.alice.path().join("patch");
    std::fs::write(&patch, "").expect("writes");
    let patch_path = patch.to_str().expect("is UTF-8");
    let empty = mesh.alice.cli(&["outbox", "requeue", &failed, "--patch-payload", patch_path]);
    assert_eq!(empty.status.code(), Some(2), "an empty patch is a mistake: {empty:?}");
    std::fs::write(&patch, "x".repeat(66_000)).expect("writes");
    let large = mesh.alice.cli(&["outbox", "requeue", &failed, "--patch-payload", patch_path]);
    assert_eq!(large.status.code(), Some(1), "{large:?}");
    assert_eq!(alice.status("failed"), "dead", "nothing was changed");
    std::fs::write(&patch, "shorter").expect("writes");
    let spelt_as_before = ["--id", &failed, "--new-id", "second", "--patch-payload", patch_path];
    let requeued =
        mesh.alice.json(&[&["outbox", "requeue", "--auto"], &spelt_as_before[..]].concat());
    assert_eq!(requeued["new_client_message_id"], "second");
    alice.wait_for_status("second", "dead");
    let second = row_id(&alice, "second");
    mesh.alice.json(&["outbox", "requeue", &second, "--new-client-id", "third"]);
    alice.wait_for_status("third", "dead");
    session.run(&["outbox", "inspect", &failed], 0);

    // The broker takes it, and its answer never arrives.
    relay.heard();
    relay.set_mute(true);
    send(&alice, "bob", "unanswered");
    let mut heard = String::new();
    eventually("the broker's answer", || {
        heard += &relay.heard();
        heard.contains("unanswered").then_some(())
    });
    relay.set_closed(true);
    alice.wait_for_status("unanswered", "pending");
    let unanswered = row_id(&alice, "unanswered");
    session.run(&["outbox", "abort", &unanswered], 0);
    let told = mesh.alice.json(&["outbox", "inspect", &unanswered]);
    assert_eq!((&told["status"], &told["may_have_been_sent"]), (&json!("aborted"), &json!(true)));

    session.run(&["outbox", "prune", "--before", "1h"], 0);
    session.run(&["outbox", "prune", "--before", "0s"], 0);
    assert_eq!(told, mesh.alice.json(&["outbox", "inspect", &unanswered]), "only counted");
    session.run(&["outbox", "prune", "--before", "0s", "--confirm"], 0);
    session.run(&["outbox", "prune", "--before", "0s", "--confirm"], 0);
    let done = row_id(&alice, "done");
    session.run(&["outbox", "inspect", &done], 0);
    pin!("cli", "outbox-verbs", session.page.trim_end());
}

#[test]
fn a_retry_is_told_the_same_when_its_row_was_pruned_also_after_a_restart() {
    let mesh = Mesh::new();
    let mut alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    send(&alice, "bob", "done");
    alice.wait_for_status("done", "done");
    for id in ["aborted", "requeued"] {
        send(&alice, NOBODY, id);
        alice.wait_for_status(id, "dead");
    }
    mesh.alice.json(&["outbox", "abort", &row_id(&alice, "aborted")]);
    mesh.alice.json(&["outbox", "requeue", &row_id(&alice, "requeued")]);
    let ask = |alice: &Daemon| {
        let mut answers = Vec::new();
        for (id, to) in [("done", "bob"), ("aborted", NOBODY), ("requeued", NOBODY)] {
            answers.push(send(alice, to, id));
            answers.push(send(alice, "alice", id));
        }
        answers
    };
    let before = ask(&alice);
    let pruned = mesh.alice.json(&["outbox", "prune", "--before", "0s", "--confirm"]);
    assert_eq!((&pruned["rows"], &pruned["confirmed"]), (&json!(3), &json!(true)));
    assert_eq!(ask(&alice), before);
    assert_eq!(alice.process.terminate(), Some(0));
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    assert_eq!(ask(&alice), before);
}

#[test]
fn an_inbox_beyond_its_size_loses_its_oldest_at_start_and_they_do_not_reappear() {
    const MESSAGES: usize = 60;
    let mesh = Mesh::new();
    let alice = Daemon::start(&mesh.alice);
    let mut bob = Daemon::start(&mesh.bob);
    alice.wait_for_peer("bob");
    bob.wait_for_link("open");
    for number in 0..MESSAGES {
        let body = json!({
            "to": "bob", "message": "x".repeat(40_000), "client_message_id": format!("m{number}"),
        });
        assert_eq!(alice.send(&body).status(), 202);
        alice.wait_for_status(&format!("m{number}"), "done");
    }
    eventually("the messages", || (bob.inbox().len() == MESSAGES).then_some(()));
    assert_eq!(bob.process.terminate(), Some(0));
    let config = mesh.bob.daemon_dir().join("config.toml");
    let quick = std::fs::read_to_string(&config).expect("reads");
    std::fs::write(&config, format!("{quick}[inbox]\nmax_bytes = 1048576\n")).expect("writes");
    let bob = Daemon::start(&mesh.bob);
    let left = eventually("the oldest to go", || {
        let left = bob.inbox();
        (left.len() < MESSAGES / 2).then_some(left)
    });
    assert!(!left.is_empty());
    let newest = format!("m{}", MESSAGES - 1);
    assert_eq!(left[0]["client_message_id"], newest.as_str(), "the newest stay");
    // The broker has nothing more for bob: what went was acknowledged long ago.
    bob.wait_for_link("open");
    let after = json!({ "to": "bob", "message": "after", "client_message_id": "after" });
    assert_eq!(alice.send(&after).status(), 202);
    let inbox = eventually("what comes after", || {
        let inbox = bob.inbox();
        (inbox[0]["body"] == "after").then_some(inbox)
    });
    assert!(inbox.len() <= left.len() + 1, "nothing came back");
}

#[test]
fn the_name_of_the_first_local_start_stays_without_being_given_again() {
    let home = Home::new();
    let up = ["daemon", "up", "--local", "--listen", "127.0.0.1:0", "--no-tcp"];
    let names = [&["--name", "alice"][..], &[]].map(|name| {
        home.json(&[&up[..], name].concat());
        let peers = home.json(&["peers"]);
        home.json(&["daemon", "down"]);
        peers["peers"][0]["displayName"].clone()
    });
    assert_eq!(names, ["alice", "alice"]);
}
