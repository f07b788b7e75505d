//! No loop ever touches a row that cannot progress (§4.6), and one mesh never delays another:
//! counted in attempts, commits, log lines and processor time of real daemons.

use crate::support::rig::{Daemon, Mesh, eventually};
use crate::support::script::{Script, Socket, negotiated, open, receive, receive_type, say};
use crate::support::vitals;
use async_tungstenite::tungstenite;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How long a daemon is watched: time that is measured, not waited for something.
const WATCHED: Duration = Duration::from_secs(3);
/// The longest back-off of a row here, in milliseconds, where a row may be tried again while it is
/// watched.
const CAP_MS: u64 = 1_000;
/// A cap that is not reached: what goes out before it, goes for another reason.
const NEVER_MS: u64 = 250_000;
/// Rows that cannot progress.
const ROWS: usize = 40;
/// What the watched time may cost in ticks of 10 ms, in a build without optimisation.
const TICKS_MAX: u64 = 60;
/// A condition is logged once and then counted; start and state changes have lines of their own.
const LOG_LINES_MAX: usize = 20;
/// The key of somebody who is not there.
const ABSENT: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
/// The key of somebody else who is not there.
const ALSO_ABSENT: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
/// 64 hexadecimal digits, and no key: sealing for it fails.
const NO_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A daemon whose broker is a script.
struct Watched {
    mesh: Mesh,
    alice: Daemon,
}

/// What a daemon did while it was watched.
#[derive(Debug)]
struct Spent {
    ticks: u64,
    commits: u32,
}

impl Watched {
    fn start(cap_ms: u64, script: &Script) -> Self {
        let mut mesh = Mesh::new();
        mesh.broker.process.kill();
        mesh.alice.reach_broker_through(script.port);
        Self::start_at(cap_ms, mesh)
    }

    fn start_at(cap_ms: u64, mesh: Mesh) -> Self {
        let toml = format!("[link]\nbackoff_cap_ms = 100\n[outbox]\nbackoff_cap_ms = {cap_ms}\n");
        std::fs::write(mesh.alice.daemon_dir().join("config.toml"), toml).expect("writes");
        let alice = Daemon::start(&mesh.alice);
        Self { mesh, alice }
    }

    fn send(&self, mesh: &str, to: &str, id: &str) {
        let body = json!({"mesh": mesh, "to": to, "message": "m", "client_message_id": id});
        let answer = self.alice.send(&body);
        assert_eq!(answer.status(), 202, "{answer:?}");
    }

    fn send_all(&self, to: &str) {
        (0..ROWS).for_each(|number| self.send("demo", to, &id(number)));
    }

    fn row(&self, id: &str) -> Value {
        self.alice.get(&format!("/v1/messages/{id}")).json()
    }

    fn attempts(&self) -> u64 {
        (0..ROWS).map(|number| self.row(&id(number))["attempts"].as_u64().unwrap_or(0)).sum()
    }

    fn wait_until_all_are(&self, status: &str) {
        (0..ROWS).for_each(|number| self.alice.wait_for_status(&id(number), status));
    }

    /// Watches for a while; says what was spent.
    fn watch(&self) -> Spent {
        let pid = self.alice.process.pid();
        let before = (vitals::cpu_ticks(pid), vitals::commits(&self.mesh.alice, "outbox"));
        std::thread::sleep(WATCHED);
        Spent {
            ticks: vitals::cpu_ticks(pid) - before.0,
            commits: vitals::commits(&self.mesh.alice, "outbox").wrapping_sub(before.1),
        }
    }

    fn assert_well(&self, spent: &Spent, lines_max: usize) {
        assert!(spent.ticks <= TICKS_MAX, "{spent:?}");
        let pid = self.alice.process.pid();
        vitals::assert_healthy(&self.alice, &self.mesh.alice, pid, lines_max);
        vitals::assert_clean_log(&self.mesh.alice);
    }
}

fn id(number: usize) -> String {
    format!("m{number:03}")
}

fn refusal(send: &Value, words: &str, code: u16) -> Value {
    json!({"type": "ack", "id": send["id"], "messageId": "", "queued": false, "error": words,
        "code": code})
}

/// A broker that answers every send with these words, and counts them.
fn refusing(words: &'static str, code: u16) -> (Script, Arc<AtomicUsize>) {
    let sends = Arc::new(AtomicUsize::new(0));
    let counted = sends.clone();
    let script = Script::start(move |stream, _| {
        let Some(mut socket) = open(stream) else { return };
        while let Some(send) = receive_type(&mut socket, "send") {
            counted.fetch_add(1, Ordering::SeqCst);
            say(&mut socket, &refusal(&send, words, code));
        }
    });
    (script, sends)
}

#[test]
fn rows_to_an_offline_recipient_are_left_alone_until_the_cap() {
    let (script, sends) = refusing("no connected peer for target", 404);
    let watched = Watched::start(NEVER_MS, &script);
    watched.alice.wait_for_link("open");
    watched.send_all(ABSENT);
    eventually("an attempt of each", || (sends.load(Ordering::SeqCst) >= ROWS).then_some(()));
    watched.wait_until_all_are("pending");
    let spent = watched.watch();
    assert_eq!((spent.commits, sends.load(Ordering::SeqCst)), (0, ROWS), "{spent:?}");
    assert_eq!(watched.attempts(), ROWS as u64);
    watched.assert_well(&spent, LOG_LINES_MAX);
}

/// Who comes, one after the other.
const COMING: [(&str, &str); 3] = [("dave", NO_KEY), ("bob", ABSENT), ("carol", ALSO_ABSENT)];

/// A broker that delivers to the first so many of `COMING`, and says when another has come.
fn serve_presence(stream: TcpStream, present: &AtomicUsize) -> Option<()> {
    let mut socket = open(stream)?;
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(20))).ok()?;
    let mut said = 0;
    loop {
        let here = &COMING[..present.load(Ordering::SeqCst)];
        for (_, key) in &here[said..] {
            say(
                &mut socket,
                &json!({"type": "push", "messageId": "", "meshId": "m",
                "senderPubkey": "system", "priority": "next", "nonce": "", "ciphertext": "",
                "createdAt": "", "subtype": "system", "event": "peer_joined",
                "eventData": {"pubkey": key}}),
            )?;
        }
        said = here.len();
        let frame = match socket.read() {
            Ok(message) => serde_json::from_str(&message.into_text().ok()?).unwrap_or(Value::Null),
            Err(tungstenite::Error::Io(error)) if is_timeout(&error) => continue,
            Err(_) => return None,
        };
        match frame["type"].as_str() {
            Some("list_peers") => {
                let peer = |(name, key): &(_, _)| json!({"pubkey": key, "memberPubkey": key, "displayName": name});
                let peers: Vec<_> = here.iter().map(peer).collect();
                say(
                    &mut socket,
                    &json!({"type": "peers_list", "_reqId": frame["_reqId"], "peers": peers}),
                )?;
            }
            Some("send") if here.iter().any(|(_, key)| frame["targetSpec"] == *key) => say(
                &mut socket,
                &json!({"type": "ack", "id": frame["id"], "messageId": format!("b-{}", frame["id"]),
                    "code": 201}),
            )?,
            Some("send") => say(&mut socket, &refusal(&frame, "recipient_offline", 404))?,
            _ => {}
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

#[test]
fn rows_to_an_offline_recipient_go_out_when_it_joins_whoever_joined_before() {
    let present = Arc::new(AtomicUsize::new(0));
    let count = present.clone();
    let script = Script::start(move |stream, _| {
        serve_presence(stream, &count);
    });
    let watched = Watched::start(NEVER_MS, &script);
    watched.alice.wait_for_link("open");
    watched.send_all(ABSENT);
    watched.send("demo", ALSO_ABSENT, "to-carol");
    let known_peers = |number| {
        let peers = || watched.alice.get("/v1/peers").json();
        eventually("the roster", || {
            (peers()["peers"].as_array().map_or(0, Vec::len) == number).then_some(())
        });
    };
    let attempts_to_carol = || watched.row("to-carol")["attempts"].as_u64().unwrap_or(0);
    eventually("an attempt of each", || {
        (watched.attempts() == ROWS as u64 && attempts_to_carol() == 1).then_some(())
    });
    watched.wait_until_all_are("pending");
    watched.alice.wait_for_status("to-carol", "pending");

    // Long before the cap, and by one more attempt each.
    present.store(1, Ordering::SeqCst);
    known_peers(1);
    present.store(2, Ordering::SeqCst);
    watched.wait_until_all_are("done");
    known_peers(2);
    assert_eq!((watched.attempts(), attempts_to_carol()), (2 * ROWS as u64, 1));
    present.store(3, Ordering::SeqCst);
    watched.alice.wait_for_status("to-carol", "done");
    assert_eq!((watched.attempts(), attempts_to_carol()), (2 * ROWS as u64, 2));
}

#[test]
fn rows_of_a_busy_broker_are_tried_as_often_as_their_back_off_says() {
    let (script, sends) = refusing("later", 503);
    let watched = Watched::start(CAP_MS, &script);
    watched.alice.wait_for_link("open");
    watched.send_all("*");
    eventually("an attempt of each", || (sends.load(Ordering::SeqCst) >= ROWS).then_some(()));
    let before = watched.attempts();
    let spent = watched.watch();
    let tried = watched.attempts() - before;
    // Full jitter waits half the cap on average; eight in three seconds is already unlikely.
    assert!(tried <= 8 * ROWS as u64, "{tried} attempts, {spent:?}");
    // A claim and an end for each attempt, at the very most.
    assert!(u64::from(spent.commits) <= 2 * tried + 2, "{tried} attempts, {spent:?}");
    let pid = watched.alice.process.pid();
    vitals::assert_healthy(&watched.alice, &watched.mesh.alice, pid, LOG_LINES_MAX);
}

#[test]
fn rows_of_a_rate_limited_link_wait_with_it_and_pay_no_attempt() {
    let (script, sends) = refusing("rate limit: max 1 msg/min, slow down", 429);
    let watched = Watched::start(CAP_MS, &script);
    watched.alice.wait_for_link("open");
    watched.send_all("*");
    eventually("a pause", || (sends.load(Ordering::SeqCst) > 0).then_some(()));
    let before = sends.load(Ordering::SeqCst);
    let spent = watched.watch();
    // The pauses double: in three seconds there are at most three ends of one.
    let sent = sends.load(Ordering::SeqCst) - before;
    assert!(sent <= 4 * ROWS, "{sent} sends, {spent:?}");
    eventually("no attempt in flight", || (watched.attempts() == 0).then_some(()));
    watched.assert_well(&spent, LOG_LINES_MAX);
}

#[test]
fn a_row_whose_sealing_fails_fails_once() {
    let (script, sends) = refusing("never asked", 503);
    let watched = Watched::start(CAP_MS, &script);
    watched.alice.wait_for_link("open");
    watched.send("demo", NO_KEY, "unsealable");
    watched.alice.wait_for_status("unsealable", "dead");
    let spent = watched.watch();
    let row = watched.row("unsealable");
    assert_eq!((spent.commits, row["attempts"].as_u64()), (0, Some(1)), "{row} {spent:?}");
    assert!(row["last_error"].as_str().is_some_and(|why| why.contains("key")), "{row}");
    assert_eq!(sends.load(Ordering::SeqCst), 0);
    watched.assert_well(&spent, LOG_LINES_MAX);
}

/// Makes `config.json` name a second mesh, whose broker is on `port`.
fn add_mesh(mesh: &Mesh, slug: &str, port: u16) {
    let path = mesh.alice.path().join("config.json");
    let text = std::fs::read_to_string(&path).expect("reads");
    let mut config: Value = serde_json::from_str(&text).expect("is JSON");
    let meshes = config["meshes"].as_array_mut().expect("meshes");
    let mut second = meshes[0].clone();
    second["slug"] = slug.into();
    second["name"] = slug.into();
    second["meshId"] = format!("id-of-{slug}").into();
    second["brokerUrl"] = format!("ws://127.0.0.1:{port}/ws").into();
    meshes.push(second);
    std::fs::write(&path, config.to_string()).expect("writes");
}

fn link_of(alice: &Daemon, slug: &str) -> Value {
    let health = alice.get("/v1/health").json();
    let meshes = health["meshes"].as_array().cloned().unwrap_or_default();
    meshes.into_iter().find(|mesh| mesh["mesh"] == slug).unwrap_or_default()["link"].clone()
}

/// A broker that has not the features we need.
fn refuse(stream: TcpStream) -> Option<()> {
    let mut socket = tungstenite::accept(stream).ok()?;
    receive_type(&mut socket, "hello")?;
    say(&mut socket, &json!({"type": "hello_ack", "presenceId": "p", "memberDisplayName": "m"}))?;
    receive_type(&mut socket, "feature_negotiation_request")?;
    let mut poor = negotiated();
    poor["supported"] = json!({});
    say(&mut socket, &poor)?;
    while receive(&mut socket).is_some() {}
    Some(())
}

#[test]
fn rows_of_a_refused_mesh_are_not_touched() {
    let is_ready = Arc::new(AtomicBool::new(false));
    let flag = is_ready.clone();
    let script = Script::start(move |stream, _| {
        if flag.load(Ordering::SeqCst) {
            refuse(stream);
        }
    });
    // A daemon ends when its last mesh refuses it, so there is another.
    let mesh = Mesh::new();
    add_mesh(&mesh, "poor", script.port);
    let watched = Watched::start_at(CAP_MS, mesh);
    (0..ROWS).for_each(|number| watched.send("poor", "*", &id(number)));
    is_ready.store(true, Ordering::SeqCst);
    eventually("a refusal", || (link_of(&watched.alice, "poor") == "refused").then_some(()));
    watched.send("demo", "*", "elsewhere");
    watched.alice.wait_for_status("elsewhere", "done");
    let spent = watched.watch();
    assert_eq!((spent.commits, watched.attempts()), (0, 0), "{spent:?}");
    watched.wait_until_all_are("pending");
    watched.assert_well(&spent, LOG_LINES_MAX);
}

/// Takes the connection and then nothing more.
fn stall(stream: TcpStream) -> Option<Socket> {
    open(stream)
}

#[test]
fn a_mesh_whose_broker_reads_nothing_delays_no_other() {
    let is_over = Arc::new(AtomicBool::new(false));
    let flag = is_over.clone();
    let script = Script::start(move |stream, _| {
        let _held = stall(stream);
        while !flag.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mesh = Mesh::new();
    add_mesh(&mesh, "stalled", script.port);
    let watched = Watched::start_at(CAP_MS, mesh);
    eventually("both links", || {
        let is_open = |slug| link_of(&watched.alice, slug) == "open";
        (is_open("demo") && is_open("stalled")).then_some(())
    });
    // More than the buffers of a socket hold, and more rows than may be in flight.
    let text = "x".repeat(40_000);
    for number in 0..400 {
        let body = json!({"mesh": "stalled", "to": "*", "message": text,
            "client_message_id": format!("stalled-{number}")});
        assert_eq!(watched.alice.send(&body).status(), 202);
    }
    eventually("sends that get no answer", || {
        (watched.row("stalled-0")["status"] == "inflight").then_some(())
    });
    let begun = std::time::Instant::now();
    for number in 0..ROWS {
        watched.send("demo", "*", &id(number));
        watched.alice.wait_for_status(&id(number), "done");
    }
    let took = begun.elapsed();
    // The stalled ones wait for their answers five seconds longer than this.
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_ne!(watched.alice.status("stalled-0"), "done");
    assert_eq!(watched.alice.status("stalled-399"), "pending");
    is_over.store(true, Ordering::SeqCst);
}
