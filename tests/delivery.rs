//! What is accepted arrives, once, whatever happens in between.

#[path = "support/rig.rs"]
mod rig;

use rig::{Daemon, Mesh, eventually};
use serde_json::json;

#[test]
fn a_message_goes_from_one_daemon_to_another() {
    let mesh = Mesh::new();
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    let sent = alice.send(&json!({
        "to": "bob",
        "message": "hola, mesh ✔",
        "client_message_id": "first",
        "meta": {"b": 1, "a": [true]},
        "reply_to_id": "an-earlier-one",
        "priority": "now",
    }));
    assert_eq!(sent.status(), 202, "{sent:?}");
    alice.wait_for_status("first", "done");
    let message = eventually("the message", || bob.inbox().pop());
    assert_eq!(message["body"], "hola, mesh ✔");
    assert_eq!(message["client_message_id"], "first");
    assert_eq!(message["sender_name"], "alice");
    assert_eq!(message["meta"], json!({"a": [true], "b": 1}));
    assert_eq!(message["reply_to_id"], "an-earlier-one");
    assert_eq!(message["priority"], "now");
    assert_eq!(message["encryption"], "direct");
}

#[test]
fn delivered_means_that_the_receivers_daemon_has_it() {
    let mesh = Mesh::new();
    let alice = Daemon::start(&mesh.alice);
    let receipt = |alice: &Daemon| {
        let mut receipt = alice.get("/v1/messages/first").json()["receipt"].take();
        receipt.as_object_mut().and_then(|receipt| receipt.remove("updated_at"));
        receipt
    };
    let key = mesh.bob.json(&["mesh", "list", "--json"])["meshes"][0]["member_pubkey"].take();
    let sent = alice.send(&json!({"to": &key, "message": "x", "client_message_id": "first"}));
    assert_eq!(sent.status(), 202, "{sent:?}");
    alice.wait_for_status("first", "done");
    let none = json!({"delivered": false, "recipients": 1, "stored": 0, "expired": 0});
    assert_eq!(receipt(&alice), none, "the broker has it, bob does not");
    let key = key.as_str().expect("a key");
    let late = ["send", key, "x", "--id", "first", "--delivered", "--wait=1ms", "--json"];
    let late = mesh.alice.cli(&late);
    assert_eq!(late.status.code(), Some(6), "{late:?}");

    // Nobody is there to be told when bob stores it: alice asks when she is back.
    drop(alice);
    let bob = Daemon::start(&mesh.bob);
    eventually("the message", || bob.inbox().pop());
    let alice = Daemon::start(&mesh.alice);
    let all = json!({"delivered": true, "recipients": 1, "stored": 1, "expired": 0});
    eventually("the receipt", || (receipt(&alice) == all).then_some(()));

    let sent = mesh.alice.json(&["send", "bob", "y", "--delivered", "--json"]);
    assert_eq!((&sent["status"], &sent["receipt"]["stored"]), (&json!("done"), &json!(1)));
    assert_eq!(bob.inbox().len(), 2);
}
