//! A daemon and its damaged files (§4.11): it says what is wrong and what can be done, keeps every
//! promise that can still be read, and never goes on as if nothing had happened.

use crate::support::rig::{Daemon, Home, Mesh, eventually};
use serde_json::{Value, json};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;

const PAGE_BYTES: u64 = 4096;

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(text).expect("UTF-8")
}

/// A home with this many accepted messages, whose daemon was killed and whose broker is away.
fn home_with_messages(count: usize) -> Mesh {
    let mut mesh = Mesh::new();
    mesh.broker.process.kill();
    let mut alice = Daemon::start(&mesh.alice);
    for number in 0..count {
        let id = format!("m-{number}");
        let body = json!({"to": "*", "message": "x".repeat(700), "client_message_id": id});
        assert_eq!(alice.send(&body).status(), 202);
    }
    assert_eq!(alice.process.terminate(), Some(0));
    mesh
}

/// Makes a page of a database unreadable.
fn break_page(path: &Path, page: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
    file.write_all_at(&[0xEE; 64], (page - 1) * PAGE_BYTES).expect("writes");
}

/// Breaks a page in the middle of the messages.
fn break_outbox(home: &Home) {
    let path = home.daemon_dir().join("outbox.db");
    let pages = std::fs::metadata(&path).expect("is there").len() / PAGE_BYTES;
    break_page(&path, pages / 2);
}

fn files(home: &Home) -> Vec<String> {
    let dir = std::fs::read_dir(home.daemon_dir()).expect("reads");
    let names = dir.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.filter(|name| name.contains("box.db")).collect();
    names.sort();
    names
}

#[test]
fn a_damaged_outbox_stops_the_start_and_names_the_ways_out() {
    let mesh = home_with_messages(200);
    break_outbox(&mesh.alice);
    let before = std::fs::read(mesh.alice.daemon_dir().join("outbox.db")).expect("reads");
    for args in [&["daemon", "up", "--no-tcp"][..], &["daemon", "up", "--no-tcp", "--foreground"]] {
        let output = mesh.alice.cli(args);
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
        let text = said(&output);
        let error = text.lines().find(|line| line.starts_with("error: ")).expect("an error");
        assert!(error.starts_with("error: outbox.db is damaged: "), "{text}");
        for flag in ["--check", "--salvage", "--fresh"] {
            assert!(text.contains(&format!("claudemesh daemon recover {flag}")), "{text}");
        }
    }
    let there = files(&mesh.alice);
    let checked = mesh.alice.cli(&["daemon", "recover"]);
    assert_eq!(files(&mesh.alice), there, "looking left something behind");
    assert_eq!(checked.status.code(), Some(5), "{}", said(&checked));
    assert!(said(&checked).contains("inbox.db   whole\nhint:  "), "{}", said(&checked));
    let after = std::fs::read(mesh.alice.daemon_dir().join("outbox.db")).expect("reads");
    assert!(before == after, "looking changed the file");
}

#[test]
fn a_salvage_keeps_what_can_be_read_and_the_daemon_goes_on_with_it() {
    let mut mesh = home_with_messages(200);
    break_outbox(&mesh.alice);
    let report = mesh.alice.json(&["daemon", "recover", "--salvage"]);
    let outbox = &report["stores"][0];
    assert_eq!((&outbox["name"], &outbox["found"]), (&json!("outbox.db"), &json!("damaged")));
    let tables = outbox["saved"].as_array().expect("tables");
    let table = tables.iter().find(|saved| saved["table"] == "outbox").expect("the table");
    let (rows, lost) = (table["rows"].as_u64().expect("a number"), &table["lost"]);
    let lost: u64 = lost.as_array().expect("notes").iter().map(width).sum();
    assert_eq!(rows + lost, 200, "{table}");
    assert!(rows > 150 && rows <= 200, "{table}");
    let aside = outbox["aside"].as_str().expect("a file");
    assert!(Path::new(aside).exists() && aside.contains("outbox.db.damaged-"), "{aside}");
    assert_eq!(mesh.alice.json(&["daemon", "recover"])["stores"][0]["found"], "whole");

    let alice = Daemon::start(&mesh.alice);
    let ids: Vec<String> = (0..200).map(|number| format!("m-{number}")).collect();
    let kept: Vec<&String> = ids.iter().filter(|id| alice.status(id) == "pending").collect();
    assert_eq!(kept.len() as u64, rows);
    mesh.restart_broker();
    kept.iter().for_each(|id| alice.wait_for_status(id, "done"));
}

fn width(note: &Value) -> u64 {
    1 + note["last"].as_u64().expect("a number") - note["first"].as_u64().expect("a number")
}

#[test]
fn a_salvage_that_was_cut_short_is_finished_by_the_next_start() {
    let mesh = home_with_messages(20);
    let dir = mesh.alice.daemon_dir();
    let path = dir.join("outbox.db");
    // The new file got its name, and then the power went: halfway into the exchange.
    std::fs::copy(&path, dir.join("outbox.db.salvaged")).expect("copies");
    std::fs::rename(&path, dir.join("outbox.db.damaged-1")).expect("renames");
    let alice = Daemon::start(&mesh.alice);
    assert_eq!(alice.status("m-19"), "pending", "an empty outbox took its place");
    assert_eq!(alice.get("/v1/health").json()["outbox"]["pending"], 20);
}

#[test]
fn a_fresh_start_deletes_nothing_and_leaves_a_whole_file_alone() {
    let mesh = home_with_messages(20);
    let pid_file = mesh.alice.daemon_dir().join("daemon.pid");
    let pid = std::fs::read(&pid_file).ok();
    let untouched = mesh.alice.cli(&["daemon", "recover", "--fresh"]);
    assert_eq!(std::fs::read(&pid_file).ok(), pid, "daemon.pid is as it was");
    assert!(untouched.status.success(), "{}", said(&untouched));
    assert!(said(&untouched).contains("outbox.db  whole"), "{}", said(&untouched));
    std::fs::write(mesh.alice.daemon_dir().join("inbox.db"), "no database").expect("writes");
    break_outbox(&mesh.alice);
    let fresh = mesh.alice.cli(&["daemon", "recover", "--fresh"]);
    assert!(fresh.status.success(), "{}", said(&fresh));
    let aside = files(&mesh.alice);
    assert_eq!(aside.iter().filter(|name| name.contains(".damaged-")).count(), 2, "{aside:?}");
    let alice = Daemon::start(&mesh.alice);
    assert_eq!(alice.get("/v1/health").json()["outbox"]["pending"], 0);
}

#[test]
fn nothing_is_repaired_under_a_running_daemon() {
    let mesh = home_with_messages(1);
    let alice = Daemon::start(&mesh.alice);
    for flag in ["--check", "--salvage", "--fresh"] {
        let output = mesh.alice.cli(&["daemon", "recover", flag]);
        assert_eq!(output.status.code(), Some(5), "{}", said(&output));
        assert!(said(&output).contains("claudemesh daemon down"), "{}", said(&output));
    }
    assert_eq!(alice.status("m-0"), "pending");
    let both = mesh.alice.cli(&["daemon", "recover", "--check", "--fresh"]);
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
}

/// Makes the outbox larger than what is checked before the start.
fn make_large(home: &Home) {
    let connection = sqlite::open(home.daemon_dir().join("outbox.db")).expect("opens");
    let sql = "INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, mesh, \
               destination_kind, destination_ref, priority, enqueued_at, next_attempt_at, status, \
               broker_message_id, delivered_at) \
               WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
               SELECT 'row-' || i, 'large-' || i, zeroblob(32), zeroblob(60000), 'demo', 'topic', \
               '*', 'next', 1, 1, 'done', 'b' || i, 1 FROM n; PRAGMA wal_checkpoint(TRUNCATE);";
    connection.execute(sql).expect("inserts");
}

#[test]
fn damage_that_is_found_while_it_runs_is_answered_and_the_daemon_stays_up() {
    let mesh = home_with_messages(200);
    let path = mesh.alice.daemon_dir().join("outbox.db");
    // A page in the middle of the messages, that stays where it is.
    let broken = std::fs::metadata(&path).expect("is there").len() / PAGE_BYTES / 2;
    make_large(&mesh.alice);
    assert!(std::fs::metadata(&path).expect("is there").len() > 64 << 20);
    let mut alice = Daemon::start(&mesh.alice);
    eventually("the check's end", || {
        (alice.get("/v1/health").json()["stores"]["outbox"] == "whole").then_some(())
    });
    assert_eq!(alice.process.terminate(), Some(0));
    break_page(&path, broken);
    let mut alice = Daemon::start(&mesh.alice);
    let told = eventually("the check's finding", || {
        let told = alice.get("/v1/health").json();
        (told["stores"]["outbox"] == "damaged").then_some(told)
    });
    assert_eq!((&told["status"], &told["stores"]["inbox"]), (&json!("degraded"), &json!("whole")));
    assert!(told["reasons"][0].as_str().expect("words").contains("daemon recover"), "{told}");
    let body = json!({"to": "*", "message": "m", "client_message_id": "new"});
    for answer in [alice.send(&body), alice.get("/v1/messages/m-1"), alice.get("/v1/outbox")] {
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert_eq!(answer.json()["error"], "store_damaged", "{answer:?}");
    }
    assert_eq!(alice.get("/v1/inbox").status(), 200);
    assert!(alice.process.is_running());
    let found = mesh.alice.wait_for_log("is not used any more");
    assert_eq!(found.len(), 1, "the finding is logged once");
    let status = mesh.alice.cli(&["daemon", "status"]);
    assert!(said(&status).contains("outbox.db damaged"), "{}", said(&status));
}

#[test]
fn streams_of_a_damaged_inbox_are_refused_and_fill_no_log() {
    let mesh = home_with_messages(0);
    let path = mesh.alice.daemon_dir().join("inbox.db");
    let connection = sqlite::open(&path).expect("opens");
    let sql = "INSERT INTO inbox (id, broker_message_id, mesh, sender_pubkey, body, priority, \
               encryption, received_at) \
               WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) \
               SELECT 'id-' || i, 'b' || i, 'demo', 'alice', zeroblob(60000), 'next', 'none', 1 \
               FROM n; PRAGMA wal_checkpoint(TRUNCATE);";
    connection.execute(sql).expect("inserts");
    drop(connection);
    let pages = std::fs::metadata(&path).expect("is there").len() / PAGE_BYTES;
    (pages / 2..pages / 2 + 40).for_each(|page| break_page(&path, page));
    let alice = Daemon::start(&mesh.alice);
    eventually("the check's finding", || {
        (alice.get("/v1/health").json()["stores"]["inbox"] == "damaged").then_some(())
    });
    for _ in 0..20 {
        let answer = alice.get("/v1/events");
        assert_eq!((answer.status(), &answer.json()["error"]), (503, &json!("store_damaged")));
    }
    let found = mesh.alice.wait_for_log("inbox.db");
    assert_eq!(found.len(), 1, "the finding is logged once: {found:?}");
}
