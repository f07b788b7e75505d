//! A host that sleeps: its wall clock jumps ahead, its monotonic clock stood still, and what was
//! connected before is worth nothing (§14).

use super::rig::{Rig, rig_in_time};
use claudemesh_base::runtime::{BoxFuture, Runtime, RuntimeBackend};
use claudemesh_fsm::id::Millis;
use smol::Task;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const URL: &str = "ws://127.0.0.1:PORT/ws";
const HOUR_MS: i64 = 60 * 60 * 1000;

/// The real clock, with wall time that is ahead by as much as the test says.
struct Sleeper {
    real: Runtime,
    ahead_ms: Arc<AtomicI64>,
}

impl RuntimeBackend for Sleeper {
    fn now(&self) -> Millis {
        Millis(self.real.now().0 + self.ahead_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        self.real.monotonic()
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()> {
        let real = self.real.clone();
        Box::pin(async move { real.sleep_until(deadline).await })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| [*byte] = self.real.random());
    }

    fn spawn(&self, task: BoxFuture<()>) -> Task<()> {
        self.real.spawn(task)
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

/// Runs `test` with a link whose host can be put to sleep.
fn asleep<F: Future<Output = ()>>(
    ping_every: Duration,
    test: impl FnOnce(Rig, Box<dyn Fn(i64)>) -> F,
) {
    let ahead_ms = Arc::new(AtomicI64::new(0));
    let for_clock = ahead_ms.clone();
    let jump = Box::new(move |ms| {
        ahead_ms.fetch_add(ms, Ordering::SeqCst);
    });
    let config = Rig::config(|config| {
        config.timers.ping_every = ping_every;
        config.timers.cap_ms = 3_600_000;
    });
    let time = |real| Runtime::new(Arc::new(Sleeper { real, ahead_ms: for_clock }));
    rig_in_time(config, URL, time, |rig| test(rig, jump));
}

#[test]
fn an_open_link_dials_again_after_a_sleep() {
    asleep(Duration::from_millis(30), |rig, jump| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        peer.pings(1).await;
        jump(HOUR_MS);
        assert_eq!(peer.close_frame().await, (1000, "dialling again".into()));
        transport.closed().await;
        rig.open().await;
        rig.opened().await;
    });
}

#[test]
fn a_link_that_waits_for_long_dials_at_once_after_a_sleep() {
    asleep(Duration::from_millis(30), |rig, jump| async move {
        rig.open().await.close(1008, "capacity").await;
        rig.waiting().await;
        jump(HOUR_MS);
        rig.open().await;
        rig.opened().await;
    });
}

#[test]
fn a_clock_that_is_corrected_or_set_back_is_no_sleep() {
    asleep(Duration::from_millis(30), |rig, jump| async move {
        let mut peer = rig.open().await;
        let (_, transport) = rig.opened().await;
        for ms in [2_000, -HOUR_MS, 2_000, -4_000] {
            jump(ms);
            peer.pings(2).await;
        }
        let closed = rig.runtime.timeout(Duration::ZERO, transport.closed()).await;
        assert!(closed.is_none(), "the link hung up");
    });
}
