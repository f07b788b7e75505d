//! Time, randomness and concurrency: the only room that reads any of them.
//!
//! Everything else takes a [`Runtime`] as an argument, so that a simulation can hand in one whose
//! time stands still, whose dice are seeded and whose tasks run in a chosen order. No other file
//! names `Timer`, `SystemTime`, `Instant` or `smol::spawn`.

mod shutdown;
mod slots;
mod system;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod time;

pub use shutdown::{Shutdown, Trigger};
pub use slots::{Slot, Slots};
pub use time::{iso, parse_iso};

use claudemesh_fsm::id::Millis;
use nanoid::nanoid;
use smol::{Executor, Task};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use system::SystemBackend;

/// A future that owns what it needs and may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Crockford's base32 alphabet: no I, L, O or U.
const CROCKFORD: [char; 32] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'J',
    'K', 'M', 'N', 'P', 'Q', 'R', 'S', 'T', 'V', 'W', 'X', 'Y', 'Z',
];
const MINTED_TIME_CHARACTERS: usize = 10;
const MINTED_RANDOM_CHARACTERS: usize = 16;

/// What a clock is made of: the real one here, a virtual one in the simulation.
pub trait RuntimeBackend: Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> Millis;
    /// Time that only moves forward, from an arbitrary origin.
    fn monotonic(&self) -> Duration;
    /// Completes when `monotonic` reaches `deadline`.
    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()>;
    /// Fills `bytes` with randomness fit for nonces and keys.
    fn fill_random(&self, bytes: &mut [u8]);
    /// Runs a task until it ends or its handle is dropped.
    fn spawn(&self, task: BoxFuture<()>) -> Task<()>;
    /// Runs work that blocks where it holds up nobody else.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>);
}

/// A handle on time, randomness and the executor. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    source: Arc<dyn RuntimeBackend>,
    last_minted_ms: Arc<Mutex<i64>>,
}

impl Runtime {
    /// A clock over `source`.
    #[must_use]
    pub fn new(source: Arc<dyn RuntimeBackend>) -> Self {
        Self { source, last_minted_ms: Arc::new(Mutex::new(0)) }
    }

    /// The machine's clock, the operating system's randomness, and `executor` for tasks.
    #[must_use]
    pub fn real(executor: Arc<Executor<'static>>) -> Self {
        Self::new(Arc::new(SystemBackend { origin: Instant::now(), executor }))
    }

    /// Wall-clock time.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.source.now()
    }

    /// Time that only moves forward, from an arbitrary origin.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        self.source.monotonic()
    }

    /// Wall-clock time minus monotonic time, in milliseconds: the same until somebody sets the clock
    /// or the host sleeps.
    #[must_use]
    pub fn wall_offset_ms(&self) -> i64 {
        let monotonic_ms = i64::try_from(self.monotonic().as_millis()).unwrap_or(i64::MAX);
        self.now().0.saturating_sub(monotonic_ms)
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        self.source.sleep_until(self.monotonic() + duration).await;
    }

    /// Waits until [`monotonic`](Self::monotonic) reaches `deadline`.
    pub async fn sleep_until(&self, deadline: Duration) {
        self.source.sleep_until(deadline).await;
    }

    /// `future`'s result, or `None` if `limit` passes first.
    pub async fn timeout<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let expiry = async {
            self.sleep(limit).await;
            None
        };
        futures_lite::future::or(async { Some(future.await) }, expiry).await
    }

    /// `N` bytes fit for nonces and keys.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.source.fill_random(&mut bytes);
        bytes
    }

    /// Uniform over all of `u32`: the jitter argument of `fsm::retry`.
    #[must_use]
    pub fn jitter(&self) -> u32 {
        u32::from_le_bytes(self.random())
    }

    /// Runs `task` until it ends or the handle is dropped.
    #[must_use = "dropping the handle cancels the task"]
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Task<()> {
        self.source.spawn(Box::pin(task))
    }

    /// The result of work that blocks (a file, a name look-up), done beside the executor. For rare
    /// work: each call may cost a thread. `None` only if the work panicked.
    ///
    /// Not `smol::unblock`: its pool keeps a thread that wakes twice a second for ever.
    pub async fn unblock<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, result) = futures_channel::oneshot::channel();
        self.source.run_blocking(Box::new(move || {
            // Nobody waiting is fine: the caller went away.
            let _ = reply.send(work());
        }));
        result.await.ok()
    }

    /// A new id: 26 characters of Crockford base32, ordered by time within this process (§3.3).
    #[must_use]
    pub fn mint_id(&self) -> String {
        let now_ms = {
            let mut last = self.last_minted_ms.lock().unwrap_or_else(PoisonError::into_inner);
            *last = (*last + 1).max(self.now().0);
            *last
        };
        let mut id = String::with_capacity(MINTED_TIME_CHARACTERS + MINTED_RANDOM_CHARACTERS);
        for position in (0..MINTED_TIME_CHARACTERS).rev() {
            id.push(CROCKFORD[(now_ms >> (5 * position)) as usize & 31]);
        }
        let random = |size: usize| {
            let mut bytes = vec![0; size];
            self.source.fill_random(&mut bytes);
            bytes
        };
        id + &nanoid!(MINTED_RANDOM_CHARACTERS, &CROCKFORD, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_ids_are_ordered_and_well_formed() {
        let runtime = Runtime::real(Arc::new(Executor::new()));
        let ids: Vec<String> = (0..1000).map(|_| runtime.mint_id()).collect();
        assert!(ids.is_sorted());
        assert!(ids.iter().all(|id| id.len() == 26));
    }

    #[test]
    fn time_survives_json() {
        let at = Millis(1_750_000_000_123);
        assert_eq!(iso(at), "2025-06-15T15:06:40.123Z");
        assert_eq!(parse_iso(&iso(at)), Some(at));
    }
}
