//! Today's network as our broker plays it (§17), fault by fault; and our daemon on it.

use crate::support::raw_client::{As, Client, Given, TestBroker, message};
use crate::support::rig::{Daemon, Mesh, Relay, eventually};
use claudemesh_broker::{Rate, Settings};
use serde_json::{Value, json};
use smol::block_on;
use std::collections::BTreeSet;

const RATE_LIMITED: &str = "rate_limit: max 60 msg/min (burst 10) — slow down";
const NO_PEER: &str = "no connected peer for target (not online, or targetSpec is your own key without another session)";

fn faithful() -> Settings {
    Settings { faithful: true, ..Settings::default() }
}

/// One that is never in the way of a test about something else.
fn hasty() -> Settings {
    Settings { rate: Some(Rate { burst: 1000, per_second: 1000.0 }), ..faithful() }
}

/// The names of a frame's fields.
fn fields(frame: &Value) -> BTreeSet<&str> {
    frame.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The next frame, system events aside.
async fn next(client: &mut Client) -> Value {
    loop {
        match client.next().await {
            Given::Frame(frame) if frame["subtype"] == "system" => {}
            Given::Frame(frame) => return frame,
            other => panic!("the connection ended: {other:?}"),
        }
    }
}

#[test]
fn the_greeting_is_todays_and_negotiation_is_not_answered() {
    let broker = TestBroker::start(faithful());
    block_on(async {
        let a = broker.member(1).await;
        let mut client = broker.dial().await;
        let mut hello = broker.hello(&a, "s");
        hello.as_object_mut().expect("an object").remove("sessionId");
        client.send(hello).await;
        client.send(broker.hello(&a, "s")).await;
        let ack = next(&mut client).await;
        assert_eq!(ack["type"], "hello_ack", "nothing was said to the first one");
        assert_eq!(ack["brokerTime"], Value::Null);
        client.send(json!({"type": "feature_negotiation_request", "require": ["x"]})).await;
        client.settle().await;
        let mut second = broker.connect(&a, As::Member, "another install").await;
        second.settle().await;
        client.settle().await;
    });
}

#[test]
fn nothing_is_deduplicated_and_acks_carry_no_codes() {
    let broker = TestBroker::start(hasty());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let refused = from.post(&b.pubkey(), "early", 1).await;
        assert_eq!(
            refused,
            json!({"type": "ack", "id": "early", "messageId": "", "queued": false, "error": NO_PEER})
        );
        let mut to = broker.connect(&b, As::Member, "s").await;
        let (first, second) =
            (from.post(&b.pubkey(), "id", 1).await, from.post(&b.pubkey(), "id", 1).await);
        assert_ne!(first["messageId"], second["messageId"]);
        assert_eq!(fields(&first), BTreeSet::from(["type", "id", "messageId", "queued"]));
        for ack in [first, second] {
            let push = to.take().await;
            assert_eq!(push["messageId"], ack["messageId"]);
            assert_eq!(
                fields(&push),
                BTreeSet::from([
                    "type",
                    "messageId",
                    "meshId",
                    "senderPubkey",
                    "priority",
                    "nonce",
                    "ciphertext",
                    "createdAt",
                    "client_message_id",
                    "request_fingerprint",
                ])
            );
        }
        let mut bad = message(&b.pubkey(), "bad", 1);
        bad["priority"] = json!("soon");
        from.send(bad).await;
        from.settle().await;
        from.post("*", "many", 1).await;
        let push = to.expect("push").await;
        assert_eq!(
            fields(&push),
            BTreeSet::from([
                "type",
                "messageId",
                "meshId",
                "senderPubkey",
                "senderMemberPubkey",
                "senderMemberId",
                "senderName",
                "priority",
                "nonce",
                "ciphertext",
                "createdAt",
            ])
        );
        let admin = broker.admin().await;
        admin.set_block("test", "name2", "name1", true).await.expect("blocks");
        let ack = from.post(&b.pubkey(), "blocked", 1).await;
        assert_eq!(ack["error"], "blocked by recipient grants (sender lacks dm capability)");
    });
}

#[test]
fn ten_pass_and_then_one_a_second_whatever_their_ids() {
    let broker = TestBroker::start(faithful());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let mut to = broker.connect(&b, As::Member, "s").await;
        let mut refused = 0;
        for _ in 0..30 {
            let ack = from.post(&b.pubkey(), "same", 1).await;
            if ack["error"] == RATE_LIMITED {
                refused += 1;
            } else {
                to.take().await;
            }
        }
        assert!((1..=20).contains(&refused), "{refused} of 30 were refused");
    });
}

#[test]
fn a_claim_on_a_dead_socket_stands_and_its_end_alone_delivers_nothing() {
    // Longer than a slow machine takes to connect.
    const CLAIM_MS: u64 = 2000;
    let broker = TestBroker::start(Settings { lease_ms: CLAIM_MS, ..hasty() });
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        drop(broker.connect(&b, As::Member, "s").await);
        assert_eq!(from.post(&b.pubkey(), "1", 1).await["queued"], true, "a ghost takes it");
        let mut back = broker.connect(&b, As::Member, "s").await;
        back.settle().await;
        broker.runtime.sleep(std::time::Duration::from_millis(CLAIM_MS + 100)).await;
        back.send(json!({"type": "set_status", "status": "idle"})).await;
        back.settle().await;
        from.post(&b.pubkey(), "2", 1).await;
        for id in ["1", "2"] {
            assert_eq!(back.take().await["client_message_id"], id, "the next message drains both");
        }
    });
}

#[test]
fn a_topics_message_goes_to_whoever_drains_first_also_its_sender() {
    let broker = TestBroker::start(hasty());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let mut to = broker.connect(&b, As::Member, "s").await;
        from.send(json!({"type": "topic_create", "name": "deploys"})).await;
        let topic = from.expect("topic_created").await["topic"]["id"].clone();
        to.send(json!({"type": "topic_join", "topic": topic})).await;
        to.settle().await;
        let spec = format!("#{}", topic.as_str().expect("an id"));
        assert_eq!(from.post(&spec, "1", 1).await["queued"], true);
        assert_eq!(from.post("#nonsense", "2", 1).await["queued"], true, "acked and lost");
        to.settle().await;
        let mut again = broker.dial().await;
        again.send(broker.hello(&a, "s")).await;
        let push = next(&mut again).await;
        assert_eq!((&push["type"], &push["client_message_id"]), (&json!("push"), &json!("1")));
        assert_eq!(next(&mut again).await["type"], "hello_ack", "the push came before it");
        again.send(json!({"type": "client_ack", "clientMessageId": "1"})).await;
        again.send(json!({"type": "topic_history", "topic": topic})).await;
        let history = again.expect("topic_history_response").await;
        assert_eq!(history["messages"].as_array().map(Vec::len), Some(1));
        let mut late = broker.connect(&b, As::Member, "s").await;
        late.settle().await;
    });
}

#[test]
fn dnd_holds_mail_back_and_taking_it_off_delivers_nothing_by_itself() {
    let broker = TestBroker::start(hasty());
    block_on(async {
        let (a, b) = (broker.member(1).await, broker.member(2).await);
        let mut from = broker.connect(&a, As::Member, "s").await;
        let mut to = broker.connect(&b, As::Member, "s").await;
        to.send(json!({"type": "set_status", "status": "dnd"})).await;
        to.settle().await;
        from.post(&b.pubkey(), "1", 1).await;
        let mut urgent = message(&b.pubkey(), "2", 1);
        urgent["priority"] = json!("now");
        from.send(urgent).await;
        from.expect("ack").await;
        assert_eq!(to.take().await["client_message_id"], "2");
        to.send(json!({"type": "set_status", "status": "idle"})).await;
        to.settle().await;
        from.post(&b.pubkey(), "3", 1).await;
        assert_eq!(to.take().await["client_message_id"], "1");
        assert_eq!(to.take().await["client_message_id"], "3");
    });
}

/// Timers short enough for a test, and today's rate ten times as fast.
const CONFIG: &str = "[link]\nbackoff_cap_ms = 200\nnegotiation_ms = 200\nack_ms = 1000\n\
                      [outbox]\nbackoff_cap_ms = 400\n[broker]\nrate_burst = 10\nrate_per_s = 10\n";
const LEGACY: [&str; 2] = ["--no-tcp", "--allow-legacy-broker"];

#[test]
fn on_todays_network_fifty_messages_arrive_once_each_although_acks_are_lost() {
    const COUNT: usize = 50;
    let mesh = Mesh::with(CONFIG, &["--faithful"]);
    let relay = Relay::start(mesh.broker.port);
    mesh.alice.reach_broker_through(relay.port);
    relay.heard();
    let bob = Daemon::start_with(&mesh.bob, &LEGACY);
    bob.wait_for_link("open");
    let alice = Daemon::start_with(&mesh.alice, &LEGACY);
    alice.wait_for_link("open");
    alice.wait_for_peer("bob");
    for n in 0..COUNT {
        let id = format!("m{n}");
        let sent = alice.send(&json!({"to": "bob", "message": id, "client_message_id": id}));
        assert_eq!(sent.status(), 202, "{sent:?}");
    }
    let arrived = |at_least: usize| {
        eventually(&format!("{at_least} messages"), || {
            Some(bob.inbox().len()).filter(|count| *count >= at_least)
        })
    };
    // Under way, the broker still hears alice, and she hears nothing: these acks are lost.
    let before = arrived(10);
    relay.set_mute(true);
    arrived(before + 5);
    relay.cut();
    relay.heard();
    relay.set_mute(false);
    let done = || alice.get("/v1/outbox?status=done&limit=100").json()["items"].clone();
    eventually(&format!("{COUNT} rows to be done"), || {
        let page = done();
        let count = page.as_array().map_or(0, Vec::len);
        (count == COUNT).then_some(())
    });
    arrived(COUNT);
    let inbox = bob.inbox();
    let ids: BTreeSet<_> = inbox.iter().map(|row| row["client_message_id"].to_string()).collect();
    assert_eq!((inbox.len(), ids.len()), (COUNT, COUNT), "once each, none twice");
    let slowed = relay.heard().matches("rate_limit: max 60").count();
    assert!(slowed >= 10, "the broker slowed the link down: {slowed}");
    let attempts: Vec<i64> = (0..COUNT)
        .map(|n| alice.get(&format!("/v1/messages/m{n}")).json()["attempts"].as_i64())
        .map(|attempts| attempts.expect("a number"))
        .collect();
    assert!(attempts.contains(&2), "some acks were lost: {attempts:?}");
    let most = attempts.iter().max().expect("some");
    assert_eq!(*most, 2, "only a lost ack costs an attempt, being slowed does not: {attempts:?}");
}

#[test]
fn todays_network_is_refused_with_its_reason_unless_it_is_allowed() {
    let mesh = Mesh::with(CONFIG, &["--faithful"]);
    let up = mesh.alice.cli(&["daemon", "up", "--no-tcp", "--persistent"]);
    assert_eq!(up.status.code(), Some(10), "{up:?}");
    let said = String::from_utf8_lossy(&up.stdout) + String::from_utf8_lossy(&up.stderr);
    assert!(said.contains("no answer"), "{said}");
    assert!(said.contains("--allow-legacy-broker"), "{said}");
}
