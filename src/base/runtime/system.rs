//! The real backend: the machine's clock, the operating system's randomness, an executor.

use super::{BoxFuture, RuntimeBackend};
use claudemesh_fsm::id::Millis;
use smol::{Executor, Task, Timer};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) struct SystemBackend {
    pub(super) origin: Instant,
    pub(super) executor: Arc<Executor<'static>>,
}

impl RuntimeBackend for SystemBackend {
    fn now(&self) -> Millis {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()> {
        let at = self.origin + deadline;
        Box::pin(async move {
            Timer::at(at).await;
        })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        use rand_core::RngCore;
        rand_core::OsRng.fill_bytes(bytes);
    }

    fn spawn(&self, task: BoxFuture<()>) -> Task<()> {
        self.executor.spawn(task)
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        // When no thread can be had, the work is dropped, and its caller learns that.
        if let Err(error) = std::thread::Builder::new().name("blocking".to_owned()).spawn(work) {
            tracing::error!(%error, "cannot start a thread");
        }
    }
}
