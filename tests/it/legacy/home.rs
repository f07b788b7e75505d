//! A daemon started where the existing one was: real processes on a directory of theirs.

use super::outbox::many;
use super::{BOB, SUBJECT};
use crate::support::rig::{Daemon, Home, Mesh, Response, eventually, get};
use crate::support::snap::pin;
use crate::support::theirs::{self, Version, count, fingerprint, insert};
use serde_json::{Value, json};
use sqlite::Connection;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Now, as their rows have it.
const NOW: &str = "unixepoch() * 1000";
/// Text beside each id, unless a request is to be another one.
const TEXT: &str = "hola, mesh ✔";
/// `canonical_json_quirk`: keys in JavaScript's order.
const QUIRK: &str = r#"{"9":2,"10":1,"a":4,"b":3}"#;

fn member_key(home: &Home) -> String {
    let config = std::fs::read_to_string(home.path().join("config.json")).expect("reads");
    let config: Value = serde_json::from_str(&config).expect("is JSON");
    config["meshes"][0]["pubkey"].as_str().expect("a key").to_owned()
}

/// A row for a request to `to` with [`TEXT`]; `more` are SQL expressions.
fn row(theirs: &Connection, id: &str, status: &str, asked: (&str, &str), more: &[(&str, &str)]) {
    let quoted = |text: &str| format!("'{text}'");
    let (row_id, client, status, payload) =
        (quoted(&format!("row-{id}")), quoted(id), quoted(status), quoted(TEXT));
    let payload = format!("CAST({payload} AS BLOB)");
    let fingerprint = fingerprint("dm", asked.0, asked.1, TEXT);
    let columns = [
        ("id", row_id.as_str()),
        ("client_message_id", &client),
        ("request_fingerprint", &fingerprint),
        ("payload", &payload),
        ("enqueued_at", NOW),
        ("next_attempt_at", NOW),
        ("status", &status),
    ];
    insert(theirs, "outbox", &[&columns, more].concat());
}

fn fill_outbox(theirs: &Connection, bob: &str) {
    let done = [("delivered_at", NOW), ("broker_message_id", "'b-old'"), ("attempts", "1")];
    row(theirs, "done", "done", ("bob", ""), &done);
    row(theirs, "done-topic", "done", ("#deploys", ""), &done);
    row(theirs, "done-capitals", "done", (&BOB.to_uppercase(), ""), &done);
    row(theirs, "done-meta", "done", ("bob", QUIRK), &done);
    let target = format!("'{bob}'");
    let to_bob = [("mesh", "'demo'"), ("target_spec", target.as_str()), ("priority", "'next'")];
    let sealed = [("nonce", "'AAAA'"), ("ciphertext", "'AAAA'")];
    row(theirs, "waits", "pending", ("bob", ""), &[&to_bob[..], &sealed].concat());
    let sent = [("attempts", "1")];
    row(theirs, "under-way", "inflight", ("bob", ""), &[&to_bob[..], &sent].concat());
    row(theirs, "nowhere", "pending", ("bob", ""), &[]);
    let dead = [("attempts", "25"), ("last_error", "'max_attempts: ack_timeout'")];
    row(theirs, "dead", "dead", ("bob", ""), &[&to_bob[..], &dead].concat());
    let aborted =
        [("aborted_at", NOW), ("aborted_by", "'operator'"), ("superseded_by", "'row-waits'")];
    row(theirs, "aborted", "aborted", ("bob", ""), &[&to_bob[..], &aborted].concat());
}

/// Leaves a database as a daemon that was killed does: the newest rows in its log alone.
fn leave(home: &Home, name: &str, make: impl Fn(&Path) -> Connection) {
    let elsewhere = tempfile::tempdir().expect("a temp dir");
    let made = elsewhere.path().join(name);
    let open = make(&made);
    for companion in ["", "-wal"] {
        let file = format!("{name}{companion}");
        let left = home.daemon_dir().join(&file);
        std::fs::copy(elsewhere.path().join(&file), &left).expect("copies");
        let loose = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&left, loose).expect("is ours");
    }
    drop(open);
}

fn inbox_of_theirs(path: &Path) -> Connection {
    let theirs = theirs::inbox(path, Version::V1_34_11);
    let sender = format!("'{BOB}'");
    let message = [
        ("id", "'old-1'"),
        ("client_message_id", "'cm-old-1'"),
        ("broker_message_id", "'b-old-1'"),
        ("mesh", "'demo'"),
        ("sender_pubkey", sender.as_str()),
        ("sender_name", "'carol'"),
        ("body", "'from before'"),
        ("received_at", NOW),
        ("seen_at", NOW),
    ];
    insert(&theirs, "inbox", &message);
    theirs
}

/// Everything else an older daemon leaves in its directory.
fn leave_other_files(home: &Home) {
    let dir = home.daemon_dir();
    // The pid of a process that lives, and is no daemon.
    let pid = std::process::id().to_string();
    let fingerprint = json!({
        "schema_version": 1, "fingerprint": BOB, "host_id": "linux:0", "stable_mac": "",
        "written_at": "2023-11-14T22:13:20.000Z",
    });
    let files = [
        ("daemon.pid", pid.as_str()),
        // Theirs ends in a newline; one written by hand may not.
        ("local-token", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
        ("host_fingerprint.json", &fingerprint.to_string()),
        (".spawn.lock", &pid),
        (".spawn-failure", "spawn failed"),
        ("sessions.json", r#"{"version":1,"sessions":[]}"#),
        ("mcp-4711.log", "started\n"),
        ("daemon.log", "{\"msg\":\"daemon_started\"}\n"),
    ];
    for (name, text) in files {
        std::fs::write(dir.join(name), text).expect("writes");
    }
    drop(UnixListener::bind(dir.join("daemon.sock")).expect("binds"));
}

fn ask(alice: &Daemon, id: &str, to: &str, message: &str) -> Response {
    let mut body = json!({ "to": to, "message": message, "client_message_id": id });
    if id == "done-meta" {
        body["meta"] = serde_json::from_str(QUIRK).expect("is JSON");
    }
    alice.send(&body)
}

/// Every id of theirs gets its row's answer, and another request under it does not.
fn assert_answers(alice: &Daemon) {
    let capitals = BOB.to_uppercase();
    let cases = [
        ("done", "bob", 200, Value::Null),
        ("done-topic", "#deploys", 200, Value::Null),
        ("done-capitals", capitals.as_str(), 200, Value::Null),
        ("done-meta", "bob", 200, Value::Null),
        ("nowhere", "bob", 409, json!("outbox_dead_fingerprint_match")),
        ("dead", "bob", 409, json!("outbox_dead_fingerprint_match")),
        ("aborted", "bob", 409, json!("outbox_aborted_fingerprint_match")),
    ];
    for (id, to, status, conflict) in cases {
        let answer = ask(alice, id, to, TEXT);
        assert_eq!(answer.status(), status, "{id}: {answer:?}");
        let body = answer.json();
        assert_eq!(body["conflict"], conflict, "{id}: {body}");
        if status == 200 {
            assert_eq!(body["broker_message_id"], "b-old", "{id}: {body}");
        }
        let other = ask(alice, id, to, "adiós");
        assert_eq!(other.status(), 409, "{id}: {other:?}");
        let conflict = other.json()["conflict"].as_str().unwrap_or_default().to_owned();
        assert!(conflict.ends_with("_mismatch"), "{id}: {conflict}");
    }
    for id in ["waits", "under-way"] {
        assert!([200, 202].contains(&ask(alice, id, "bob", TEXT).status()), "{id}");
        assert_eq!(ask(alice, id, "bob", "adiós").status(), 409, "{id}");
    }
}

fn files_of(home: &Home) -> [PathBuf; 2] {
    ["outbox.db", "inbox.db"].map(|name| home.daemon_dir().join(name))
}

#[test]
fn a_directory_of_theirs_becomes_ours_with_every_row_and_what_waits_arrives_once() {
    let mesh = Mesh::new();
    let bob_key = member_key(&mesh.bob);
    leave(&mesh.alice, "outbox.db", |path| {
        let theirs = theirs::outbox(path, Version::V1_34_0);
        fill_outbox(&theirs, &bob_key);
        theirs
    });
    leave(&mesh.alice, "inbox.db", inbox_of_theirs);
    leave_other_files(&mesh.alice);
    let bob = Daemon::start(&mesh.bob);
    let mut alice = Daemon::start(&mesh.alice);
    assert_answers(&alice);
    for file in files_of(&mesh.alice) {
        for companion in ["", "-wal", "-shm"] {
            let file = format!("{}{companion}", file.display());
            let mode = std::fs::metadata(&file).expect(&file).permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
    pin!(SUBJECT, "answer-unaddressed", &ask(&alice, "nowhere", "bob", TEXT));
    pin!(SUBJECT, "message-unaddressed", &alice.get("/v1/messages/nowhere"));
    let listed = mesh.alice.cli(&["outbox", "list", "--failed"]).stdout;
    pin!(SUBJECT, "cli-outbox-list", &*String::from_utf8_lossy(&listed));
    let requeue = json!({ "id": "row-nowhere" });
    let requeued = alice.post("/v1/outbox/requeue", &[], &requeue);
    pin!(SUBJECT, "requeue-unaddressed", &requeued);
    let requeued = alice.post("/v1/outbox/requeue", &[], &json!({ "id": "row-dead" }));
    assert_eq!(requeued.status(), 200, "a dead row of theirs that knows where to go: {requeued:?}");
    let heir = requeued.json()["new_client_message_id"].as_str().expect("an id").to_owned();

    for id in ["waits", "under-way", &heir] {
        alice.wait_for_status(id, "done");
    }
    let mut expected = ["waits", "under-way", &heir].map(str::to_owned).to_vec();
    expected.sort();
    let arrived = eventually("what waited to arrive", || {
        let inbox = bob.inbox();
        let id = |message: &Value| message["client_message_id"].as_str().map(str::to_owned);
        let mut ids: Vec<String> = inbox.iter().filter_map(id).collect();
        ids.sort();
        (ids.len() >= expected.len()).then_some((ids, inbox))
    });
    assert_eq!(arrived.0, expected, "each once, and nothing that had nowhere to go");
    assert!(arrived.1.iter().all(|message| message["body"] == TEXT));
    assert!(arrived.1.iter().all(|message| message["encryption"] == "direct"));
    let old = alice.inbox();
    assert_eq!(old.len(), 1);
    assert_eq!((&old[0]["id"], &old[0]["body"]), (&json!("old-1"), &json!("from before")));

    alice.process.kill();
    let alice = Daemon::start(&mesh.alice);
    assert_eq!(
        alice.get("/v1/outbox?limit=500").json()["items"].as_array().map(Vec::len),
        Some(10)
    );
    assert_eq!(ask(&alice, "done-topic", "#deploys", TEXT).status(), 200);
    assert_eq!(alice.inbox().len(), 1);
}

#[test]
fn a_kill_at_any_moment_of_the_take_over_leaves_every_row_in_one_schema_or_the_other() {
    let home = Home::new();
    let [outbox, _] = files_of(&home);
    many(&outbox, "randomblob(32)");
    let there_were = count(&outbox, "outbox");
    let log = home.daemon_dir().join("outbox.db-wal");
    let written = || std::fs::metadata(&log).map_or(0, |log| log.len());
    let mut versions = Vec::new();
    for bytes in [1, 1 << 20, 8 << 20, 16 << 20] {
        let mut daemon = Daemon::spawn(&home);
        eventually("the take-over to be under way, or over", || {
            (written() >= bytes || daemon.try_request(&get("/v1/version")).is_ok()).then_some(())
        });
        daemon.process.kill();
        assert_eq!(count(&outbox, "outbox"), there_were, "after {versions:?}");
        versions.push(theirs::version(&outbox));
    }
    assert_eq!(versions[0], 0, "no kill came in the middle: {versions:?}");
    let daemon = Daemon::start(&home);
    assert_eq!(daemon.get("/v1/health").json()["outbox"]["done"], there_were);
}

#[test]
fn a_daemon_of_theirs_that_still_runs_keeps_its_files() {
    let home = Home::new();
    let [outbox, _] = files_of(&home);
    let theirs = theirs::outbox(&outbox, Version::V1_34_0);
    let pid_file = home.daemon_dir().join("daemon.pid");
    std::fs::write(&pid_file, "4711").expect("writes");
    let up = home.cli(&["daemon", "up", "--foreground", "--persistent", "--no-tcp"]);
    assert_eq!(up.status.code(), Some(5));
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(
        said.contains("is open in another program, most likely the TypeScript daemon"),
        "{said}"
    );
    // It is stopped by that pid.
    assert_eq!(std::fs::read_to_string(&pid_file).expect("reads"), "4711");
    row(&theirs, "after", "pending", ("bob", ""), &[]);
    drop(theirs);
    assert_eq!(theirs::version(&outbox), 0);
    let daemon = Daemon::start(&home);
    assert_eq!(daemon.status("after"), "dead");
}
