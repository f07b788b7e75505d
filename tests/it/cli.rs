//! The command line as a person meets it, with a home of its own and no daemon.

use crate::support::snap::pin_as_is;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

struct Home(TempDir);

/// A daemon that a failing test leaves behind would live on.
impl Drop for Home {
    fn drop(&mut self) {
        // Most tests start none; that is no failure.
        let _ = self.command(&["daemon", "down"]).output();
    }
}

struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claudemesh"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.0.path())
            .env("USER", "alice")
            .stdin(Stdio::null());
        command
    }

    /// Runs a broker until the guard is dropped; where it listens is in the answer.
    fn broker(&self) -> Broker {
        let mut command = self.command(&["broker", "--listen", "127.0.0.1:0", "--json"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("runs");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line once it listens");
        assert!(line.contains(r#""ok":true"#), "{line}");
        Broker(child)
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("runs"))
    }
}

#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        Self { code: output.status.code(), stdout, stderr }
    }

    fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "one line of JSON: {self:?}");
        serde_json::from_str(&self.stdout).expect("JSON")
    }
}

#[test]
fn help_explains_everything_and_each_command() {
    let home = Home::new();
    for (name, args) in [
        ("help", &["help"][..]),
        ("help-daemon", &["help", "daemon"]),
        ("help-daemon-up", &["daemon", "up", "--help"]),
        ("help-send", &["send", "-h"]),
        ("help-inbox", &["help", "inbox"]),
        ("help-outbox", &["outbox", "--help"]),
        ("help-requeue", &["outbox", "requeue", "--help"]),
        ("help-prune", &["daemon", "outbox", "prune", "--help"]),
        ("help-mesh", &["mesh", "--help"]),
        ("help-join", &["help", "join"]),
        ("help-member", &["help", "member"]),
        ("help-member-ban", &["member", "ban", "--help"]),
        ("help-broker", &["broker", "--help"]),
        ("help-broker-check", &["help", "broker", "check"]),
    ] {
        let ran = home.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
        pin_as_is!("cli", name, &ran.stdout);
    }
    assert_eq!(home.run(&["--help"]).stdout, home.run(&["help"]).stdout);
}

#[test]
fn completions_know_every_command() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = home.run(&["completions", shell]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        pin_as_is!("cli", format!("completions-{shell}"), &ran.stdout);
    }
    let ran = home.run(&["completions", "tcsh"]);
    assert_eq!(ran.code, Some(2));
}

#[test]
fn bash_completes_words_and_flags() {
    let home = Home::new();
    let script = home.run(&["completions", "bash"]).stdout;
    let complete = |words: &str, last: usize| {
        let program = format!(
            "{script}\nCOMP_WORDS=({words})\nCOMP_CWORD={last}\n_claudemesh\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let bash = Command::new("bash").args(["-c", &program]).output();
        // A host without bash has nobody to complete for.
        bash.ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (words, last, expected) in [
        ("claudemesh dae", 1, "daemon\n"),
        ("claudemesh daemon sta", 2, "start\nstatus\n"),
        ("claudemesh send --pri", 2, "--priority\n"),
        ("claudemesh send bob hello --wa", 4, "--wait\n"),
    ] {
        if let Some(found) = complete(words, last) {
            let mut found: Vec<_> = found.lines().collect();
            found.sort_unstable();
            assert_eq!(found.join("\n") + "\n", expected, "{words}");
        }
    }
}

#[test]
fn a_command_line_that_cannot_be_understood_exits_2_and_helps() {
    let home = Home::new();
    let mut page = String::new();
    for args in [
        &[][..],
        &["sned", "bob", "hi"],
        &["daemon", "statsu"],
        &["send", "bob"],
        &["send", "bob", "hi", "--mseh", "x"],
        &["send", "bob", "hi", "--priority", "urgent"],
        &["send", "bob", "hi", "--wait=soon"],
        &["inbox", "--limit", "many"],
        &["inbox", "--since", "yesterday"],
        &["events", "--types", "weather"],
        &["outbox", "list", "--done", "--failed"],
        &["outbox", "requeue"],
        &["outbox", "abort"],
        &["outbox", "prune"],
        &["outbox", "prune", "--before", "yesterday"],
        &["daemon", "up", "--mesh", "nowhere"],
        &["daemon", "up", "--listen", "127.0.0.1:1"],
        &["daemon", "up", "--tcp", "--no-tcp"],
        &["mesh", "invite", "demo", "--uses", "0"],
        &["mesh", "invite", "demo", "--role", "king"],
        &["join", "http://localhost/nothing"],
        &["join", "https://claudemesh.com/i/abc"],
    ] {
        let ran = home.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{args:?} {ran:?}");
        page += &format!("$ claudemesh {}\n{}\n", args.join(" "), ran.stderr);
        let ran = home.run(&[args, &["--json"]].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""), "{args:?}");
        assert_eq!((&ran.json()["ok"], &ran.json()["exit"]), (&json!(false), &json!(2)));
    }
    pin_as_is!("cli", "usage-errors", &page);
}

#[test]
fn a_wrong_config_toml_exits_2_and_names_the_key() {
    let home = Home::new();
    let dir = home.0.path().join(".claudemesh/daemon");
    std::fs::create_dir_all(&dir).expect("created");
    std::fs::write(dir.join("config.toml"), "[outbox]\nmax_age_hour = 1\n").expect("written");
    let ran = home.run(&["daemon", "up"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("did you mean `outbox.max_age_hours`?"), "{}", ran.stderr);
}

#[test]
fn without_a_daemon_every_verb_says_so_and_how_to_start_it() {
    let home = Home::new();
    for args in [
        &["send", "bob", "hi"][..],
        &["inbox"],
        &["inbox", "--follow"],
        &["events"],
        &["peers"],
        &["outbox", "list"],
        &["outbox", "requeue", "7"],
        &["outbox", "inspect", "7"],
        &["outbox", "abort", "7"],
        &["outbox", "prune", "--before", "7d"],
        &["daemon", "version"],
    ] {
        let ran = home.run(args);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{args:?} {ran:?}");
        assert_eq!(
            ran.stderr,
            "error: the daemon is not running\nhint:  start it with `claudemesh daemon up`\n"
        );
        let ran = home.run(&[args, &["--json", "--home", "/nonexistent/h"]].concat());
        assert_eq!(ran.json()["error"], "daemon_not_running", "{args:?}");
        assert!(ran.json()["hint"].as_str().expect("a hint").contains("--home /nonexistent/h"));
    }
}

#[test]
fn the_status_of_a_stopped_daemon_exits_3_and_stopping_it_exits_0() {
    let home = Home::new();
    for status in [&["daemon", "status"][..], &["daemon", "ps"]] {
        let ran = home.run(status);
        assert_eq!(ran.code, Some(3));
        assert_eq!(ran.stdout, "daemon   not running; start it with `claudemesh daemon up`\n");
        let ran = home.run(&[status, &["--json"]].concat());
        assert_eq!((ran.code, ran.json()), (Some(3), json!({ "running": false })));
    }
    let ran = home.run(&["daemon", "down"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "daemon not running\n"));
    let ran = home.run(&["--json", "daemon", "stop"]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.json(), json!({ "stopped": false, "reason": "not_running" }));
    assert!(!home.0.path().join(".claudemesh").exists(), "looking makes nothing");
}

#[test]
fn a_link_that_is_no_invite_is_refused_and_writes_nothing() {
    let home = Home::new();
    for (link, complaint) in [
        ("http://localhost:1/join/eyJ2Ijo", "cut off"),
        ("ic://join/e30", "`v`"),
        ("ic://join/eyJ2IjoyfQ", "version 2"),
    ] {
        let ran = home.run(&["join", link]);
        assert_eq!(ran.code, Some(1), "{link}");
        assert!(ran.stderr.contains(complaint), "{link}: {}", ran.stderr);
    }
    assert!(!home.0.path().join(".claudemesh").exists());
}

#[test]
fn a_mesh_can_be_made_invited_to_and_joined_without_a_running_broker() {
    let home = Home::new();
    let created = home.run(&["mesh", "create", "demo", "--json"]);
    assert_eq!(created.code, Some(0), "{created:?}");
    assert_eq!(created.json()["display_name"], "alice");
    let listed = home.run(&["mesh", "list", "--json"]).json();
    assert_eq!(listed["meshes"][0]["mesh"], "demo");
    assert_eq!(listed["meshes"][0]["member_pubkey"], created.json()["member_pubkey"]);

    let again = home.run(&["mesh", "create", "demo"]);
    assert_eq!(again.code, Some(5), "{again:?}");
    let invited = home.run(&["mesh", "invite", "demo", "--expires", "1h", "--uses", "2"]);
    assert_eq!(invited.code, Some(0), "{invited:?}");
    let link = invited.stdout.trim_end();
    assert!(link.starts_with("http://127.0.0.1:") && link.contains("/join/"), "{link}");
    // Whoever made the mesh is in it already.
    let joined = home.run(&["join", link, "--json"]);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    assert_eq!(joined.json()["already_joined"], true);
    let unknown = home.run(&["mesh", "invite", "nowhere"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("mesh create nowhere"), "{}", unknown.stderr);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let home = Home::new();
    let mut child = home
        .command(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().expect("ends"));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn the_version_is_the_same_whoever_asks() {
    let home = Home::new();
    let expected = format!("claudemesh {}\n", env!("CARGO_PKG_VERSION"));
    for args in [&["version"][..], &["--version"], &["-V"], &["send", "--version"]] {
        assert_eq!(home.run(args).stdout, expected, "{args:?}");
    }
    assert_eq!(home.run(&["version", "--json"]).json()["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_daemon_comes_up_once_says_who_runs_and_goes_down() {
    let home = Home::new();
    let first = home.run(&["daemon", "up", "--no-tcp", "--json"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    let pid = first.json()["pid"].clone();
    let second = home.run(&["daemon", "up", "--json"]);
    assert_eq!((second.code, &second.json()["pid"]), (Some(0), &pid));
    assert_eq!(
        (&first.json()["started"], &second.json()["started"]),
        (&json!(true), &json!(false))
    );
    let status = home.run(&["status", "--json"]);
    assert_eq!((status.code, &status.json()["pid"]), (Some(0), &pid));
    let down = home.run(&["daemon", "down", "--json"]);
    assert_eq!((down.code, down.json()), (Some(0), json!({ "stopped": true, "pid": pid })));
    assert_eq!(home.run(&["daemon", "status"]).code, Some(3));
}

#[test]
fn two_people_meet_over_a_link_and_a_message_arrives_once() {
    let (alice, bob) = (Home::new(), Home::new());
    let _broker = alice.broker();
    assert_eq!(alice.run(&["mesh", "create", "demo"]).code, Some(0));
    let link = alice.run(&["mesh", "invite", "demo"]).stdout;
    // Bob's daemon runs before he joins anything: joining attaches the mesh.
    for home in [&alice, &bob] {
        let up = home.run(&["daemon", "up", "--no-tcp"]);
        assert_eq!(up.code, Some(0), "{up:?}");
    }
    let joined = bob.run(&["join", link.trim_end(), "--name", "bob", "--json"]);
    assert_eq!((joined.code, &joined.json()["daemon_running"]), (Some(0), &json!(true)));
    let key = joined.json()["member_pubkey"].as_str().expect("a key").to_owned();
    for duplicate in [json!(null), json!(true)] {
        let sent = alice.run(&["send", &key, "hola", "--id", "m1", "--wait=20s", "--json"]);
        assert_eq!((sent.code, &sent.json()["status"]), (Some(0), &json!("done")), "{sent:?}");
        assert_eq!(sent.json()["duplicate"], duplicate);
    }
    let other = alice.run(&["send", &key, "another", "--id", "m1", "--json"]);
    assert_eq!((other.code, &other.json()["error"]), (Some(5), &json!("idempotency_key_reused")));

    let mut follow = bob.command(&["inbox", "--follow", "--json"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("runs");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("a line").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    assert_eq!(next()["body"], "hola");
    assert_eq!(alice.run(&["send", &key, "adiós", "--wait=20s"]).code, Some(0));
    assert_eq!(next()["body"], "adiós");
    follow.kill().expect("runs");
    follow.wait().expect("ends");
    let seen = bob.run(&["inbox", "--unread", "--mark-seen", "--json"]).json();
    assert_eq!(seen["items"].as_array().map(Vec::len), Some(2), "each message once");
    let seen = bob.run(&["inbox", "--unread", "--json"]).json();
    assert_eq!(seen["items"], json!([]));
}

#[test]
fn a_followed_message_is_marked_as_seen_once_it_is_shown() {
    let home = Home::new();
    let up = home.run(&["daemon", "up", "--local", "--listen", "127.0.0.1:0", "--no-tcp"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    let (link, other) = (home.run(&["mesh", "invite", "local"]).stdout, Home::new());
    assert_eq!(other.run(&["join", link.trim_end(), "--name", "bob"]).code, Some(0));
    assert_eq!(other.run(&["daemon", "up", "--no-tcp"]).code, Some(0));
    let mut follow = other.command(&["inbox", "--follow", "--mark-seen", "--json"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("runs");
    let mut lines = BufReader::new(follow.stdout.take().expect("piped")).lines();
    // The first may be listed or followed; the second is followed for certain, and when the third
    // is shown the second has been marked.
    for text in ["one", "two", "three"] {
        assert_eq!(home.run(&["send", "bob", text, "--wait=20s"]).code, Some(0));
        let line = lines.next().expect("a line").expect("text");
        assert!(line.contains(&format!("\"body\":\"{text}\"")), "{line}");
    }
    follow.kill().expect("runs");
    follow.wait().expect("ends");
    let unread = other.run(&["inbox", "--unread", "--json"]).json();
    let unread: Vec<_> = unread["items"].as_array().expect("items").iter().collect();
    assert!(unread.iter().all(|message| message["body"] == "three"), "{unread:?}");
}
