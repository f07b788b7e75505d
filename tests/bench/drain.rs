//! How fast a full outbox drains to a broker, next to what the broker takes from a client that does
//! nothing but send.
//!
//! `cargo bench --bench drain` fills the outbox of a real daemon while its broker is down, starts
//! the broker, and measures from the open link to the last `done`. The ceiling, in the same run, is a
//! raw WebSocket client that keeps as many sends in flight to a broker just as empty: fresh ids,
//! bodies of the same size, nothing stored on its side. Last, how long one message takes between two
//! idle daemons. Only the ratio travels from machine to machine.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "caller.rs"]
mod caller;
#[path = "figure.rs"]
mod figure;
#[path = "raw_sender.rs"]
mod raw_sender;
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a bench uses a part of it")]
#[path = "../support"]
mod support {
    pub mod rig;
    pub mod vitals;
}

use caller::{BODY_BYTES, Template, read_202};
use claudemesh_base::paths::Paths;
use claudemesh_daemon::identity::{IdentityConfig, JoinedMesh};
use figure::Figure;
use serde_json::json;
use smol::Executor;
use smol::io::AsyncWriteExt;
use smol::net::unix::UnixStream;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::rig::{Broker, Daemon, Home, Mesh};
use support::vitals;

/// How many rows wait when the broker comes.
const ROWS: u64 = 20_000;
/// How many a run fills the outbox over.
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 3;
/// Single messages between two idle daemons.
const SINGLE_MESSAGES: usize = 300;
const US_PER_TICK: u64 = 10_000;
/// How often the daemon is asked whether it is done; the answer costs it the more the more rows wait.
const ASK_EVERY: Duration = Duration::from_millis(100);

fn main() {
    // `cargo test --benches` and `cargo bench -- --list` only want to know that it builds.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    println!("{ROWS} rows of {BODY_BYTES}-byte bodies, median of {ROUNDS} rounds");
    let rounds: Vec<(Drained, f64)> = (0..ROUNDS).map(|_| (drained(), ceiling())).collect();
    let of = |figure: fn(&(Drained, f64)) -> f64| median(rounds.iter().map(figure));
    let lines = [
        ("drained, per second", of(|round| round.0.per_second)),
        ("raw client, per second", of(|round| round.1)),
        ("drained / raw", of(|round| round.0.per_second / round.1)),
        ("daemon's processor time, µs each", of(|round| round.0.daemon_us)),
        ("broker's processor time, µs each", of(|round| round.0.broker_us)),
        ("daemon's commits, per 1000 rows", of(|round| round.0.commits_per_1000)),
    ];
    for (name, figure) in lines {
        println!("{name:<34} {figure:>10.2}");
    }
    println!("{:<34} {:>10} {:>10} {:>10}", "", "per second", "p50 µs", "p99 µs");
    single_messages().print("one message, daemon to daemon");
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn joined(home: &Home) -> JoinedMesh {
    let paths = Paths::under(home.path()).expect("paths");
    IdentityConfig::load(&paths).expect("reads").meshes.remove(0)
}

/// What draining came to, from the open link to the last `done`.
struct Drained {
    per_second: f64,
    /// Processor time of each process, for one message: says where the time goes on a machine that
    /// others use, too.
    daemon_us: f64,
    broker_us: f64,
    commits_per_1000: f64,
}

fn drained() -> Drained {
    let mut mesh = Mesh::new();
    mesh.broker.process.kill();
    let alice = Daemon::start(&mesh.alice);
    fill(alice.socket(), &joined(&mesh.bob).pubkey().to_hex());
    let pid = alice.process.pid();
    let before = (vitals::cpu_ticks(pid), vitals::commits(&mesh.alice, "outbox"));
    mesh.broker = Broker::start(&mesh.broker_home, mesh.broker.port);
    let health = || alice.get("/v1/health").json();
    while health()["meshes"][0]["link"] != "open" {
        std::thread::sleep(Duration::from_millis(1));
    }
    let begun = Instant::now();
    let done = || health()["outbox"]["done"].as_u64().unwrap_or(0);
    let done_before = done();
    while done() < ROWS {
        std::thread::sleep(ASK_EVERY);
    }
    let per_second = (ROWS - done_before) as f64 / begun.elapsed().as_secs_f64();
    let us_each = |ticks: u64| (ticks * US_PER_TICK) as f64 / ROWS as f64;
    let commits = vitals::commits(&mesh.alice, "outbox").wrapping_sub(before.1);
    Drained {
        per_second,
        daemon_us: us_each(vitals::cpu_ticks(pid) - before.0),
        broker_us: us_each(vitals::cpu_ticks(mesh.broker.process.pid())),
        commits_per_1000: f64::from(commits) * 1000.0 / ROWS as f64,
    }
}

fn fill(socket: &Path, key: &str) {
    let (template, next) = (Template::new(key), AtomicU64::new(0));
    let (template, next, executor) = (&template, &next, Executor::new());
    let callers = (0..CONNECTIONS).map(|_| {
        executor.spawn(async move {
            let mut stream = UnixStream::connect(socket).await.expect("connects");
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= ROWS {
                    return;
                }
                let request = template.request(number);
                stream.write_all(request.as_bytes()).await.expect("writes");
                read_202(&mut stream).await;
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    smol::block_on(executor.run(async {
        for caller in callers {
            caller.await;
        }
    }));
}

/// Messages a second that the broker takes from a client that only sends.
fn ceiling() -> f64 {
    let mesh = Mesh::new();
    let (alice, bob) = (joined(&mesh.alice), joined(&mesh.bob));
    raw_sender::per_second(mesh.broker.port, &alice, &bob.pubkey(), ROWS, BODY_BYTES)
}

/// From the request to the event at the other side, one message after the other.
fn single_messages() -> Figure {
    let mesh = Mesh::new();
    let (alice, bob) = (Daemon::start(&mesh.alice), Daemon::start(&mesh.bob));
    alice.wait_for_peer("bob");
    bob.wait_for_peer("alice");
    let mut stream = std::os::unix::net::UnixStream::connect(bob.socket()).expect("connects");
    let request = "GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("writes");
    let mut events = BufReader::new(stream);
    let text = "x".repeat(BODY_BYTES);
    let mut latencies_us = Vec::new();
    let begun = Instant::now();
    for number in 0..SINGLE_MESSAGES {
        let id = format!("single-{number}");
        let sent = Instant::now();
        let body = json!({"to": "bob", "message": text, "client_message_id": id});
        assert_eq!(alice.send(&body).status(), 202);
        let mut line = String::new();
        while !(line.starts_with("data:") && line.contains(&id)) {
            line.clear();
            events.read_line(&mut line).expect("an event");
        }
        latencies_us.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    Figure::of(latencies_us, SINGLE_MESSAGES as u64, begun.elapsed())
}
