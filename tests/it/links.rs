//! The link of a real daemon: what it says when a broker will not do, what an operator can do about
//! it, and what a revocation leaves behind (§14, §15, §15.6).

mod installs;

use crate::support::rig::{self, Daemon, Home, Mesh, eventually};
use crate::support::script::{self, Script, negotiated, open, receive_type, say};
use crate::support::snap::pin;
use crate::support::stream::Stream;
use crate::support::vitals;
use async_tungstenite::tungstenite;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const SUBJECT: &str = "link";
const TIMERS: &str = "[link]\nbackoff_cap_ms = 100\nhello_ms = 300\nnegotiation_ms = 300\n\
    [outbox]\nbackoff_cap_ms = 100\n";

/// A mesh whose alice is in `work` too, served by `serve` instead of a broker.
fn with_second_mesh(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> (Mesh, Script) {
    let mesh = Mesh::new();
    let script = Script::start(serve);
    let data = mesh.broker_home.path().join("broker");
    let data = data.to_str().expect("is UTF-8");
    mesh.alice.json(&["mesh", "create", "work", "--name", "alice", "--data", data]);
    mesh.alice.configure(TIMERS);
    mesh.alice.reach_broker_of("work", script.port);
    (mesh, script)
}

/// What a person reads, without what differs from run to run.
fn status(home: &Home) -> String {
    let output = home.cli(&["daemon", "status"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // The process and the disk are other ones every time.
    let is_ours = |line: &&str| !line.starts_with("daemon ") && !line.starts_with("store ");
    let lines: Vec<&str> = text.lines().filter(is_ours).collect();
    format!("exit {:?}\n{}\n", output.status.code(), lines.join("\n"))
}

fn reload(home: &Home) {
    let output = home.cli(&["daemon", "reload"]);
    assert!(output.status.success(), "{output:?}");
}

/// As [`reload`], until the daemon has done it: the command only sends a signal.
fn reload_and_wait(home: &Home) {
    let done = || home.log().matches("configuration read again").count();
    let before = done();
    reload(home);
    eventually("the configuration to be read again", || (done() > before).then_some(()));
}

fn send(daemon: &Daemon, id: &str, to: &str, slug: &str) {
    let body = json!({"to": to, "message": "m", "client_message_id": id, "mesh": slug});
    let answer = daemon.send(&body);
    assert_eq!(answer.status(), 202, "{answer:?}");
}

/// A broker that remembers ids for a day.
fn forgetful() -> Value {
    let mut offer = negotiated();
    offer["supported"]["client_message_id_dedupe"]["params"] = json!({"version": 1,
        "mode": "retention_scoped", "dedupe_retention_days": 1, "request_fingerprint": true});
    offer
}

/// Greets, and answers the negotiation with `offer`, if with anything; then acknowledges sends.
fn serve(stream: TcpStream, offer: Option<&Value>) {
    let Ok(mut socket) = tungstenite::accept(stream) else { return };
    let _ = receive_type(&mut socket, "hello");
    say(&mut socket, &json!({"type": "hello_ack", "presenceId": "p", "memberDisplayName": "m"}));
    let _ = receive_type(&mut socket, "feature_negotiation_request");
    if let Some(offer) = offer {
        say(&mut socket, offer);
    }
    while let Some(send) = receive_type(&mut socket, "send") {
        let ack = json!({"type": "ack", "id": send["id"], "messageId": "b", "queued": true});
        say(&mut socket, &ack);
    }
}

#[test]
fn a_refused_mesh_is_shown_everywhere_and_the_other_one_is_served() {
    let (mesh, _script) = with_second_mesh(|stream, _| serve(stream, Some(&forgetful())));
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link_of("work", "refused");
    alice.wait_for_link_of("demo", "open");
    pin!(SUBJECT, "refused-status", &status(&mesh.alice));
    // Another look, for the listener who was not there the first time.
    let mut events = Stream::open(alice.socket(), &[]);
    reload(&mesh.alice);
    let refused = loop {
        let event = events.next_of("broker_status");
        if event.json()["state"] == "refused" {
            break event;
        }
    };
    pin!(SUBJECT, "refused-broker-status", &refused.render());
    let bob = Daemon::start(&mesh.bob);
    alice.wait_for_peer("bob");
    send(&alice, "served", "bob", "demo");
    alice.wait_for_status("served", "done");
    drop(bob);
    vitals::assert_healthy(&alice, &mesh.alice, alice.process.pid(), 20);
    vitals::assert_clean_log(&mesh.alice);
}

#[test]
fn a_daemon_without_another_mesh_ends_with_10_and_says_why() {
    let mut mesh = Mesh::new();
    mesh.broker.process.kill();
    let script = Script::start(|stream, _| serve(stream, Some(&forgetful())));
    mesh.alice.reach_broker_through(script.port);
    let foreground = ["daemon", "up", "--foreground", "--persistent", "--no-tcp"];
    let ended = mesh.alice.cli_within(rig::PATIENCE, &foreground).expect("ends");
    assert_eq!(ended.status.code(), Some(10), "{ended:?}");
    let words = String::from_utf8_lossy(&ended.stderr);
    for word in ["feature_param_below_floor", "client_message_id_dedupe", "at least 3 is required"]
    {
        assert!(words.contains(word), "{words}");
    }
    assert!(words.contains("ask the broker's operator"), "{words}");
}

#[test]
fn a_broker_of_todays_network_is_let_in_by_flag_or_file_for_one_mesh_alone() {
    let (mesh, _script) = with_second_mesh(|stream, _| serve(stream, None));
    let mut alice = Daemon::start_with(&mesh.alice, &["--no-tcp", "--allow-legacy-broker=demo"]);
    alice.wait_for_link_of("work", "refused");
    alice.wait_for_link_of("demo", "open");
    pin!(SUBJECT, "refused-legacy-broker", &status(&mesh.alice));
    alice.process.terminate();
    let mut alice = Daemon::start_with(&mesh.alice, &["--no-tcp", "--allow-legacy-broker=work"]);
    alice.wait_for_link_of("work", "open");
    let words = "legacy broker: duplicates possible on retry; receivers deduplicate";
    assert_eq!(alice.mesh("work")["reason"], words);
    alice.wait_for_link_of("demo", "open");
    pin!(SUBJECT, "open-legacy-broker", &status(&mesh.alice));
    assert_eq!(alice.mesh("demo")["reason"], Value::Null);
    send(&alice, "old", "*", "work");
    alice.wait_for_status("old", "done");
    alice.process.terminate();
    mesh.alice.configure(&format!("{TIMERS}[features]\nallow_legacy_broker = [\"work\"]\n"));
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link_of("work", "open");
}

#[test]
fn the_whole_negotiation_is_in_the_log_with_every_default_that_replaced_something() {
    let (mesh, _script) = with_second_mesh(|stream, number| {
        let mut offer = if number == 0 { negotiated() } else { forgetful() };
        let policy = &mut offer["supported"]["concurrent_connection_policy"]["params"];
        policy["default_policy"] = "prefer_me".into();
        serve(stream, Some(&offer));
    });
    let mut alice = Daemon::start(&mesh.alice);
    alice.wait_for_link_of("work", "open");
    let noting = mesh.alice.wait_for_log("taken as prefer_newest");
    assert_eq!(noting.iter().filter(|line| line.contains("link open")).count(), 1, "{noting:?}");
    alice.process.terminate();
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link_of("work", "refused");
    let refused = mesh.alice.wait_for_log("link refused");
    assert_eq!(refused.len(), 1);
    for words in ["\"level\":\"WARN\"", "dedupe_retention_days", "prefer_me"] {
        assert!(refused[0].contains(words), "{}", refused[0]);
    }
}

#[test]
fn a_reload_opens_what_was_refused_once_the_broker_or_the_configuration_is_mended() {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = is_mended.clone();
    let (mesh, _script) = with_second_mesh(move |stream, _| {
        let offer = if mended.load(Ordering::SeqCst) { negotiated() } else { forgetful() };
        serve(stream, Some(&offer));
    });
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link_of("work", "refused");
    alice.wait_for_link_of("demo", "open");
    is_mended.store(true, Ordering::SeqCst);
    reload(&mesh.alice);
    alice.wait_for_link_of("work", "open");
    send(&alice, "mended", "*", "work");
    alice.wait_for_status("mended", "done");

    // The other way: this broker stays as it is, and the file changes.
    let silent = Script::start(|stream, _| serve(stream, None));
    mesh.alice.reach_broker_of("work", silent.port);
    reload_and_wait(&mesh.alice);
    // An open link is left alone: nobody loses a connection to a reload.
    assert_eq!(silent.connections(), 0);
    alice.wait_for_link_of("work", "open");
    let mut alice = alice;
    alice.process.terminate();
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link_of("work", "refused");
    mesh.alice.configure(&format!("{TIMERS}[features]\nallow_legacy_broker = [\"work\"]\n"));
    reload(&mesh.alice);
    alice.wait_for_link_of("work", "open");
    // What cannot be read changes nothing, and the operator hears it.
    mesh.alice.configure("[features]\nallow = 1\n");
    let output = mesh.alice.cli(&["daemon", "reload"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(alice.mesh("work")["link"], "open");
}

#[test]
fn on_todays_network_a_topic_is_sent_by_its_id_and_an_unknown_one_is_dead_and_not_lost() {
    let (sent, arrivals) = std::sync::mpsc::channel();
    let (mesh, _script) = with_second_mesh(move |stream, _| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        let _ = receive_type(&mut socket, "hello");
        say(&mut socket, &json!({"type": "hello_ack", "presenceId": "p"}));
        while let Some(frame) = script::receive(&mut socket) {
            let answer = match frame["type"].as_str() {
                Some("topic_list") => json!({"type": "topic_list_response",
                    "topics": [{"id": "Tp4cQ9", "name": "deploys"}], "_reqId": frame["_reqId"]}),
                Some("send") => {
                    let _ = sent.send(frame["targetSpec"].clone());
                    json!({"type": "ack", "id": frame["id"], "messageId": "b", "queued": true})
                }
                _ => continue,
            };
            say(&mut socket, &answer);
        }
    });
    let alice = Daemon::start_with(&mesh.alice, &["--no-tcp", "--allow-legacy-broker=work"]);
    // Accepted before anything is known of any topic.
    send(&alice, "known", "#deploys", "work");
    send(&alice, "unknown", "#none", "work");
    alice.wait_for_status("known", "done");
    alice.wait_for_status("unknown", "dead");
    let row = alice.get("/v1/messages/unknown").json();
    assert!(row["last_error"].as_str().is_some_and(|why| why.contains("unknown topic")), "{row}");
    assert_eq!(row["may_have_been_sent"], false, "{row}");
    assert_eq!(arrivals.try_iter().collect::<Vec<_>>(), ["#Tp4cQ9"]);
}

#[test]
fn a_reload_without_a_daemon_says_so() {
    let output = Home::new().cli(&["daemon", "reload"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

#[test]
fn a_broker_that_is_slow_to_negotiate_is_asked_again_and_never_refused() {
    let mut mesh = Mesh::new();
    mesh.broker.process.kill();
    let script = Script::start(|stream, number| {
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        let _ = receive_type(&mut socket, "hello");
        say(&mut socket, &json!({"type": "hello_ack", "presenceId": "p", "negotiates": true}));
        let _ = receive_type(&mut socket, "feature_negotiation_request");
        if number > 2 {
            say(&mut socket, &negotiated());
        }
        // Silent until the other side has had enough.
        while socket.read().is_ok() {}
    });
    mesh.alice.configure(TIMERS);
    mesh.alice.reach_broker_through(script.port);
    // Its only mesh: were it refused, the daemon would be gone.
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link("open");
    assert!(script.connections() > 3);
    vitals::assert_healthy(&alice, &mesh.alice, alice.process.pid(), 20);
}

#[test]
fn a_first_hello_that_is_answered_too_late_does_not_keep_the_second_from_opening() {
    let mut mesh = Mesh::new();
    mesh.broker.process.kill();
    let script = Script::start(|stream, number| {
        if number == 0 {
            let Ok(mut socket) = tungstenite::accept(stream) else { return };
            let _ = receive_type(&mut socket, "hello");
            // The daemon says goodbye first; then it is told what it no longer waits for.
            while let Ok(message) = socket.read() {
                if message.is_close() {
                    break;
                }
            }
            say(&mut socket, &json!({"type": "hello_ack", "presenceId": "late"}));
            return;
        }
        let Some(mut socket) = open(stream) else { return };
        while let Some(frame) = script::receive(&mut socket) {
            let answer = match frame["type"].as_str() {
                Some("list_peers") => json!({"type": "peers_list", "_reqId": frame["_reqId"],
                    "peers": [{"pubkey": "aa", "displayName": "carol", "online": true}]}),
                Some("send") => {
                    json!({"type": "ack", "id": frame["id"], "messageId": "b", "queued": true})
                }
                _ => continue,
            };
            say(&mut socket, &answer);
        }
    });
    mesh.alice.configure(TIMERS);
    mesh.alice.reach_broker_through(script.port);
    let alice = Daemon::start(&mesh.alice);
    // Accepted while nothing answers, and delivered once something does.
    send(&alice, "early", "*", "demo");
    alice.wait_for_link("open");
    alice.wait_for_peer("carol");
    alice.wait_for_status("early", "done");
    send(&alice, "after", "*", "demo");
    alice.wait_for_status("after", "done");
    assert_eq!(script.connections(), 2);
}

#[test]
fn a_revocation_leaves_one_line_for_whoever_looks_into_it() {
    let greeted = Arc::new(AtomicUsize::new(0));
    let count = greeted.clone();
    let (mesh, _script) = with_second_mesh(move |stream, _| {
        let Some(mut socket) = open(stream) else { return };
        count.fetch_add(1, Ordering::SeqCst);
        // Two messages wait for an answer that never comes.
        for _ in 0..2 {
            let _ = receive_type(&mut socket, "send");
        }
        let frame =
            tungstenite::protocol::CloseFrame { code: 4002.into(), reason: "banned".into() };
        let _ = socket.close(Some(frame));
        while socket.read().is_ok() {}
    });
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link_of("work", "open");
    send(&alice, "one", "*", "work");
    send(&alice, "two", "*", "work");
    alice.wait_for_link_of("work", "refused");
    let lines = mesh.alice.wait_for_log("member_revoked");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line: Value = serde_json::from_str(&lines[0]).expect("is JSON");
    let version = alice.get("/v1/version").json();
    let meshes = version["meshes"].as_array().expect("meshes");
    let work = meshes.iter().find(|mesh| mesh["mesh"] == "work").expect("work");
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["mesh"], "work");
    assert_eq!(line["member_pubkey"], work["member_pubkey"]);
    assert_eq!(line["via"], "close 4002");
    assert_eq!(line["pending_rows"], 2);
    // Nothing is lost, and nothing dials.
    for id in ["one", "two"] {
        alice.wait_for_status(id, "pending");
    }
    assert_eq!(greeted.load(Ordering::SeqCst), 1);
}
