//! What is accepted arrives, once, whatever happens in between.

use crate::support::rig::{Daemon, Home, Mesh, eventually};
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

#[test]
fn sends_under_way_at_the_end_of_a_daemon_are_answered_by_its_own_broker() {
    let (home, other) = (Home::new(), Home::new());
    let mut daemon = Daemon::start_with(&home, &["--no-tcp", "--local", "--listen", "127.0.0.1:0"]);
    let invite = home.cli(&["mesh", "invite", "local"]);
    let link = String::from_utf8(invite.stdout).expect("is text");
    assert!(other.cli(&["join", link.trim_end(), "--name", "bob"]).status.success());
    let key = other.json(&["mesh", "list"])["meshes"][0]["member_pubkey"].take();
    daemon.wait_for_link("open");
    std::thread::scope(|scope| {
        let daemon = &daemon;
        for sender in 0..8 {
            let key = &key;
            scope.spawn(move || {
                for n in 0..50 {
                    let body = json!({"to": key, "message": "x", "client_message_id": format!("{sender}-{n}")});
                    assert_eq!(daemon.send(&body).status(), 202);
                }
            });
        }
    });
    assert_eq!(daemon.process.terminate(), Some(0));
    let outbox = sqlite::open(home.daemon_dir().join("outbox.db")).expect("opens");
    let sql = "SELECT count(*), coalesce(sum(attempts > 0 AND status <> 'done'), 0) FROM outbox";
    let mut rows = outbox.prepare(sql).expect("is a query");
    rows.next().expect("reads");
    let (all, unanswered): (i64, i64) =
        (rows.read(0).expect("a number"), rows.read(1).expect("a number"));
    assert_eq!((all, unanswered), (400, 0));
}
