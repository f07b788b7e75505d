//! A time that runs faster, for tests of long waits.

use super::*;

struct FastBackend {
    real: Runtime,
    speed: u32,
}

/// A clock that runs ahead of the real one, with dice that always show the most.
#[must_use]
pub fn fast(real: Runtime, speed: u32) -> Runtime {
    Runtime::new(Arc::new(FastBackend { real, speed }))
}

impl RuntimeBackend for FastBackend {
    fn now(&self) -> Millis {
        Millis(i64::try_from(self.monotonic().as_millis()).expect("fits"))
    }

    fn monotonic(&self) -> Duration {
        self.real.monotonic() * self.speed
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()> {
        let (real, deadline) = (self.real.clone(), deadline / self.speed);
        Box::pin(async move { real.sleep_until(deadline).await })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        bytes.fill(0xff);
    }

    fn spawn(&self, task: BoxFuture<()>) -> Task<()> {
        self.real.spawn(task)
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}
