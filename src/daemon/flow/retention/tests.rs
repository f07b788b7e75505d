//! The flow on real stores, with a clock that the test sets.

use super::*;
use crate::store::inbox::NewMessage;
use claudemesh_base::db::Driver;
use claudemesh_base::runtime::{BoxFuture, RuntimeBackend};
use smol::Task;
use smol::channel::{Receiver, Sender};
use smol::future::block_on;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const START_MS: i64 = 1_732_238_266_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Wall time as it was set; who sleeps long says so, and is woken by the test.
struct Hand {
    wall_ms: AtomicI64,
    slept: Sender<Duration>,
    wake: Receiver<()>,
}

impl RuntimeBackend for Hand {
    fn now(&self) -> Millis {
        Millis(self.wall_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()> {
        if deadline <= PAUSE {
            return Box::pin(async {});
        }
        let (slept, wake) = (self.slept.clone(), self.wake.clone());
        Box::pin(async move {
            let _ = slept.send(deadline).await;
            let _ = wake.recv().await;
        })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }

    fn spawn(&self, _: BoxFuture<()>) -> Task<()> {
        unreachable!("upkeep spawns nothing")
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    hand: Arc<Hand>,
    slept: Receiver<Duration>,
    wake: Sender<()>,
    inbox: Inbox,
    retention: RetentionFlow,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().expect("a temp dir");
    let outbox = Outbox::open(&dir.path().join("outbox.db"), Driver::Threaded, Arc::new(|_| ()));
    let inbox = Inbox::open(&dir.path().join("inbox.db"), Driver::Threaded).expect("opens");
    let (to_slept, slept) = smol::channel::bounded(1);
    let (wake, to_wake) = smol::channel::bounded(1);
    let wall_ms = AtomicI64::new(START_MS);
    let hand = Arc::new(Hand { wall_ms, slept: to_slept, wake: to_wake });
    let bounds = InboxLimits { retention_ms: 30 * DAY_MS, bytes_max: i64::MAX };
    let runtime = Runtime::new(hand.clone());
    let retention = RetentionFlow::new(outbox.expect("opens"), inbox.clone(), bounds, runtime);
    Bench { _dir: dir, hand, slept, wake, inbox, retention }
}

impl Bench {
    fn arrive(&self) {
        let message = NewMessage {
            id: "id".into(),
            broker_message_id: "b".into(),
            mesh: "demo".into(),
            sender_pubkey: "alice".into(),
            priority: "next".into(),
            received_at: Millis(START_MS),
            ..NewMessage::default()
        };
        let stored = block_on(self.inbox.store(vec![message])).expect("commits");
        assert!(stored[0].1.is_ok());
    }

    fn pass_on_day(&self, day: i64) -> RetentionReport {
        self.hand.wall_ms.store(START_MS + day * DAY_MS, Ordering::Relaxed);
        block_on(self.retention.pass()).expect("both stores answer")
    }
}

#[test]
fn a_clock_that_jumps_a_year_ahead_does_not_wipe_the_inbox() {
    let bench = bench();
    bench.arrive();
    assert_eq!(bench.pass_on_day(0), RetentionReport::default());
    assert_eq!(bench.pass_on_day(365), RetentionReport::default(), "a year ahead, by mistake");
    assert_eq!(bench.pass_on_day(365), RetentionReport::default(), "and it stays so");
    assert_eq!(bench.pass_on_day(0), RetentionReport::default(), "and was set right");
    let pruned: usize = (1..=30).map(|day| bench.pass_on_day(day).pruned).sum();
    assert_eq!(pruned, 1, "in its own time the message goes");
}

#[test]
fn a_pass_is_made_at_start_and_then_once_an_hour_and_nothing_in_between() {
    let Bench { _dir, hand: _hand, slept, wake, inbox: _inbox, retention } = bench();
    let (stop, stopped) = Shutdown::new();
    let run = retention.run(stopped);
    let watch = async {
        for _ in 0..3 {
            assert_eq!(slept.recv().await, Ok(EVERY));
            wake.send(()).await.expect("it waits");
        }
        stop.fire();
    };
    block_on(futures_lite::future::zip(run, watch));
}
