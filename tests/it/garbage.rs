//! Rubbish from every side: the daemon and the broker go on serving, stay small, say little, keep
//! their secrets, and refuse what they cannot use with a documented exit code.

mod files;

use crate::support::chance::{Chance, seed};
use crate::support::rig::{Daemon, Home, Mesh, PATIENCE, eventually};
use crate::support::rubbish;
use crate::support::script::{self, Script, Socket};
use crate::support::vitals;
use async_tungstenite::tungstenite::{self, Bytes, Message};
use claudemesh_base::message::{SecretKey, signed};
use claudemesh_fsm::id::Millis;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

const PIECES: usize = 10_000;

const CHECKED_EVERY: usize = 1000;

/// Start, and whatever is worth one line.
const LOG_LINES_MAX: usize = 40;

/// Sends one piece of rubbish and reads whatever comes, to the end.
fn throw(socket: &Path, bytes: &[u8], is_whole: bool) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // The daemon may close before it has read everything.
    let _ = stream.write_all(bytes);
    if !is_whole {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn ten_thousand_malformed_requests_stop_nothing() {
    let mut mesh = Mesh::new();
    mesh.broker.process.kill();
    // Short timers: some requests promise more than they bring.
    let config = mesh.alice.daemon_dir().join("config.toml");
    std::fs::write(config, "[ipc]\nhead_ms = 200\nrequest_ms = 200\nidle_ms = 200\n")
        .expect("writes");
    let alice = Daemon::start(&mesh.alice);
    let pid = alice.process.pid();
    let mut chance = Chance::new(seed());
    let (mut answered, mut accepted) = (0, 0);
    for number in 1..=PIECES {
        let (request, is_whole) = rubbish::request(&mut chance);
        let answer = throw(alice.socket(), &request, is_whole);
        if !answer.is_empty() {
            answered += 1;
            let line = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
            let status: u16 = line.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
            // 503: a name, while no roster was ever fetched.
            assert!(matches!(status, 100..=499 | 503), "{line} to {request:?}");
            accepted += usize::from(status == 202);
        }
        if number % CHECKED_EVERY == 0 {
            vitals::assert_healthy(&alice, &mesh.alice, pid, LOG_LINES_MAX);
        }
    }
    println!("{answered} of {PIECES} answered, {accepted} of them with 202");
    let pending = alice.get("/v1/health").json()["outbox"]["pending"].as_u64();
    // A client that shuts its side down may be accepted without hearing of it.
    assert!(pending >= Some(accepted as u64), "{pending:?}");
    vitals::assert_clean_log(&mesh.alice);
}

#[test]
fn ten_thousand_malformed_frames_from_a_broker_stop_nothing() {
    let seed = seed();
    let thrown = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (counter, order) = (thrown.clone(), std::sync::atomic::Ordering::SeqCst);
    let script = Script::start(move |stream, number| {
        let mut chance = Chance::new(seed ^ (number as u64) << 32);
        let Ok(mut raw) = stream.try_clone() else { return };
        let Some(mut socket) = script::open(stream) else { return };
        while counter.load(order) < PIECES {
            counter.fetch_add(1, order);
            if throw_frame(&mut chance, &mut socket, &mut raw).is_none() {
                return;
            }
        }
        // Well-behaved from here on.
        while let Some(frame) = script::receive(&mut socket) {
            if frame["type"] == "send" {
                let ack = json!({"type": "ack", "id": frame["id"], "messageId": "b", "code": 201});
                script::say(&mut socket, &ack);
            }
        }
    });
    let mut mesh = Mesh::new();
    mesh.broker.process.kill();
    mesh.alice.reach_broker_through(script.port);
    let config = mesh.alice.daemon_dir().join("config.toml");
    std::fs::write(config, "[link]\nbackoff_cap_ms = 100\n").expect("writes");
    let alice = Daemon::start(&mesh.alice);
    let pid = alice.process.pid();
    for wanted in (CHECKED_EVERY..=PIECES).step_by(CHECKED_EVERY) {
        eventually("more rubbish", || (thrown.load(order) >= wanted).then_some(()));
        vitals::assert_healthy(&alice, &mesh.alice, pid, LOG_LINES_MAX);
    }
    alice.wait_for_link("open");
    let body = json!({"to": "*", "message": "m", "client_message_id": "after"});
    assert_eq!(alice.send(&body).status(), 202);
    alice.wait_for_status("after", "done");
    println!("{} connections, {} rows in the inbox", script.connections(), alice.inbox().len());
    vitals::assert_healthy(&alice, &mesh.alice, pid, LOG_LINES_MAX);
    vitals::assert_clean_log(&mesh.alice);
}

/// One frame; now and then one that no connection survives.
fn throw_frame(chance: &mut Chance, socket: &mut Socket, raw: &mut TcpStream) -> Option<()> {
    match chance.below(200) {
        0 => {
            let len = 1 + chance.below(300);
            raw.write_all(&chance.bytes(len)).ok()?;
            // Rubbish may look like the beginning of a long frame: no more is to come.
            raw.shutdown(Shutdown::Write).ok()
        }
        // Text that is not UTF-8; a control frame that is too long; a reserved opcode.
        1 => raw.write_all(&[0x81, 0x02, 0xff, 0xfe]).ok(),
        2 => raw
            .write_all(&[0x89, 0x7e, 0x01, 0x00])
            .ok()
            .and_then(|()| raw.write_all(&[0; 256]).ok()),
        3 => raw.write_all(&[0x83, 0x00]).ok(),
        4..=9 => {
            let len = chance.below(500);
            socket.send(Message::Binary(Bytes::from(chance.bytes(len)))).ok()
        }
        10..=14 => {
            let len = chance.below(120);
            socket.send(Message::Ping(Bytes::from(chance.bytes(len)))).ok()
        }
        15..=19 => {
            let len = chance.below(120);
            socket.send(Message::Pong(Bytes::from(chance.bytes(len)))).ok()
        }
        _ => {
            let frame = rubbish::broker_frame(chance);
            // What takes the membership away is not rubbish, and ends the daemon by contract.
            let revokes = frame.contains("revoked");
            socket.send(Message::text(if revokes { String::new() } else { frame })).ok()
        }
    }
}

/// A client of the broker that is in, as alice.
fn enter(port: u16, home: &Home) -> Option<Socket> {
    let config = std::fs::read_to_string(home.path().join("config.json")).expect("reads");
    let config: Value = serde_json::from_str(&config).expect("is JSON");
    let mesh = &config["meshes"][0];
    let text = |name: &str| mesh[name].as_str().expect("a field").to_owned();
    let seed = data_encoding::HEXLOWER.decode(&text("secretKey").as_bytes()[..64]).expect("hex");
    let key = SecretKey::from_seed(seed.try_into().expect("32 bytes"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now");
    let at = Millis(now.as_millis() as i64);
    let words = signed::hello(&text("meshId"), &text("memberId"), &key.public(), at);
    let mut socket = dial(port)?;
    let hello = json!({"type": "hello", "meshId": text("meshId"), "memberId": text("memberId"),
        "pubkey": text("pubkey"), "sessionId": "by-hand", "pid": 1, "cwd": "/", "timestamp": at.0,
        "signature": key.sign(&words)});
    script::say(&mut socket, &hello)?;
    script::receive_type(&mut socket, "hello_ack")?;
    Some(socket)
}

fn dial(port: u16) -> Option<Socket> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    tungstenite::client(format!("ws://127.0.0.1:{port}/ws"), stream).ok().map(|(socket, _)| socket)
}

#[test]
fn ten_thousand_malformed_frames_to_a_broker_stop_nothing() {
    let mesh = Mesh::new();
    let pid = mesh.broker.process.pid();
    let mut chance = Chance::new(seed());
    let (mut connections, mut thrown) = (0, 0);
    while thrown < PIECES {
        connections += 1;
        let is_in = !chance.one_in(4);
        let socket =
            if is_in { enter(mesh.broker.port, &mesh.alice) } else { dial(mesh.broker.port) };
        let mut socket = socket.expect("the broker takes a good client");
        let mut raw = socket.get_ref().try_clone().expect("clones");
        let reader = raw.try_clone().expect("clones");
        // What the broker answers must be read, or it stops reading.
        let drain = std::thread::spawn(move || {
            let mut reader = reader;
            let mut buffer = [0; 16 * 1024];
            while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        for _ in 0..200 {
            thrown += 1;
            let sent = match chance.below(300) {
                0 => {
                    let len = 1 + chance.below(300);
                    raw.write_all(&chance.bytes(len)).ok().and(None)
                }
                // Not masked; not UTF-8; a reserved opcode.
                1 => raw.write_all(&[0x81, 0x02, b'h', b'i']).ok(),
                2 => raw.write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).ok(),
                3 => raw.write_all(&[0x83, 0x80, 0, 0, 0, 0]).ok(),
                4..=19 => {
                    let len = chance.below(500);
                    socket.send(Message::Binary(Bytes::from(chance.bytes(len)))).ok()
                }
                _ => socket.send(Message::text(rubbish::client_frame(&mut chance))).ok(),
            };
            if sent.is_none() {
                break;
            }
        }
        let _ = raw.shutdown(Shutdown::Both);
        drain.join().expect("no panic");
        assert!(vitals::rss_kib(pid) < vitals::RSS_KIB_MAX, "{} KiB", vitals::rss_kib(pid));
        assert!(vitals::fds(pid) < vitals::FDS_MAX, "{} files open", vitals::fds(pid));
    }
    println!("{thrown} frames over {connections} connections");
    // Two daemons still exchange a message.
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    assert_eq!(alice.send(&json!({"to": "bob", "message": "still here"})).status(), 202);
    eventually("the message", || {
        let inbox = bob.inbox();
        inbox.iter().any(|message| message["body"] == "still here").then_some(())
    });
}

#[test]
fn a_thousand_malformed_requests_to_a_broker_stop_nothing() {
    let mesh = Mesh::new();
    let pid = mesh.broker.process.pid();
    let mut chance = Chance::new(seed());
    for _ in 0..1000 {
        let (request, _) = rubbish::request(&mut chance);
        let mut stream = TcpStream::connect(("127.0.0.1", mesh.broker.port)).expect("listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(&request));
    }
    assert!(vitals::rss_kib(pid) < vitals::RSS_KIB_MAX, "{} KiB", vitals::rss_kib(pid));
    assert!(enter(mesh.broker.port, &mesh.alice).is_some());
}

/// Keeps the import honest where a platform has no `/proc`.
#[test]
fn vitals_are_read() {
    let pid = std::process::id();
    if Path::new("/proc/self/status").exists() {
        assert!(vitals::rss_kib(pid) > 0 && vitals::fds(pid) > 0);
        while vitals::cpu_ticks(pid) == 0 {}
    }
}
