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
