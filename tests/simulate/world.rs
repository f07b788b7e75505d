//! Virtual time, seeded dice and the executor: one thread, ready tasks picked in seeded order, time
//! that jumps to the next event when nobody is ready. Knows nothing of what it runs.

use async_task::Runnable;
use claudemesh_base::runtime::{BoxFuture, Runtime, RuntimeBackend};
use claudemesh_fsm::id::Millis;
use smol::Task;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Wall time when a simulation begins.
const EPOCH_MS: i64 = 1_750_000_000_000;

/// Seeded dice, the same on every machine.
#[derive(Debug, Clone)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// One stream of a seed. It begins at a place that both were mixed into: a place that is a
    /// multiple of the seed would give a seed the dice of its neighbour, one throw later.
    pub fn new(seed: u64, stream: u64) -> Self {
        let place = |seed| fastrand::Rng::with_seed(seed).u64(..);
        Self(fastrand::Rng::with_seed(place(place(seed) ^ stream)))
    }

    pub fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.u64(..n.max(1))
    }

    /// True this many times in a thousand.
    pub fn permille(&mut self, chance: u64) -> bool {
        self.below(1000) < chance
    }

    /// A duration of `low..high` milliseconds.
    pub fn ms(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(low + self.below(high - low))
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len() as u64) as usize) }
    }
}

/// Who a task belongs to, so that a crash takes its tasks away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub process: usize,
    pub incarnation: u64,
}

/// What the executor did.
pub enum Step {
    /// A task ran; it belonged to this owner.
    Ran(Owner),
    /// Nobody was ready, and nothing is due before the given limit.
    Idle,
    /// Time moved on to a timer.
    Woke,
}

/// The executor and the time.
pub struct Sched {
    state: Mutex<State>,
}

struct State {
    rng: Rng,
    now: Duration,
    ready: Vec<(Owner, Runnable)>,
    timers: BTreeMap<(Duration, u64), Waker>,
    next_timer: u64,
    log_hash: u64,
    log_lines: u64,
    is_verbose: bool,
}

impl Sched {
    pub fn new(seed: u64, is_verbose: bool) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                rng: Rng::new(seed, 1),
                now: Duration::ZERO,
                ready: Vec::new(),
                timers: BTreeMap::new(),
                next_timer: 0,
                log_hash: 0xCBF2_9CE4_8422_2325,
                log_lines: 0,
                is_verbose,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    pub fn now(&self) -> Duration {
        self.lock().now
    }

    /// Adds a line to the event log: hashed always, printed if asked for.
    pub fn log(&self, line: impl FnOnce() -> String) {
        let line = line();
        let mut state = self.lock();
        let line = format!("{:>9.3} {line}", state.now.as_secs_f64());
        for byte in line.bytes() {
            state.log_hash = (state.log_hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        state.log_lines += 1;
        let is_verbose = state.is_verbose;
        drop(state);
        if is_verbose {
            println!("{line}");
        }
    }

    /// The hash of the log, and how many lines it has.
    pub fn log_hash(&self) -> (u64, u64) {
        let state = self.lock();
        (state.log_hash, state.log_lines)
    }

    pub fn spawn(self: &Arc<Self>, owner: Owner, task: BoxFuture<()>) -> Task<()> {
        let sched = self.clone();
        let schedule = move |runnable| sched.lock().ready.push((owner, runnable));
        let (runnable, task) = async_task::spawn(task, schedule);
        runnable.schedule();
        task
    }

    /// Forgets what was ready of an owner that is gone.
    pub fn bury(&self, owner: Owner) {
        loop {
            // Dropped outside the lock: a task's end may wake or schedule others.
            let mut state = self.lock();
            let Some(at) = state.ready.iter().position(|(of, _)| *of == owner) else { return };
            let dead = state.ready.remove(at);
            drop(state);
            drop(dead);
        }
    }

    /// Runs one ready task, or lets time jump to the next timer if it is not after `limit`.
    pub fn step(&self, limit: Duration) -> Step {
        let mut state = self.lock();
        if !state.ready.is_empty() {
            let count = state.ready.len() as u64;
            let at = state.rng.below(count) as usize;
            let (owner, runnable) = state.ready.remove(at);
            drop(state);
            runnable.run();
            return Step::Ran(owner);
        }
        let due = state.timers.first_key_value().map(|(key, _)| *key);
        match due {
            Some(key) if key.0 <= limit => {
                state.now = state.now.max(key.0);
                let waker = state.timers.remove(&key);
                drop(state);
                waker.into_iter().for_each(Waker::wake);
                Step::Woke
            }
            _ => {
                state.now = state.now.max(limit);
                Step::Idle
            }
        }
    }
}

/// A process's view of the world: its own wall clock and its own entropy.
pub struct ProcessClock {
    pub sched: Arc<Sched>,
    pub owner: Owner,
    pub wall_offset_ms: Arc<AtomicI64>,
    pub entropy: Mutex<Rng>,
}

impl ProcessClock {
    pub fn into_clock(self) -> Runtime {
        Runtime::new(Arc::new(self))
    }
}

impl RuntimeBackend for ProcessClock {
    fn now(&self) -> Millis {
        let since = i64::try_from(self.sched.now().as_millis()).unwrap_or(i64::MAX);
        Millis(EPOCH_MS + since + self.wall_offset_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        self.sched.now()
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()> {
        Box::pin(Sleep { sched: self.sched.clone(), deadline, key: None })
    }

    fn fill_random(&self, bytes: &mut [u8]) {
        let mut rng = self.entropy.lock().expect("no panic holds it");
        bytes.fill_with(|| rng.next() as u8);
    }

    fn spawn(&self, task: BoxFuture<()>) -> Task<()> {
        self.sched.spawn(self.owner, task)
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

struct Sleep {
    sched: Arc<Sched>,
    deadline: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sched = self.sched.clone();
        let mut state = sched.lock();
        let old = self.key.take().and_then(|key| state.timers.remove(&key));
        if state.now >= self.deadline {
            drop(state);
            drop(old);
            return Poll::Ready(());
        }
        let key = (self.deadline, state.next_timer);
        state.next_timer += 1;
        state.timers.insert(key, cx.waker().clone());
        drop(state);
        drop(old);
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // Taken out under the lock, dropped after it.
        let waker = self.key.and_then(|key| self.sched.lock().timers.remove(&key));
        drop(waker);
    }
}
