//! How long a daemon with a million rows takes to open its outbox.
//!
//! `cargo bench --bench open` makes the databases with plain SQL in a temporary directory, one with
//! a million rows that wait and are backed off, one with a million that are done, one that a crash
//! left with rows inflight, and opens each twice as the daemon does at start, after a crash and after
//! an end in order: check, migrations, what a crash left, counters, and what is made due before the
//! first answer. §4.11 promises less than a second.

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use claudemesh_base::db::Driver;
use claudemesh_base::paths::Paths;
use claudemesh_base::runtime::Runtime;
use claudemesh_daemon::events::EventBus;
use claudemesh_daemon::mesh::Meshes;
use claudemesh_daemon::startup::stores;
use claudemesh_daemon::store::outbox::Outbox;
use claudemesh_daemon::store::quota::StorageLimits;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::outbox::Status;
use smol::Executor;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROWS: u64 = 1_000_000;
/// How many rows a claim takes.
const CLAIMED: usize = 64;
const PROMISED: Duration = Duration::from_secs(1);
/// Far enough in the future to be backed off whenever this runs.
const BACKED_OFF_UNTIL: i64 = 1 << 45;

fn main() {
    for status in [Status::Pending, Status::Done, Status::Inflight] {
        let dir = tempfile::tempdir().expect("a temp dir");
        let paths = Paths::under(dir.path()).expect("paths");
        std::fs::create_dir(&paths.daemon_dir).expect("creates");
        fill(&paths.outbox_db(), status);
        // As after a crash, when the rows are counted, and as after an end in order.
        open(&paths, status, "after a crash");
        open(&paths, status, "after an end in order");
    }
}

/// A million rows in one state; inflight ones are as many as a crash may leave, among done ones.
fn fill(path: &Path, status: Status) {
    let outbox = Outbox::open(path, Driver::Threaded, Arc::new(|_| ())).expect("opens");
    outbox.close();
    let started = Instant::now();
    let status = match status {
        Status::Inflight => "CASE WHEN i % 1000 = 0 THEN 'inflight' ELSE 'done' END".to_owned(),
        status => format!("'{}'", status.as_str()),
    };
    let connection = sqlite::open(path).expect("opens");
    connection
        .execute(format!(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA cache_size=-262144; \
             INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, mesh, \
             destination_kind, destination_ref, priority, enqueued_at, next_attempt_at, attempts, \
             status, broker_message_id, delivered_at) \
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
             SELECT printf('01JD8Q4M%018d', i), printf('%016x', i * 2654435761 % 4294967296 * 65536 + i), \
             zeroblob(32), zeroblob(256), 'demo', 'topic', '*', 'next', i, \
             {BACKED_OFF_UNTIL} + i % 300000, 1, {status}, 'b' || i, i FROM n; \
             UPDATE host SET boot_id = NULL; PRAGMA wal_checkpoint(TRUNCATE);"
        ))
        .expect("fills");
    // What is timed is opening, not this fill's way to the disk.
    std::fs::File::open(path).and_then(|file| file.sync_all()).expect("syncs");
    let mib = std::fs::metadata(path).expect("is there").len() >> 20;
    println!("made {ROWS} rows, {mib} MiB, in {:.1} s", started.elapsed().as_secs_f64());
}

fn open(paths: &Paths, status: Status, after: &str) {
    let executor = Arc::new(Executor::new());
    let runtime = Runtime::real(executor.clone());
    let (bus, meshes) = (EventBus::default(), Meshes::default());
    let started = Instant::now();
    let opened =
        stores::open(paths, Driver::Threaded, (&runtime, &bus, &meshes), StorageLimits::NONE, None);
    let stores = smol::block_on(executor.run(opened)).expect("opens");
    let took = started.elapsed();
    let depth = stores.outbox.depths()["demo"];
    let (pending, done) = (depth.of(Status::Pending), depth.of(Status::Done));
    assert_eq!(pending + done, ROWS);
    let verdict = if took < PROMISED { "kept" } else { "BROKEN" };
    println!(
        "opened with a million rows ({}) {after}: {:.3} s, {pending} pending, {done} done: {verdict}",
        status.as_str(),
        took.as_secs_f64()
    );
    if status == Status::Pending {
        // The rest is made due while the daemon serves; here, all of it at once.
        let started = Instant::now();
        let now = Millis(1_750_000_000_000);
        let expedited = smol::block_on(stores.outbox.expedite("demo", now)).expect("hastens");
        let took = started.elapsed().as_secs_f64();
        println!("made {expedited} rows due beside the service: {took:.1} s");
        let started = Instant::now();
        let claim = stores.outbox.claim_due("demo", now.plus(1), Millis(0), CLAIMED);
        let claimed = smol::block_on(claim).expect("claims").rows.len();
        let took = started.elapsed().as_secs_f64() * 1000.0;
        println!("claimed {claimed} of a million rows due since the same moment: {took:.1} ms");
    }
    stores.outbox.close();
    stores.inbox.close();
}
