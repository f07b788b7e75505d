//! `kill -9`, cut connections and lost answers: what was accepted arrives, once (§4.1, §4.12).
//!
//! These are slices of a longer torture, which is the same code:
//! `CLAUDEMESH_KILLS=500 cargo test --release --test it -- --ignored --nocapture torture`

use crate::support::chance::{self, seed};
use crate::support::rig::{Daemon, Home, Mesh, Relay, eventually};
use crate::support::torture::{Fault, Plan, run};
use serde_json::json;

/// How often the long torture strikes.
const KILLS: &str = "CLAUDEMESH_KILLS";

#[test]
fn a_hundred_kills_of_the_sender_lose_and_double_nothing() {
    run(&Plan::new(seed(), &[(Fault::KillSender, 100)]));
}

#[test]
fn twenty_kills_of_the_receiver_lose_and_double_nothing() {
    run(&Plan::new(seed(), &[(Fault::KillReceiver, 20)]));
}

#[test]
fn twenty_kills_of_the_broker_lose_and_double_nothing() {
    run(&Plan::new(seed(), &[(Fault::KillBroker, 20)]));
}

#[test]
fn thirty_cuts_and_lost_answers_lose_and_double_nothing() {
    run(&Plan::new(seed(), &[(Fault::Cut, 30), (Fault::LoseAnswers, 15)]));
}

#[test]
#[ignore = "minutes long: see the top of this file"]
fn torture_of_everything_at_once() {
    let kills = std::env::var(KILLS).map_or(500, |text| text.parse().expect("a number"));
    let plan = [
        (Fault::KillSender, kills / 2),
        (Fault::KillReceiver, kills / 4),
        (Fault::KillBroker, kills / 4),
        (Fault::Cut, kills / 4),
        (Fault::LoseAnswers, kills / 8),
    ];
    run(&Plan::new(seed(), &plan));
}

#[test]
fn a_lost_answer_is_said_and_the_retry_is_the_same_message() {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    relay.heard();
    relay.set_mute(true);
    let body = json!({"to": "bob", "message": "once", "client_message_id": "lost"});
    assert_eq!(alice.send(&body).status(), 202);
    // The broker has it, and its answer is on the way to nowhere.
    let arrived = eventually("the message", || bob.inbox().pop());
    let row = alice.get("/v1/messages/lost").json();
    assert_eq!((&row["status"], &row["may_have_been_sent"]), (&json!("inflight"), &json!(true)));
    assert!(relay.heard().contains(r#""duplicate":false"#));
    relay.cut();
    let row = eventually("a row that waits again", || {
        let row = alice.get("/v1/messages/lost").json();
        (row["status"] == "pending").then_some(row)
    });
    assert_eq!(row["may_have_been_sent"], true, "{row}");
    relay.cut();
    relay.set_mute(false);
    alice.wait_for_status("lost", "done");
    assert!(relay.heard().contains(r#""duplicate":true"#));
    let row = alice.get("/v1/messages/lost").json();
    assert_eq!(row["broker_message_id"], arrived["broker_message_id"], "{row}");
    assert!(row["attempts"].as_u64() >= Some(2), "{row}");
    assert_eq!(bob.inbox().len(), 1);
}

#[test]
fn a_message_into_silence_is_sent_again_and_arrives_once() {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    relay.set_deaf(true);
    let body = json!({"to": "bob", "message": "once", "client_message_id": "unheard"});
    assert_eq!(alice.send(&body).status(), 202);
    alice.wait_for_status("unheard", "inflight");
    let row = alice.get("/v1/messages/unheard").json();
    assert_eq!(row["may_have_been_sent"], true, "{row}");
    relay.set_deaf(false);
    relay.cut();
    alice.wait_for_status("unheard", "done");
    eventually("the message", || (bob.inbox().len() == 1).then_some(()));
}

#[test]
fn a_name_known_before_the_crash_is_known_after_it() {
    let mut mesh = Mesh::new();
    let bob = Daemon::start(&mesh.bob);
    let mut alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    eventually("the roster on disk", || {
        let roster = std::fs::read_to_string(mesh.alice.daemon_dir().join("roster.json")).ok()?;
        roster.contains("bob").then_some(())
    });
    alice.process.kill();
    mesh.broker.process.kill();
    let alice = Daemon::start(&mesh.alice);
    let body = json!({"to": "bob", "message": "m", "client_message_id": "after"});
    let answer = alice.send(&body);
    assert_eq!(answer.status(), 202, "{answer:?}");
    mesh.restart_broker();
    alice.wait_for_status("after", "done");
    eventually("the message", || (bob.inbox().len() == 1).then_some(()));
}

#[test]
fn a_daemon_killed_while_it_starts_starts_the_next_time() {
    let home = Home::new();
    let mut chance = chance::Chance::new(seed());
    for _ in 0..30 {
        let mut starting = Daemon::spawn(&home);
        std::thread::sleep(chance.millis(0, 40));
        starting.process.kill();
    }
    let daemon = Daemon::start(&home);
    assert_eq!(daemon.get("/v1/health").status(), 200);
}

#[test]
fn after_a_crash_no_row_counts_as_inflight() {
    let mesh = Mesh::new();
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    let mut alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    relay.set_mute(true);
    let body = json!({"to": "bob", "message": "m", "client_message_id": "cut"});
    assert_eq!(alice.send(&body).status(), 202);
    alice.wait_for_status("cut", "inflight");
    alice.process.kill();
    relay.set_closed(true);
    let alice = Daemon::start(&mesh.alice);
    let outbox = alice.get("/v1/health").json()["outbox"].clone();
    assert_eq!((&outbox["inflight"], &outbox["pending"]), (&json!(0), &json!(1)), "{outbox}");
    let row = alice.get("/v1/messages/cut").json();
    assert_eq!((&row["status"], &row["may_have_been_sent"]), (&json!("pending"), &json!(true)));
    relay.set_mute(false);
    relay.set_closed(false);
    alice.wait_for_status("cut", "done");
    let outbox = alice.get("/v1/health").json()["outbox"].clone();
    assert_eq!((&outbox["inflight"], &outbox["pending"]), (&json!(0), &json!(0)), "{outbox}");
}
