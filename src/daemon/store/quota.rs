//! Whether there is room for more: what the outbox may weigh, and what must stay free on the disk
//! (§1.2).
//!
//! Nothing polls. The weight is told by whoever moves a row; the file system is asked when something
//! is to be stored or somebody wants to know, at most once a second.

mod usage;

pub use usage::Usage;

use claudemesh_base::db::{Error, Kind, Space};
use claudemesh_base::runtime::Runtime;
use claudemesh_fsm::quota::Level;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use usage::{FULL_WORDS, disk_words, outbox_fact, outbox_words};

/// The least time between two questions to the file system.
const ASK_PAUSE: Duration = Duration::from_secs(1);
/// A disk that turned a write away is trusted again once this much more is free than at that time,
/// or once a write succeeds.
const FULL_MARGIN_BYTES: u64 = 1 << 20;

/// The bounds of §1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageLimits {
    /// What pending, inflight and dead rows may weigh (`outbox.max_bytes`).
    pub outbox_bytes_max: u64,
    /// What must stay free on the disk (`disk.reserved_bytes`); 0 leaves it to the disk to say no.
    pub disk_reserved_bytes: u64,
}

impl StorageLimits {
    /// No bounds.
    pub const NONE: Self = Self { outbox_bytes_max: u64::MAX, disk_reserved_bytes: 0 };
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelChange {
    /// `outbox` or `disk`.
    pub subject: &'static str,
    /// How full it is now.
    pub level: Level,
    /// In words.
    pub detail: String,
}

type AskSpace = Box<dyn Fn() -> Option<Space> + Send + Sync>;
type OnChange = Box<dyn Fn(&LevelChange) + Send + Sync>;

/// The bounds and how things stand. Cheap to clone.
#[derive(Clone)]
pub struct Quota(Option<Arc<Inner>>);

struct Inner {
    limits: StorageLimits,
    runtime: Runtime,
    ask_space: AskSpace,
    on_change: OnChange,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outbox_bytes: u64,
    outbox: Level,
    disk: Level,
    space: Option<Space>,
    asked_at: Option<Duration>,
    /// What was free when the disk turned a write away.
    full_at: Option<u64>,
}

impl Quota {
    /// Bounds for the files in `dir`. `on_change` hears of every change of a level; it runs wherever
    /// the change was noticed, so it must not block.
    #[must_use]
    pub fn new(dir: &Path, limits: StorageLimits, runtime: Runtime, on_change: OnChange) -> Self {
        let dir = dir.to_path_buf();
        Self::asking(Box::new(move || Space::of(&dir)), limits, runtime, on_change)
    }

    fn asking(
        ask_space: AskSpace,
        limits: StorageLimits,
        runtime: Runtime,
        on_change: OnChange,
    ) -> Self {
        let state = Mutex::default();
        Self(Some(Arc::new(Inner { limits, runtime, ask_space, on_change, state })))
    }

    /// No bounds, and nothing is asked.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self(None)
    }

    /// Whether a row of `new_bytes` may be stored beside `bytes` that are stored or on their way.
    ///
    /// # Errors
    /// [`Kind::Full`], with what to do about it.
    pub fn admit_row(&self, bytes: u64, new_bytes: u64) -> Result<(), Error> {
        let Some(inner) = &self.0 else { return Ok(()) };
        inner.admit()?;
        let max = inner.limits.outbox_bytes_max;
        let level = inner.lock().outbox.of_use(bytes, max);
        if level == Level::Refusing || bytes.saturating_add(new_bytes) > max {
            return Err(Error::new(Kind::Full, outbox_words(bytes, max)));
        }
        Ok(())
    }

    /// Whether something that arrived may be stored.
    ///
    /// # Errors
    /// [`Kind::Full`], with what to do about it.
    pub fn admit_inbound(&self) -> Result<(), Error> {
        self.0.as_ref().map_or(Ok(()), |inner| inner.admit())
    }

    /// The outbox weighs this much now.
    pub fn set_outbox_bytes(&self, outbox_bytes: u64) {
        let Some(inner) = &self.0 else { return };
        inner.change(|state| {
            let max = inner.limits.outbox_bytes_max;
            state.outbox_bytes = outbox_bytes;
            state.outbox = state.outbox.of_use(outbox_bytes, max);
        });
    }

    /// How a write ended: a disk may be full although the file system sees room. One that wrote
    /// nothing, or failed for another reason, says nothing about the disk.
    pub fn record_outcome<T>(&self, outcome: &Result<T, Error>, wrote: impl FnOnce(&T) -> bool) {
        let Some(inner) = &self.0 else { return };
        let is_full = match outcome {
            Ok(done) if wrote(done) => false,
            Err(error) if error.kind() == Kind::Full => true,
            Ok(_) | Err(_) => return,
        };
        if is_full || inner.lock().full_at.is_some() {
            inner.change(|state| {
                let free = || (inner.ask_space)().map_or(0, |space| space.free_bytes);
                state.full_at = is_full.then(|| state.full_at.unwrap_or_else(free));
            });
        }
    }

    /// How things stand; `None` where there are no bounds.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let inner = self.0.as_ref()?;
        inner.look();
        let state = inner.lock();
        Some(Usage {
            limits: inner.limits,
            outbox_bytes: state.outbox_bytes,
            outbox: state.outbox,
            disk: state.disk,
            space: state.space,
            is_full: state.full_at.is_some(),
        })
    }
}

impl Inner {
    fn admit(&self) -> Result<(), Error> {
        if self.limits.disk_reserved_bytes == 0 {
            return Ok(());
        }
        self.look();
        let state = self.lock();
        match state.space {
            Some(space) if state.disk == Level::Refusing => {
                Err(Error::new(Kind::Full, disk_words(space, self.limits.disk_reserved_bytes)))
            }
            _ => Ok(()),
        }
    }

    /// Asks the file system, unless it was asked a moment ago.
    fn look(&self) {
        let now = self.runtime.monotonic();
        let is_recent = |asked_at: Duration| now.saturating_sub(asked_at) < ASK_PAUSE;
        if self.lock().asked_at.is_some_and(is_recent) {
            return;
        }
        let space = (self.ask_space)();
        self.change(|state| {
            state.asked_at = Some(now);
            state.space = space;
            let Some(space) = space else { return };
            let reserved = self.limits.disk_reserved_bytes;
            state.disk = state.disk.of_reserve(space.free_bytes, reserved);
            state.full_at = state.full_at.filter(|free| {
                space.free_bytes < free.saturating_add(FULL_MARGIN_BYTES).max(reserved)
            });
        });
    }

    /// Changes the state, and tells whoever listens if a level is another one then.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let before = (state.outbox, disk_level(&state));
        change(&mut state);
        let mut changes = Vec::new();
        if state.outbox != before.0 {
            let (bytes, max) = (state.outbox_bytes, self.limits.outbox_bytes_max);
            let detail = match state.outbox {
                Level::Ample => outbox_fact(bytes, max),
                Level::Warning | Level::Refusing => outbox_words(bytes, max),
            };
            changes.push(LevelChange { subject: "outbox", level: state.outbox, detail });
        }
        let disk = disk_level(&state);
        if disk != before.1 {
            let detail = match state.space {
                _ if state.full_at.is_some() => FULL_WORDS.to_owned(),
                Some(space) if disk == Level::Refusing => {
                    disk_words(space, self.limits.disk_reserved_bytes)
                }
                _ => "the disk has room again".to_owned(),
            };
            changes.push(LevelChange { subject: "disk", level: disk, detail });
        }
        drop(state);
        changes.iter().for_each(|change| (self.on_change)(change));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk that turns writes away has no room, whatever the file system says.
fn disk_level(state: &State) -> Level {
    if state.full_at.is_some() { Level::Refusing } else { state.disk }
}

#[cfg(test)]
mod tests;
