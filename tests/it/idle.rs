//! What daemons spend that can do nothing: processor time, measured.
//!
//! A measure depends on what else the machine does, so that no run of the tests takes it. By name,
//! on a machine with nothing else to do:
//! `cargo test --release --test it -- --ignored --test-threads=1 idle`

use crate::faults::{Faulty, listen_only};
use crate::progress::{ABSENT, NEVER_MS, ROWS, Watched, refusing};
use crate::support::rig::{Daemon, eventually};
use crate::support::vitals;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a daemon is watched: time that is measured, not waited for something.
const WATCHED: Duration = Duration::from_secs(3);
/// What that may cost in ticks of 10 ms: dialling every 100 ms in a build without optimisation
/// costs something.
const TICKS_MAX: u64 = 60;

fn assert_idle(daemon: &Daemon) {
    let pid = daemon.process.pid();
    let before = vitals::cpu_ticks(pid);
    std::thread::sleep(WATCHED);
    let spent = vitals::cpu_ticks(pid) - before;
    println!("{spent} ticks of processor time in {WATCHED:?}");
    assert!(spent <= TICKS_MAX, "{spent} ticks of processor time in {WATCHED:?}");
}

#[test]
#[ignore = "a measure: see the top of this file"]
fn idle_while_the_broker_closes_at_once() {
    assert_idle(&Faulty::start(|stream, _| drop(stream)).alice);
}

#[test]
#[ignore = "a measure: see the top of this file"]
fn idle_while_the_broker_never_speaks() {
    assert_idle(&Faulty::start(|stream, _| listen_only(stream)).alice);
}

#[test]
#[ignore = "a measure: see the top of this file"]
fn idle_with_rows_to_an_offline_recipient() {
    let (script, sends) = refusing("no connected peer for target", 404);
    let watched = Watched::start(NEVER_MS, &script);
    watched.send_all(ABSENT);
    eventually("an attempt of each", || (sends.load(Ordering::SeqCst) >= ROWS).then_some(()));
    watched.wait_until_all_are("pending");
    assert_idle(&watched.alice);
}

#[test]
#[ignore = "a measure: see the top of this file"]
fn idle_with_rows_of_a_rate_limited_link() {
    let (script, sends) = refusing("rate limit: max 1 msg/min, slow down", 429);
    let watched = Watched::start(NEVER_MS, &script);
    watched.send_all("*");
    eventually("a pause", || (sends.load(Ordering::SeqCst) > 0).then_some(()));
    let before = sends.load(Ordering::SeqCst);
    assert_idle(&watched.alice);
    // The pauses double: in three seconds there are at most three ends of one.
    let sent = sends.load(Ordering::SeqCst) - before;
    assert!(sent <= 4 * ROWS, "{sent} sends");
}
