//! "202" means "on stable storage" (§4.1, §4.7): shown in the system calls of the real daemon; and
//! what a full disk does (§1.2).

use crate::support::rig::{Daemon, Home, Mesh, eventually};
use crate::support::small_disk::SmallDisk;
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;

/// Set to 1 where the tools are known to be there: then their absence fails the test.
const REQUIRED: &str = "CLAUDEMESH_REQUIRE_STRACE";
/// The disk itself says when it is full.
const WITHOUT_RESERVE: &str = "[disk]\nreserved_bytes = 0\n";

/// How often a full disk is spoken of: once, and again if a commit between fitted after all.
const LOGGED_FAILURES_MAX: usize = 5;

/// Long enough for a page of the database.
const STRACE: [&str; 8] = [
    "strace",
    "-f",
    "-yy",
    "-s",
    "4200",
    "-e",
    "trace=fsync,fdatasync,write,pwrite64,writev,sendto,sendmsg",
    "-o",
];

fn has_tool(name: &str) -> bool {
    Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Says why a test proves nothing here, and fails if it had to.
fn skip(why: &str) {
    println!("skipped: {why}");
    assert_ne!(std::env::var(REQUIRED).as_deref(), Ok("1"), "{why}");
}

/// Whether processes may be traced here.
fn can_trace() -> bool {
    if !has_tool("strace") {
        skip("strace is not installed");
        return false;
    }
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let can = traced.is_ok_and(|output| output.status.success());
    if !can {
        skip("this machine does not let processes be traced");
    }
    can
}

/// A daemon under strace, which ends with it.
struct Traced {
    daemon: Daemon,
    trace: PathBuf,
}

impl Traced {
    fn start(home: &Home) -> Self {
        let trace = home.path().join("trace");
        let path = trace.to_str().expect("is UTF-8");
        let daemon = Daemon::spawn_under(home, &[&STRACE[..], &[path]].concat());
        daemon.wait_until_it_answers();
        Self { daemon, trace }
    }

    fn pid(&self) -> i32 {
        self.daemon.get("/v1/health").json()["pid"].as_i64().expect("a pid") as i32
    }

    fn signal(&mut self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signals");
        self.daemon.process.wait();
    }

    /// Ends the daemon and reads what it called.
    fn finish(mut self) -> Vec<Call> {
        self.signal(rustix::process::Signal::TERM);
        calls(&std::fs::read_to_string(&self.trace).expect("reads"))
    }
}

/// A system call, at the line where it began and the line where it returned.
#[derive(Debug)]
struct Call {
    began: usize,
    /// `None`: it never returned.
    returned: Option<usize>,
    text: String,
    result: String,
}

impl Call {
    fn is_sync_of(&self, file: &str) -> bool {
        (self.text.starts_with("fsync(") || self.text.starts_with("fdatasync("))
            && self.text.contains(&format!("/{file}>"))
            && self.result == "0"
    }

    fn writes_to(&self, file: &str, text: &str) -> bool {
        (self.text.starts_with("write(") || self.text.starts_with("pwrite64("))
            && self.text.contains(&format!("/{file}>"))
            && self.text.contains(text)
    }

    fn answers(&self, status: &str, text: &str) -> bool {
        self.text.contains(&format!("\"HTTP/1.1 {status}")) && self.text.contains(text)
    }
}

/// Reads strace's lines, joining calls that another thread interrupted.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open = std::collections::HashMap::<&str, usize>::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let result = |text: &str| {
            let result = text.rsplit_once(" = ").map_or("", |(_, result)| result);
            result.split(' ').next().unwrap_or_default().to_owned()
        };
        if let Some(text) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(pid, calls.len());
            let text = text.to_owned();
            calls.push(Call { began: at, returned: None, text, result: String::new() });
        } else if rest.starts_with("<... ") {
            if let Some(call) = open.remove(pid).map(|index| &mut calls[index]) {
                (call.returned, call.result) = (Some(at), result(rest));
            }
        } else if rest.contains('(') {
            let (text, result) = (rest.to_owned(), result(rest));
            calls.push(Call { began: at, returned: Some(at), text, result });
        }
    }
    calls
}

/// The row of `id` is written to the log, then a sync of it begins and succeeds, then the answer.
fn assert_synced_before_answer(calls: &[Call], id: &str) {
    let written = calls.iter().find(|call| call.writes_to("outbox.db-wal", id));
    let written = written.and_then(|call| call.returned);
    let written = written.unwrap_or_else(|| panic!("{id} was never written"));
    let synced = calls
        .iter()
        .find(|call| call.began > written && call.is_sync_of("outbox.db-wal"))
        .and_then(|call| call.returned);
    let synced = synced.unwrap_or_else(|| panic!("{id} was never synced"));
    let answers: Vec<&Call> = calls.iter().filter(|call| call.answers("202", id)).collect();
    assert!(!answers.is_empty(), "{id} was never answered");
    for answer in answers {
        assert!(synced < answer.began, "{id} was answered before it was on disk: {answer:?}");
    }
}

fn send(daemon: &Daemon, id: &str) {
    let body = json!({"to": "*", "message": format!("text of {id}"), "client_message_id": id});
    let answer = daemon.send(&body);
    assert_eq!(answer.status(), 202, "{answer:?}");
}

#[test]
fn an_answer_leaves_only_after_the_sync_of_its_row_returned() {
    if !can_trace() {
        return;
    }
    let mut mesh = Mesh::new();
    // Without a broker, accepts are all that is written.
    mesh.broker.process.kill();
    let traced = Traced::start(&mesh.alice);
    let alone: Vec<String> = (0..8).map(|number| format!("durable-alone-{number:02}")).collect();
    alone.iter().for_each(|id| send(&traced.daemon, id));
    let together: Vec<String> = (0..32).map(|number| format!("durable-both-{number:02}")).collect();
    std::thread::scope(|scope| {
        for id in &together {
            let daemon = &traced.daemon;
            scope.spawn(move || send(daemon, id));
        }
    });
    let calls = traced.finish();
    alone.iter().chain(&together).for_each(|id| assert_synced_before_answer(&calls, id));
    // The check can fail: some answer comes before some later sync.
    let syncs = calls.iter().filter(|call| call.is_sync_of("outbox.db-wal")).count();
    assert!(syncs > alone.len(), "{syncs} syncs");
}

#[test]
fn what_a_crash_left_unsynced_is_synced_before_it_is_promised_again() {
    if !can_trace() {
        return;
    }
    let mut mesh = Mesh::new();
    mesh.broker.process.kill();
    let mut first = Daemon::start(&mesh.alice);
    send(&first, "left-behind");
    first.process.kill();
    // The row may be in the page cache alone, and answering a retry of it writes nothing: so what
    // the log holds must reach the disk before the first answer.
    let traced = Traced::start(&mesh.alice);
    send(&traced.daemon, "left-behind");
    let calls = traced.finish();
    let answered = calls.iter().find(|call| call.answers("202", "left-behind")).expect("answered");
    let is_sync = |call: &&Call| call.is_sync_of("outbox.db-wal") || call.is_sync_of("outbox.db");
    let synced = calls.iter().find(is_sync).and_then(|call| call.returned);
    assert!(synced.is_some_and(|at| at < answered.began), "promised from the page cache");
}

#[test]
fn a_message_is_acknowledged_only_after_the_sync_of_its_row_returned() {
    if !can_trace() {
        return;
    }
    let mesh = Mesh::new();
    let bob = Traced::start(&mesh.bob);
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    // The first is not looked at: alice's coming and going is still being talked about.
    let ids: Vec<String> = (0..6).map(|number| format!("inbound-{number:02}")).collect();
    for id in &ids {
        let body = json!({"to": "bob", "message": "m", "client_message_id": id});
        assert_eq!(alice.send(&body).status(), 202);
        eventually("the message", || {
            let inbox = bob.daemon.inbox();
            inbox.iter().any(|message| message["client_message_id"] == id.as_str()).then_some(())
        });
    }
    let calls = bob.finish();
    for id in &ids[1..] {
        let written = calls.iter().find(|call| call.writes_to("inbox.db-wal", id));
        let written = written.and_then(|call| call.returned).expect("was written");
        let synced = calls
            .iter()
            .find(|call| call.began > written && call.is_sync_of("inbox.db-wal"))
            .and_then(|call| call.returned)
            .expect("was synced");
        // Frames to the broker are masked, so the text cannot be read: but a quiet link has nothing
        // else to say.
        let to_broker = |call: &&Call| call.began > written && call.text.contains("<TCP:");
        let said = calls.iter().find(to_broker).expect("was acknowledged");
        assert!(synced < said.began, "{id} was acknowledged before it was on disk");
    }
}

#[test]
fn a_full_disk_refuses_accepts_nothing_and_recovers() {
    let mut mesh = Mesh::new();
    let Some(disk) = SmallDisk::mount(&mesh.alice.daemon_dir(), WITHOUT_RESERVE) else { return };
    mesh.broker.process.kill();
    // Beside the small disk, or it could not say anything.
    let log = mesh.alice.path().join("log");
    std::os::unix::fs::symlink(&log, mesh.alice.daemon_dir().join("daemon.log")).expect("links");
    let mut alice = Daemon::start(&mesh.alice);
    send(&alice, "before");
    disk.fill();
    let text = "x".repeat(40_000);
    let body = |id: &str| json!({"to": "*", "message": text, "client_message_id": id});
    let mut accepted = vec!["before".to_owned()];
    let mut refused = Vec::new();
    for number in 0..60 {
        let id = format!("full-{number}");
        let answer = alice.send(&body(&id));
        match answer.status() {
            // The log had room that it already owned.
            202 => accepted.push(id),
            507 => {
                assert_eq!(answer.json()["error"], "insufficient_storage", "{answer:?}");
                refused.push(id);
            }
            _ => panic!("{answer:?}"),
        }
    }
    assert!(refused.len() > 10, "{} refused, {} accepted", refused.len(), accepted.len());
    assert!(alice.process.is_running());
    let health = alice.get("/v1/health").json();
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["reasons"].to_string().contains("the disk is full"), "{health}");
    assert_eq!(alice.get("/v1/events").status(), 507);
    for id in &accepted {
        assert_eq!(alice.status(id), "pending", "{id}");
    }
    for id in &refused {
        assert_eq!(alice.get(&format!("/v1/messages/{id}")).status(), 404, "{id}");
    }
    disk.make_room();
    // By itself: nothing is sent, and nothing is started again.
    eventually("a daemon that is well", || {
        (alice.get("/v1/health").json()["status"] == "ok").then_some(())
    });
    eventually("an accept after there is room", || {
        (alice.send(&body(&refused[0])).status() == 202).then_some(())
    });
    accepted.push(refused[0].clone());
    let log = eventually("the word that all is well", || {
        let log = std::fs::read_to_string(&log).expect("reads");
        log.contains("the database can be written again").then_some(log)
    });
    let failures = log.lines().filter(|line| line.contains("a commit failed")).count();
    assert!((1..=LOGGED_FAILURES_MAX).contains(&failures), "said {failures} times:\n{log}");
    alice.process.kill();
    let alice = Daemon::start(&mesh.alice);
    for id in &accepted {
        assert_eq!(alice.status(id), "pending", "{id} was accepted and is lost");
    }
    mesh.restart_broker();
    for id in &accepted {
        alice.wait_for_status(id, "done");
    }
}

#[test]
fn a_receiver_with_a_full_disk_leaves_the_message_with_the_broker() {
    let mesh = Mesh::new();
    let Some(disk) = SmallDisk::mount(&mesh.bob.daemon_dir(), WITHOUT_RESERVE) else { return };
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    disk.fill();
    let text = "x".repeat(40_000);
    for number in 0..40 {
        let id = format!("m-{number}");
        let body = json!({"to": "bob", "message": text, "client_message_id": id});
        assert_eq!(alice.send(&body).status(), 202);
    }
    eventually("every send to be done", || {
        (alice.get("/v1/health").json()["outbox"]["done"] == 40).then_some(())
    });
    eventually("the receiver to notice", || {
        let log = mesh.bob.log();
        // The log lives on the full disk, too: it may say nothing.
        (log.contains("cannot store") || bob.inbox().len() < 40).then_some(())
    });
    assert_eq!(bob.get("/v1/health").status(), 200);
    disk.make_room();
    // A new connection is given at once what was never acknowledged.
    drop(bob);
    let bob = Daemon::start(&mesh.bob);
    eventually("all of it, once", || (bob.inbox().len() == 40).then_some(()));
}
