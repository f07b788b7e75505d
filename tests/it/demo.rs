//! The demo, as somebody who has just built it runs it: it ends well, tells what it found, and
//! leaves nothing behind, also when it is interrupted.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The demo with a home of its own, in what looks like CI, with `temporary` as `TMPDIR`.
fn demo(home: &TempDir, temporary: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claudemesh"));
    command.arg("demo").args(args).env_clear().stdin(Stdio::null());
    command.env("HOME", home.path()).env("CI", "true").env("TMPDIR", temporary);
    command
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).expect("a directory").next().is_none()
}

fn lives(pid: &Value) -> bool {
    let pid = i32::try_from(pid.as_i64().expect("a pid")).expect("a pid");
    test_kill_process(Pid::from_raw(pid).expect("a pid")).is_ok()
}

fn pids(step: &Value) -> Vec<Value> {
    let pids: Vec<_> = step["pids"].as_object().expect("pids").values().cloned().collect();
    assert!(pids.len() >= 2, "{step}");
    pids
}

#[test]
fn the_demo_tells_what_it_found_and_leaves_nothing_behind() {
    let (home, temporary) = (TempDir::new().expect("made"), TempDir::new().expect("made"));
    let output = demo(&home, temporary.path(), &[]).output().expect("runs");
    let told = String::from_utf8(output.stdout).expect("text");
    let errors = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), errors.as_str()), (Some(0), ""), "{told}");
    for fact in [
        "alice > POST /v1/send",
        "< 202  {\"client_message_id\":\"demo-1\",\"status\":\"queued\"",
        "bob   < event: message",
        "\"duplicate\":true",
        "< 409  ",
        "idempotency_key_reused",
        "1 pending",
        "the oldest pending for",
        "exactly one copy arrived",
        "daemon up --local",
    ] {
        assert!(told.contains(fact), "{fact} in:\n{told}");
    }
    assert!(!told.contains('\x1b'), "no colours off a terminal");
    assert!(is_empty(temporary.path()), "the directory is gone");
    assert!(is_empty(home.path()), "nothing is written to the home directory");
}

#[test]
fn a_long_temporary_path_is_no_obstacle_and_every_step_is_an_object() {
    let (home, temporary) = (TempDir::new().expect("made"), TempDir::new().expect("made"));
    let long = temporary.path().join("x".repeat(100));
    std::fs::create_dir(&long).expect("made");
    let output = demo(&home, &long, &["--json"]).output().expect("runs");
    let told = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{told}");
    let steps: Vec<Value> =
        told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().expect("a name")).collect();
    assert_eq!(
        names,
        ["start", "send", "arrive", "duplicate", "conflict", "outage", "crash", "end"]
    );
    assert!(steps.iter().all(|step| step["ok"] == true), "{told}");
    let status = |step: usize| &steps[step]["exchanges"][0]["status"];
    assert_eq!([status(1), status(3), status(4), status(5)], [202, 200, 409, 202]);
    assert_eq!(steps[2]["event"]["data"]["broker_message_id"], steps[1]["broker_message_id"]);
    assert_eq!(steps[6]["copies"], 1);
    let started = [pids(&steps[0]), pids(&steps[6])].concat();
    assert!(!started.iter().any(lives), "{started:?}");
    assert!(!Path::new(steps[0]["dir"].as_str().expect("a path")).exists());
    assert!(is_empty(&long));
}

#[test]
fn ctrl_c_and_sigterm_leave_nothing_behind_either() {
    for signal in [Signal::INT, Signal::TERM] {
        let (home, temporary) = (TempDir::new().expect("made"), TempDir::new().expect("made"));
        let mut command = demo(&home, temporary.path(), &["--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut next = || -> Value {
            let line = lines.next().expect("a line").expect("text");
            serde_json::from_str(&line).expect("JSON")
        };
        let start = next();
        let started = pids(&start);
        assert!(started.iter().all(lives), "{start}");
        let pid = Pid::from_raw(child.id().try_into().expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("it lives");
        // Steps that were under way may still be told.
        let end = std::iter::repeat_with(&mut next).find(|step| step["ok"] == false);
        assert_eq!(end.expect("an end")["error"], json!("interrupted"));
        assert_eq!(child.wait().expect("ends").code(), Some(130), "{signal:?}");
        assert!(!started.iter().any(lives), "{started:?}");
        assert!(is_empty(temporary.path()), "the directory is gone");
    }
}
