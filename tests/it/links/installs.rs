//! Two installs of one member key (§15.6).

use super::send;
use crate::support::rig::{Daemon, Home, Mesh, eventually, exchange, post};
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;

/// A second install of alice: her key and her meshes, and no directory of the daemon.
fn second_install(mesh: &Mesh) -> Home {
    let home = Home::new();
    let file = "config.json";
    std::fs::copy(mesh.alice.path().join(file), home.path().join(file)).expect("copies");
    home
}

fn set_policy(mesh: &Mesh, policy: &str) {
    let office = mesh.broker_home.path().join("broker/admin.sock");
    let body = json!({ "verb": "set_connection_policy", "mesh": "demo", "policy": policy });
    let office = UnixStream::connect(office).expect("connects");
    let set = exchange(office, &post("/admin", &[], &body.to_string()));
    assert_eq!(set.status(), 200, "{set:?}");
}

fn assert_clone_is_told_its_remedies(home: &Home, code: &str) {
    let refused = home.wait_for_log("link refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    for word in [code, "claudemesh daemon reload", "claudemesh join <invite> --home"] {
        assert!(refused[0].contains(word), "{}", refused[0]);
    }
}

#[test]
fn the_newer_of_two_installs_stays_and_the_older_ends_with_the_clone_remedies() {
    let mesh = Mesh::new();
    let mut older = Daemon::start(&mesh.alice);
    older.wait_for_link("open");
    let copy = second_install(&mesh);
    let newer = Daemon::start(&copy);
    newer.wait_for_link("open");
    assert_eq!(older.process.wait(), Some(10));
    assert_clone_is_told_its_remedies(&mesh.alice, "4003");
    assert_eq!(newer.mesh("demo")["link"], "open", "it was thrown out in turn");
    assert_eq!(copy.log().matches("link down").count(), 0);
    send(&newer, "from-the-newer", "*", "demo");
    newer.wait_for_status("from-the-newer", "done");
}

#[test]
fn the_older_of_two_installs_stays_where_the_mesh_says_so() {
    let mesh = Mesh::new();
    set_policy(&mesh, "prefer_oldest");
    let older = Daemon::start(&mesh.alice);
    older.wait_for_link("open");
    let copy = second_install(&mesh);
    let mut newer = Daemon::spawn(&copy);
    assert_eq!(newer.process.wait(), Some(10));
    assert_clone_is_told_its_remedies(&copy, "member_already_connected");
    assert_eq!(older.mesh("demo")["link"], "open");
    assert_eq!(mesh.alice.log().matches("link down").count(), 0);
    // A restarted daemon is the same install, whatever the policy says of others.
    let mut older = older;
    older.process.kill();
    let restarted = Daemon::start(&mesh.alice);
    restarted.wait_for_link("open");
}

#[test]
fn both_installs_send_where_the_mesh_allows_it() {
    let mesh = Mesh::new();
    set_policy(&mesh, "allow_concurrent");
    let copy = second_install(&mesh);
    let bob = Daemon::start(&mesh.bob);
    bob.wait_for_link("open");
    let installs = [Daemon::start(&mesh.alice), Daemon::start(&copy)];
    for (number, install) in installs.iter().enumerate() {
        install.wait_for_link("open");
        install.wait_for_peer("bob");
        let id = format!("install-{number}");
        send(install, &id, "bob", "demo");
        install.wait_for_status(&id, "done");
    }
    eventually("both messages", || (bob.inbox().len() == 2).then_some(()));
    assert!(installs.iter().all(|install| install.mesh("demo")["link"] == "open"));
}

#[test]
fn a_home_that_was_copied_whole_waits_its_turn_and_does_not_flap() {
    let mesh = Mesh::new();
    // The slow wait lasts five times the cap at least: longer than this test.
    const SLOW_MS: u64 = 5 * 60_000;
    mesh.alice.configure("[link]\nbackoff_cap_ms = 60000\n");
    let first = Daemon::start(&mesh.alice);
    first.wait_for_link("open");
    let copy = second_install(&mesh);
    for file in ["session-keys.json", "config.toml"] {
        let from = mesh.alice.daemon_dir().join(file);
        std::fs::copy(from, copy.daemon_dir().join(file)).expect("copies");
    }
    let second = Daemon::start(&copy);
    second.wait_for_link("open");
    let view = first.wait_for_link_of("demo", "waiting");
    assert_eq!(view["reason"], "closed by the broker: 1000 session_replaced", "{view}");
    assert!(view["remedy"].as_str().is_some_and(|remedy| remedy.contains("other program")));
    // Nobody throws the other out at once: the next dial is a slow wait away, and the second one is
    // served meanwhile.
    let down = mesh.alice.wait_for_log("link down");
    assert_eq!(down.len(), 1, "{down:?}");
    let down: Value = serde_json::from_str(&down[0]).expect("is JSON");
    assert!(down["retry_ms"].as_u64() >= Some(SLOW_MS), "{down}");
    send(&second, "served", "*", "demo");
    second.wait_for_status("served", "done");
    assert_eq!(first.mesh("demo")["link"], "waiting");
    assert_eq!(second.mesh("demo")["link"], "open");
    assert_eq!(copy.log().matches("link down").count(), 0);
}
