//! How many durable accepts a daemon makes, next to what SQLite alone can do on the same disk.
//!
//! `cargo bench --bench accept` starts a real daemon whose broker is out of reach and sends over its
//! Unix socket with keep-alive, at 1, 8 and 64 connections. In the same run it measures raw synced
//! commits of rows of the same weight, one and 64 to a commit. Only the ratios travel from machine
//! to machine.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

#[path = "caller.rs"]
mod caller;
#[path = "figure.rs"]
mod figure;

use caller::{BODY_BYTES, Template, read_202};
use claudemesh_base::message::SecretKey;
use claudemesh_base::paths::Paths;
use claudemesh_base::runtime::Runtime;
use claudemesh_daemon::identity::{IdentityConfig, JoinedMesh, update};
use figure::Figure;
use smol::Executor;
use smol::io::AsyncWriteExt;
use smol::net::unix::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;

fn main() {
    // `cargo test --benches` and `cargo bench -- --list` only want to know that it builds.
    if std::env::args().any(|argument| argument == "--list" || argument == "--test") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("cmb").tempdir_in(target_dir()).expect("a temp dir");
    println!("{BODY_BYTES}-byte bodies, median of {ROUNDS} rounds of {} s", ROUND.as_secs());
    println!("{:<34} {:>10} {:>10} {:>10}", "", "per second", "p50 µs", "p99 µs");
    let mut figures = Vec::new();
    for batch in [1, 64] {
        let raw = median(|round| raw_commits(dir.path(), batch, round));
        raw.print(&format!("raw SQLite, {batch} to a commit"));
        figures.push((batch, raw));
    }
    let (raw_1, raw_64) = (figures[0].1, figures[1].1);
    for connections in [1, 8, 64] {
        let accepts = median(|round| {
            // As empty as the raw database of each round: an index costs more the larger it is.
            let home = dir.path().join(format!("h{connections}-{round}"));
            std::fs::create_dir(&home).expect("creates");
            join_an_unreachable_mesh(&home);
            let daemon = Daemon::start(&home);
            durable_accepts(&daemon.socket, connections)
        });
        accepts.print(&format!("accepts, {connections} connections"));
        if connections == 1 {
            println!("  p50 / raw commit p50: {:.2}", accepts.p50_us / raw_1.p50_us);
        }
        if connections == 64 {
            println!(
                "  accepts / raw rows at batch 64: {:.2}",
                accepts.per_second / raw_64.per_second
            );
        }
    }
}

fn target_dir() -> &'static str {
    env!("CARGO_TARGET_TMPDIR")
}

fn median(mut measure: impl FnMut(usize) -> Figure) -> Figure {
    let mut rounds: Vec<Figure> = (0..ROUNDS).map(&mut measure).collect();
    rounds.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    rounds[ROUNDS / 2]
}

/// Rows of an outbox's weight, `batch` to a synced commit, on one connection.
fn raw_commits(dir: &Path, batch: usize, round: usize) -> Figure {
    let connection = sqlite::open(dir.join(format!("raw-{batch}-{round}.db"))).expect("opens");
    let setup = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE row (seq INTEGER \
                 PRIMARY KEY, id TEXT UNIQUE, client_message_id TEXT UNIQUE, fingerprint BLOB, \
                 payload BLOB, mesh TEXT, priority TEXT, status TEXT, due INTEGER); \
                 CREATE INDEX due ON row (mesh, priority, due) WHERE status = 'pending';";
    connection.execute(setup).expect("sets up");
    let sql = "INSERT INTO row (id, client_message_id, fingerprint, payload, mesh, priority, \
               status, due) VALUES (?, ?, ?, ?, 'bench', 'next', 'pending', 1)";
    let mut insert = connection.prepare(sql).expect("prepares");
    let mut begin = connection.prepare("BEGIN IMMEDIATE").expect("prepares");
    let mut commit = connection.prepare("COMMIT").expect("prepares");
    let (fingerprint, payload) = (vec![7_u8; 32], vec![b'x'; BODY_BYTES]);
    let mut latencies_us = Vec::new();
    let (mut rows, started) = (0_u64, Instant::now());
    while started.elapsed() < ROUND {
        let commit_started = Instant::now();
        let run = |statement: &mut sqlite::Statement<'_>| {
            statement.next().expect("runs");
            statement.reset().expect("resets");
        };
        run(&mut begin);
        for _ in 0..batch {
            rows += 1;
            let id = format!("01JD8Q4M6Z{rows:016}");
            let scattered = format!("{:016x}", rows.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            insert.bind((1, id.as_str())).expect("binds");
            insert.bind((2, scattered.as_str())).expect("binds");
            insert.bind((3, fingerprint.as_slice())).expect("binds");
            insert.bind((4, payload.as_slice())).expect("binds");
            run(&mut insert);
        }
        run(&mut commit);
        latencies_us.push(commit_started.elapsed().as_secs_f64() * 1e6);
    }
    Figure::of(latencies_us, rows, started.elapsed())
}

/// Sends with a fresh id each, `connections` at a time, each waiting for its 202.
fn durable_accepts(socket: &Path, connections: usize) -> Figure {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let template = Template::new(&SecretKey::from_seed([9; 32]).public().to_hex());
    let template = &template;
    let executor = Executor::new();
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            executor.spawn(async move {
                let mut stream = UnixStream::connect(socket).await.expect("connects");
                let mut latencies_us = Vec::new();
                let started = Instant::now();
                while started.elapsed() < ROUND {
                    let request = template.request(NEXT.fetch_add(1, Ordering::Relaxed));
                    let sent = Instant::now();
                    stream.write_all(request.as_bytes()).await.expect("writes");
                    read_202(&mut stream).await;
                    latencies_us.push(sent.elapsed().as_secs_f64() * 1e6);
                }
                latencies_us
            })
        })
        .collect();
    let started = Instant::now();
    let latencies_us = smol::block_on(executor.run(async {
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await);
        }
        all
    }));
    let count = latencies_us.len() as u64;
    Figure::of(latencies_us, count, started.elapsed())
}

fn join_an_unreachable_mesh(home: &Path) {
    let paths = Paths::under(home).expect("paths");
    let joined = JoinedMesh {
        mesh_id: "bench".into(),
        member_id: "bench".into(),
        slug: "bench".into(),
        name: "bench".into(),
        secret_key: SecretKey::from_seed(Runtime::real(Arc::new(Executor::new())).random()),
        // Port 9 of the loopback: nobody answers.
        broker_url: "ws://127.0.0.1:9/ws".into(),
        joined_at: "2026-01-01T00:00:00.000Z".into(),
        root_key: None,
        invite_version: None,
        extra: serde_json::Map::new(),
    };
    update(&paths, |config: &mut IdentityConfig| config.put_mesh(joined)).expect("joins");
}

struct Daemon {
    child: Child,
    socket: std::path::PathBuf,
}

impl Daemon {
    fn start(home: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_claudemesh"))
            .args(["daemon", "up", "--foreground", "--persistent", "--no-tcp", "--home"])
            .arg(home)
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let socket = home.join("daemon/daemon.sock");
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, socket }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
