//! Rubbish in files and on the command line: it is refused in words, with a documented exit code.

use crate::support::chance::{Chance, seed};
use crate::support::rig::{self, Daemon, Home, Mesh, PATIENCE, eventually};
use crate::support::rubbish;
use crate::support::vitals;
use serde_json::json;

/// The end of a command line that must fail: its exit code, with words and without a panic.
fn refused(home: &Home, args: &[&str]) -> (Option<i32>, String) {
    let output = home.cli_within(PATIENCE, args);
    let output = output.unwrap_or_else(|| panic!("{args:?} was not refused"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{args:?}: {said}");
    assert!(!output.status.success(), "{args:?}: {said}");
    assert!(said.contains("error"), "{args:?}: {said:?}");
    (output.status.code(), said)
}

#[test]
fn two_hundred_malformed_invites_are_refused_in_words() {
    let home = Home::new();
    // Nobody answers there, and nobody else is given the port.
    let authority = format!("127.0.0.1:{}", rig::unused_port());
    let mut chance = Chance::new(seed());
    for _ in 0..200 {
        let link = rubbish::link(&mut chance, &authority);
        if link.starts_with('-') {
            continue;
        }
        let (code, said) = refused(&home, &["join", &link]);
        assert!(matches!(code, Some(1 | 2 | 10)), "{code:?} to {link:?}: {said}");
        let controls = said.chars().filter(|c| c.is_control() && *c != '\n').count();
        assert_eq!(controls, 0, "{said:?}");
    }
    assert!(!home.path().join("config.json").exists());
}

/// Starts a daemon that must not start, and says its exit code.
fn start_refused(home: &Home) -> (Option<i32>, String) {
    refused(home, &["daemon", "up", "--foreground", "--persistent", "--no-tcp"])
}

#[test]
fn damaged_files_are_refused_with_a_documented_code() {
    let mesh = Mesh::new();
    let file = |name: &str| mesh.alice.path().join(name);
    let good = Daemon::start(&mesh.alice);
    good.wait_for_peer("bob");
    drop(good);
    let mut chance = Chance::new(seed());
    for (name, codes) in [
        ("config.json", &[1][..]),
        ("daemon/config.toml", &[2]),
        ("daemon/outbox.db", &[5]),
        ("daemon/local-token", &[1]),
        ("daemon/session-keys.json", &[1]),
    ] {
        let kept = std::fs::read(file(name)).expect("reads");
        let whole: &[&[u8]] = &[
            b"\0\0\0\0",
            b"{\"a\":",
            b"[1,2,3",
            b"\xff\xfe\xfd",
            b"{\"meshes\": [{}]}x",
            b"= = =",
            b"[link]\nack_ms = \"soon\"\n",
            b"SQLite format 3\0 and then nothing",
        ];
        let random: Vec<Vec<u8>> = (0..4)
            .map(|_| {
                let len = 200 + chance.below(9000);
                chance.bytes(len)
            })
            .collect();
        for bytes in whole.iter().map(|bytes| bytes.to_vec()).chain(random) {
            for side in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(file(&format!("{name}{side}")));
            }
            std::fs::write(file(name), &bytes).expect("writes");
            let (code, said) = start_refused(&mesh.alice);
            assert!(codes.iter().any(|wanted| code == Some(*wanted)), "{name} {code:?}: {said}");
            let base = name.rsplit('/').next().expect("a name");
            let stem = base.split('.').next().expect("a stem");
            assert!(said.contains(stem), "{name} is not named: {said}");
            assert_eq!(std::fs::read(file(name)).expect("reads"), bytes, "{name} was changed");
        }
        std::fs::write(file(name), kept).expect("writes");
    }
    // All of it back: nothing was lost by the refusals.
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_link("open");
    vitals::assert_clean_log(&mesh.alice);
}

#[test]
fn damaged_pages_of_the_outbox_are_refused_or_harmless() {
    let mesh = Mesh::new();
    let alice = Daemon::start(&mesh.alice);
    alice.wait_for_peer("bob");
    for number in 0..40 {
        let body = json!({"to": "*", "message": "m".repeat(2000), "client_message_id": format!("m{number}")});
        assert_eq!(alice.send(&body).status(), 202);
    }
    let mut alice = alice;
    assert_eq!(alice.process.terminate(), Some(0));
    drop(alice);
    let path = mesh.alice.daemon_dir().join("outbox.db");
    let good = std::fs::read(&path).expect("reads");
    let mut chance = Chance::new(seed());
    let (mut refusals, mut starts) = (0, 0);
    for _ in 0..25 {
        let mut bytes = good.clone();
        for _ in 0..1 + chance.below(30) {
            let at = chance.below(bytes.len());
            bytes[at] = chance.next() as u8;
        }
        if chance.one_in(4) {
            bytes.truncate(chance.below(good.len()));
        }
        for side in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(path.with_file_name(format!("outbox.db{side}")));
        }
        std::fs::write(&path, bytes).expect("writes");
        let mut daemon = Daemon::spawn(&mesh.alice);
        let verdict = eventually("a daemon that answers or ends", || {
            if !daemon.process.is_running() {
                return Some(daemon.process.wait());
            }
            daemon.try_request(&rig::get("/v1/outbox?limit=500")).ok().map(|_| None)
        });
        match verdict {
            None => {
                starts += 1;
                assert_eq!(daemon.get("/v1/version").status(), 200);
            }
            // 1: a version or a schema that is not ours.
            Some(code) => {
                refusals += 1;
                assert!(code == 5 || code == 1, "{code}");
            }
        }
    }
    println!("{refusals} refused, {starts} started");
    assert!(refusals > 0);
    vitals::assert_clean_log(&mesh.alice);
}

#[test]
fn a_damaged_inbox_is_set_aside_and_the_daemon_starts() {
    let mesh = Mesh::new();
    drop(Daemon::start(&mesh.alice));
    for side in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(mesh.alice.daemon_dir().join(format!("inbox.db{side}")));
    }
    std::fs::write(mesh.alice.daemon_dir().join("inbox.db"), [7; 9000]).expect("writes");
    let alice = Daemon::start(&mesh.alice);
    assert_eq!(alice.inbox().len(), 0);
    let names = std::fs::read_dir(mesh.alice.daemon_dir()).expect("reads");
    let mut names = names.map(|entry| entry.expect("an entry").file_name().into_string());
    assert!(names.any(|name| name.is_ok_and(|name| name.starts_with("inbox.db.corrupt-"))));
    vitals::assert_clean_log(&mesh.alice);
}
