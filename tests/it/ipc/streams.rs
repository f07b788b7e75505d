//! Event streams: what they tell, and what a listener that comes back is told.

use super::SUBJECT;
use crate::support::rig::{self, Daemon, Mesh, Relay, eventually};
use crate::support::snap::pin;
use crate::support::stream::Stream;
use serde_json::json;
use std::collections::BTreeSet;

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
