//! The deterministic simulation of delivery (`specs/simulation.md`): the real flows, decisions and
//! databases under a virtual clock, network and power supply, and the invariants of §4.12.
//!
//! Replays one seed: `CLAUDEMESH_SEEDS=17..18 cargo test --test simulate -- --ignored --nocapture
//! torture`, which then also prints the seed's event log.

#![allow(unreachable_pub, missing_docs, reason = "its modules are its own")]
#![allow(clippy::print_stdout, reason = "a replayed seed shows its event log")]

#[path = "simulate/broker.rs"]
mod broker;
#[path = "simulate/checkers.rs"]
mod checkers;
#[path = "simulate/daemon.rs"]
mod daemon;
#[path = "simulate/disk.rs"]
mod disk;
#[path = "simulate/mutants.rs"]
mod mutants;
#[path = "simulate/net.rs"]
mod net;
#[path = "simulate/scenario.rs"]
mod scenario;
#[path = "simulate/transport.rs"]
mod transport;
#[path = "simulate/world.rs"]
mod world;

use mutants::Mutant;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// The slice every run of the tests takes.
const SLICE: Range<u64> = 0..200;
/// Real time, of which a seed takes a fraction of a second.
const SEED_TIME_MAX: Duration = Duration::from_secs(300);
/// A mutant that survives half of the slice means that the slice is nearly blind to it.
const MUTANT_SEEDS_MAX: u64 = SLICE.end / 2;

fn replay(seed: u64) -> String {
    let next = seed + 1;
    format!(
        "CLAUDEMESH_SEEDS={seed}..{next} cargo test --test simulate -- --ignored --nocapture torture"
    )
}

/// Runs a seed on a thread of its own, so that one that panics or never ends is named.
fn run(seed: u64, mutant: Option<Mutant>, is_verbose: bool) -> Result<scenario::Report, String> {
    let (reply, answer) = mpsc::channel();
    std::thread::spawn(move || reply.send(scenario::run(seed, mutant, is_verbose)));
    answer.recv_timeout(SEED_TIME_MAX).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("not at its end after {SEED_TIME_MAX:?}"),
        RecvTimeoutError::Disconnected => "it panicked".into(),
    })
}

/// What many seeds came to. No matter in which order they ran.
#[derive(Default)]
struct Sum {
    told: usize,
    deaths: u64,
    commits: u64,
    log_hash: u64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.told += other.told;
        self.deaths += other.deaths;
        self.commits += other.commits;
        self.log_hash = self.log_hash.wrapping_add(other.log_hash);
    }
}

/// Runs seeds on every processor, and stops at the first that breaks something.
fn run_all(seeds: Range<u64>) {
    let is_one = seeds.end == seeds.start + 1;
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut sum = Sum::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(sum);
            }
            let ran = run(seed, None, is_one);
            let sound = ran.and_then(|report| report.verdict.clone().map(|()| report));
            let report = sound.map_err(|broken| {
                next.store(seeds.end, Ordering::Relaxed);
                format!("seed {seed}: {broken}\nreplay it with: {}", replay(seed))
            })?;
            let scenario::Report { told, deaths, commits, log_hash: (log_hash, _), .. } = report;
            sum.add(&Sum { told, deaths, commits, log_hash });
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let done: Vec<Result<Sum, String>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("does not panic")).collect()
    });
    let (mut sum, mut broken) = (Sum::default(), Vec::new());
    for part in done {
        match part {
            Ok(part) => sum.add(&part),
            Err(seed) => broken.push(seed),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n\n"));
    let Sum { told, deaths, commits, log_hash } = sum;
    println!(
        "seeds {seeds:?}: {told} answers, {deaths} deaths, {commits} commits, \
         log {log_hash:016x} (the same in every run)"
    );
}

#[test]
fn the_invariants_hold_whatever_breaks() {
    run_all(SLICE);
}

/// `CLAUDEMESH_SEEDS=a..b`; 0..10000 without it.
#[test]
#[ignore = "takes minutes: run it by name"]
fn torture() {
    let text = std::env::var("CLAUDEMESH_SEEDS").unwrap_or_else(|_| "0..10000".into());
    let (from, to) = text.split_once("..").expect("CLAUDEMESH_SEEDS is a..b");
    let number = |text: &str| text.parse().expect("CLAUDEMESH_SEEDS is a..b, numbers");
    run_all(number(from)..number(to));
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    for seed in [3, 14, 159] {
        let [one, two] = [(); 2].map(|()| run(seed, None, false).expect("comes to its end"));
        assert_eq!(one.log_hash, two.log_hash, "seed {seed}");
        assert!(one.log_hash.1 > 100, "seed {seed} did something");
    }
}

fn is_found(mutant: Mutant, invariants: &[&str]) {
    for seed in 0..MUTANT_SEEDS_MAX {
        let report = run(seed, Some(mutant), false).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        if let Err(broken) = report.verdict {
            println!("{mutant:?}: seed {seed}: {broken}");
            let names_it = invariants.iter().any(|name| broken.starts_with(name));
            assert!(names_it, "{mutant:?} breaks {invariants:?}, not: {broken}");
            return;
        }
    }
    panic!("{mutant:?} survived {MUTANT_SEEDS_MAX} seeds");
}

#[test]
fn an_unguarded_done_is_found() {
    // An aborted row that becomes done also is no longer the retired half of a requeue.
    is_found(Mutant::UnguardedDone, &["invariant 4", "invariant 5"]);
}

#[test]
fn an_ack_before_the_commit_is_found() {
    is_found(Mutant::AckBeforeCommit, &["invariant 7"]);
}

#[test]
fn a_broker_without_dedupe_is_found() {
    is_found(Mutant::NoDedupe, &["invariant 2"]);
}

#[test]
fn an_omitted_recovery_is_found() {
    is_found(Mutant::NoRecovery, &["invariant 6"]);
}

#[test]
fn a_power_cut_that_goes_unnoticed_is_found() {
    is_found(Mutant::SameBoot, &["invariant §4.5.3"]);
}

#[test]
fn an_accept_that_is_not_synced_is_found() {
    is_found(Mutant::UnsyncedAccepts, &["invariant 1"]);
}
