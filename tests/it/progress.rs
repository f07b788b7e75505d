//! No loop ever touches a row that cannot progress (§4.6), and one mesh never delays another:
//! counted in attempts, commits, sends and log lines of real daemons while other messages pass.

use crate::support::rig::{Daemon, Mesh, eventually};
use crate::support::script::{Script, Socket, negotiated, open, receive, receive_type, say};
use crate::support::vitals;
use async_tungstenite::tungstenite;
use serde_json::{Value, json};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// The longest back-off of a row here, in milliseconds, where a row may be tried again.
const CAP_MS: u64 = 100;
/// A cap that is not reached: what goes out before it, goes for another reason.
pub const NEVER_MS: u64 = 250_000;
/// Rows that cannot progress.
pub const ROWS: usize = 40;
/// Messages that pass beside them. Each wakes the loop that looks for what is due.
const PASSING: usize = 40;
/// What a message that passes costs in commits: accept, claim, end, and a receipt.
const COMMITS_EACH: u32 = 4;
/// A condition is logged once and then counted; start and state changes have lines of their own.
const LOG_LINES_MAX: usize = 20;
/// The key of somebody who is not there.
pub const ABSENT: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
/// The key of somebody else who is not there.
const ALSO_ABSENT: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
/// 64 hexadecimal digits, and no key: sealing for it fails.
const NO_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A daemon whose broker is a script.
pub struct Watched {
    pub mesh: Mesh,
    pub alice: Daemon,
}

impl Watched {
    pub fn start(cap_ms: u64, script: &Script) -> Self {
        let mut mesh = Mesh::new();
        mesh.broker.process.kill();
        mesh.alice.reach_broker_through(script.port);
        Self::start_at(cap_ms, mesh)
    }

    fn start_at(cap_ms: u64, mesh: Mesh) -> Self {
        // No answer is late here, however slow the machine.
        mesh.alice.configure(&format!(
            "[link]\nbackoff_cap_ms = 100\nack_ms = 600000\n[outbox]\nbackoff_cap_ms = {cap_ms}\n"
        ));
        let alice = Daemon::start(&mesh.alice);
        Self { mesh, alice }
    }

    fn send(&self, mesh: &str, to: &str, id: &str) {
        let body = json!({"mesh": mesh, "to": to, "message": "m", "client_message_id": id});
        let answer = self.alice.send(&body);
        assert_eq!(answer.status(), 202, "{answer:?}");
    }

    pub fn send_all(&self, to: &str) {
        (0..ROWS).for_each(|number| self.send("demo", to, &id(number)));
    }

    fn row(&self, id: &str) -> Value {
        self.alice.get(&format!("/v1/messages/{id}")).json()
    }

    /// All attempts of the rows that cannot progress.
    fn attempts(&self) -> u64 {
        (0..ROWS).map(|number| self.row(&id(number))["attempts"].as_u64().unwrap_or(0)).sum()
    }

    pub fn wait_until_all_are(&self, status: &str) {
        (0..ROWS).for_each(|number| self.alice.wait_for_status(&id(number), status));
    }

    /// Sends other messages, one after the other, and waits until each is done: had the loop any
    /// business with the rows that cannot progress, it would have done it many times meanwhile. The
    /// commits must be those of the messages that passed.
    fn let_others_pass(&self) {
        let home = &self.mesh.alice;
        let before = vitals::commits(home, "outbox");
        for number in 0..PASSING {
            let id = format!("{PASSES}{number}");
            self.send("demo", "*", &id);
            self.alice.wait_for_status(&id, "done");
        }
        let commits = vitals::commits(home, "outbox").wrapping_sub(before);
        assert!(commits <= COMMITS_EACH * PASSING as u32, "{commits} commits");
    }

    fn assert_well(&self, lines_max: usize) {
        let pid = self.alice.process.pid();
        vitals::assert_healthy(&self.alice, &self.mesh.alice, pid, lines_max);
        vitals::assert_clean_log(&self.mesh.alice);
    }
}

/// What the ids of messages begin with that a refusing broker takes all the same.
const PASSES: &str = "passes-";

fn id(number: usize) -> String {
    format!("m{number:03}")
}

fn taken(send: &Value) -> Value {
    json!({"type": "ack", "id": send["id"], "messageId": format!("b-{}", send["id"]), "code": 201})
}

fn refusal(send: &Value, words: &str, code: u16) -> Value {
    json!({"type": "ack", "id": send["id"], "messageId": "", "queued": false, "error": words,
        "code": code})
}

/// A broker that answers every send with these words and counts them, but takes what passes.
pub fn refusing(words: &'static str, code: u16) -> (Script, Arc<AtomicUsize>) {
    let sends = Arc::new(AtomicUsize::new(0));
    let counted = sends.clone();
    let script = Script::start(move |stream, _| {
        let Some(mut socket) = open(stream) else { return };
        while let Some(send) = receive_type(&mut socket, "send") {
            if send["client_message_id"].as_str().is_some_and(|id| id.starts_with(PASSES)) {
                say(&mut socket, &taken(&send));
            } else {
                counted.fetch_add(1, Ordering::SeqCst);
                say(&mut socket, &refusal(&send, words, code));
            }
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
    watched.let_others_pass();
    assert_eq!(sends.load(Ordering::SeqCst), ROWS);
    assert_eq!(watched.attempts(), ROWS as u64);
    watched.assert_well(LOG_LINES_MAX);
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
            Some("send") if here.iter().any(|(_, key)| frame["targetSpec"] == *key) => {
                say(&mut socket, &taken(&frame))?
            }
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
fn rows_of_a_busy_broker_are_tried_again_and_no_try_costs_more_than_its_two_commits() {
    let (script, sends) = refusing("later", 503);
    let watched = Watched::start(CAP_MS, &script);
    watched.alice.wait_for_link("open");
    watched.send_all("*");
    let tried = |times: usize| {
        eventually("more attempts", || {
            let sends = sends.load(Ordering::SeqCst);
            (sends >= times * ROWS).then_some(sends)
        })
    };
    let commits = || vitals::commits(&watched.mesh.alice, "outbox");
    // Of what is under way at either look, one commit may be on the wrong side of it.
    let (before, first) = (tried(1), commits());
    let (after, last) = (tried(4), commits());
    let (commits, tries) = (last.wrapping_sub(first) as usize, after - before);
    assert!(commits <= 2 * (tries + ROWS), "{commits} commits for {tries} attempts");
    watched.assert_well(LOG_LINES_MAX);
}

#[test]
fn rows_of_a_rate_limited_link_wait_with_it_and_pay_no_attempt() {
    const REFUSED: usize = 2 * ROWS;
    let sends = Arc::new(AtomicUsize::new(0));
    let counted = sends.clone();
    let script = Script::start(move |stream, _| {
        let Some(mut socket) = open(stream) else { return };
        while let Some(send) = receive_type(&mut socket, "send") {
            let answer = if counted.fetch_add(1, Ordering::SeqCst) < REFUSED {
                refusal(&send, "rate limit: max 1 msg/min, slow down", 429)
            } else {
                taken(&send)
            };
            say(&mut socket, &answer);
        }
    });
    let watched = Watched::start(CAP_MS, &script);
    watched.alice.wait_for_link("open");
    watched.send_all("*");
    watched.wait_until_all_are("done");
    assert_eq!(watched.attempts(), ROWS as u64, "what was refused was no attempt");
    assert_eq!(sends.load(Ordering::SeqCst), REFUSED + ROWS, "nothing was sent beside that");
    watched.assert_well(LOG_LINES_MAX);
}

#[test]
fn a_row_whose_sealing_fails_fails_once() {
    let (script, sends) = refusing("never asked", 503);
    let watched = Watched::start(CAP_MS, &script);
    watched.alice.wait_for_link("open");
    watched.send("demo", NO_KEY, "unsealable");
    watched.alice.wait_for_status("unsealable", "dead");
    watched.let_others_pass();
    let row = watched.row("unsealable");
    assert_eq!(row["attempts"].as_u64(), Some(1), "{row}");
    assert!(row["last_error"].as_str().is_some_and(|why| why.contains("key")), "{row}");
    assert_eq!(sends.load(Ordering::SeqCst), 0);
    watched.assert_well(LOG_LINES_MAX);
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
    watched.alice.wait_for_link_of("poor", "refused");
    watched.let_others_pass();
    assert_eq!(watched.attempts(), 0);
    watched.wait_until_all_are("pending");
    watched.assert_well(LOG_LINES_MAX);
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
    for slug in ["demo", "stalled"] {
        watched.alice.wait_for_link_of(slug, "open");
    }
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
    // The stalled ones wait for their answers far longer than anybody waits here.
    watched.let_others_pass();
    assert_eq!(watched.row("stalled-0")["attempts"], 1, "and still wait for the first answer");
    assert_eq!(watched.alice.status("stalled-0"), "inflight");
    assert_eq!(watched.alice.status("stalled-399"), "pending");
    is_over.store(true, Ordering::SeqCst);
}
