//! When there is room, with a disk that says what the test wants.

use super::*;
use smol::Executor;
use std::sync::atomic::{AtomicU64, Ordering};

const LIMITS: StorageLimits = StorageLimits { outbox_bytes_max: 1000, disk_reserved_bytes: 100 };

struct Bench {
    quota: Quota,
    free: Arc<AtomicU64>,
    asked: Arc<AtomicU64>,
    heard: Arc<Mutex<Vec<(&'static str, Level)>>>,
    time_ms: Arc<AtomicU64>,
}

/// A clock whose hands the test moves.
struct Hands(Arc<AtomicU64>);

impl claudemesh_base::runtime::RuntimeBackend for Hands {
    fn now(&self) -> claudemesh_fsm::id::Millis {
        claudemesh_fsm::id::Millis(0)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
    fn sleep_until(&self, _: Duration) -> claudemesh_base::runtime::BoxFuture<()> {
        Box::pin(std::future::pending())
    }
    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
    fn spawn(&self, task: claudemesh_base::runtime::BoxFuture<()>) -> smol::Task<()> {
        Executor::new().spawn(task)
    }
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

impl Bench {
    fn new() -> Self {
        let (free, asked) = (Arc::new(AtomicU64::new(500)), Arc::new(AtomicU64::new(0)));
        let (time_ms, heard) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let ask = {
            let (free, asked) = (free.clone(), asked.clone());
            move || {
                asked.fetch_add(1, Ordering::Relaxed);
                let free_bytes = free.load(Ordering::Relaxed);
                Some(Space { free_bytes, total_bytes: 1000 })
            }
        };
        let on_change = {
            let heard = heard.clone();
            move |change: &LevelChange| {
                heard.lock().expect("whole").push((change.subject, change.level));
            }
        };
        let runtime = Runtime::new(Arc::new(Hands(time_ms.clone())));
        let quota = Quota::asking(Box::new(ask), LIMITS, runtime, Box::new(on_change));
        Self { quota, free, asked, heard, time_ms }
    }

    fn a_second_passes(&self) {
        self.time_ms.fetch_add(1000, Ordering::Relaxed);
    }

    fn heard(&self) -> Vec<(&'static str, Level)> {
        std::mem::take(&mut *self.heard.lock().expect("whole"))
    }
}

#[test]
fn an_outbox_warns_once_refuses_and_recovers() {
    let bench = Bench::new();
    for bytes in [100, 799, 800, 850, 799] {
        bench.quota.set_outbox_bytes(bytes);
    }
    assert_eq!(bench.heard(), [("outbox", Level::Warning)]);
    assert!(bench.quota.admit_row(850, 100).is_ok());
    // What is on its way counts before it is stored.
    assert!(bench.quota.admit_row(950, 1).is_err());
    assert!(bench.quota.admit_row(900, 101).is_err(), "more than the bound");
    bench.quota.set_outbox_bytes(950);
    assert!(bench.quota.admit_row(931, 1).is_err(), "not yet 2 % below");
    bench.quota.set_outbox_bytes(930);
    assert!(bench.quota.admit_row(930, 1).is_ok());
    assert_eq!(bench.heard(), [("outbox", Level::Refusing), ("outbox", Level::Warning)]);
    let usage = bench.quota.usage().expect("bounded");
    assert_eq!((usage.outbox_percent(), usage.disk_percent()), (93, Some(50)));
    assert_eq!((usage.reasons().len(), usage.warnings().len()), (0, 1));
}

#[test]
fn the_disk_is_asked_once_a_second_and_only_when_it_matters() {
    let bench = Bench::new();
    (0..100).for_each(|bytes| bench.quota.set_outbox_bytes(bytes));
    assert_eq!(bench.asked.load(Ordering::Relaxed), 0);
    for _ in 0..100 {
        bench.quota.admit_inbound().expect("there is room");
        bench.quota.admit_row(0, 1).expect("there is room");
    }
    assert_eq!(bench.asked.load(Ordering::Relaxed), 1);
    bench.free.store(99, Ordering::Relaxed);
    bench.a_second_passes();
    let error = bench.quota.admit_inbound().expect_err("the reserve is touched");
    assert_eq!(error.kind(), Kind::Full);
    assert!(bench.quota.usage().expect("bounded").disk_is_full());
    bench.free.store(101, Ordering::Relaxed);
    bench.a_second_passes();
    assert!(bench.quota.admit_inbound().is_err(), "not yet 2 % above");
    bench.free.store(102, Ordering::Relaxed);
    bench.a_second_passes();
    assert!(bench.quota.admit_row(0, 1).is_ok());
    assert_eq!(bench.heard(), [("disk", Level::Refusing), ("disk", Level::Ample)]);
}

#[test]
fn a_write_that_was_turned_away_is_remembered_until_one_succeeds_or_space_was_freed() {
    let bench = Bench::new();
    let full = || Err::<(), _>(Error::new(Kind::Full, "full"));
    bench.quota.record_outcome(&full(), |()| true);
    bench.quota.record_outcome(&full(), |()| true);
    assert!(bench.quota.usage().expect("bounded").is_full);
    // Somebody has to try, or nobody would learn that there is room again.
    assert!(bench.quota.admit_row(0, 1).is_ok());
    for proves_nothing in [Ok(()), Err(Error::new(Kind::Io, "broken"))] {
        bench.quota.record_outcome(&proves_nothing, |()| false);
        assert!(bench.quota.usage().expect("bounded").is_full);
    }
    bench.quota.record_outcome(&Ok(()), |()| true);
    assert!(!bench.quota.usage().expect("bounded").is_full);
    bench.quota.record_outcome(&full(), |()| true);
    bench.free.store(500 + FULL_MARGIN_BYTES, Ordering::Relaxed);
    bench.a_second_passes();
    assert!(!bench.quota.usage().expect("bounded").is_full);
    let changes = [Level::Refusing, Level::Ample, Level::Refusing, Level::Ample];
    assert_eq!(bench.heard(), changes.map(|level| ("disk", level)));
}
