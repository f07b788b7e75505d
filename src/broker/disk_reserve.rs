//! What must stay free on the ledger's disk (§1.2, §17.1): below it nothing new is taken, so that
//! acknowledgements, bans and the nightly expiry can still be written.
//!
//! Nothing polls: the file system is asked when a message comes, at most once a second.

use claudemesh_base::db::Space;
use claudemesh_fsm::quota::Level;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The least time between two questions to the file system.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// The bound, and how things stood when the file system was last asked.
pub(crate) struct DiskReserve {
    dir: PathBuf,
    reserved_bytes: u64,
    last: Mutex<Sample>,
}

#[derive(Default)]
struct Sample {
    at: Option<Duration>,
    level: Level,
}

impl DiskReserve {
    /// Keeps `reserved_bytes` free where `dir` is; 0 leaves it to the disk to say no.
    pub(crate) fn new(dir: PathBuf, reserved_bytes: u64) -> Self {
        Self { dir, reserved_bytes, last: Mutex::default() }
    }

    /// Whether there is room for more: the disk has its reserve, or the ledger, which does not become
    /// smaller, has as much in `reusable_bytes` of its own.
    pub(crate) fn is_free(&self, now: Duration, reusable_bytes: impl FnOnce() -> u64) -> bool {
        if self.reserved_bytes == 0 {
            return true;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: Duration| now.saturating_sub(at) < SAMPLE_INTERVAL;
        if !last.at.is_some_and(is_recent) {
            last.at = Some(now);
            self.sample(&mut last.level, reusable_bytes());
        }
        last.level != Level::Refusing
    }

    fn sample(&self, level: &mut Level, reusable_bytes: u64) {
        // A file system that does not say is left to say no by itself.
        let Some(Space { free_bytes, .. }) = Space::of(&self.dir) else { return };
        let free_bytes = free_bytes.saturating_add(reusable_bytes);
        let before = std::mem::replace(level, level.of_reserve(free_bytes, self.reserved_bytes));
        let (now, reserved_bytes) = (*level, self.reserved_bytes);
        match (before == Level::Refusing, now == Level::Refusing) {
            (false, true) => tracing::warn!(
                free_bytes,
                reserved_bytes,
                "the disk is below its reserve (disk.reserved_bytes): no message is taken until \
                 some space is free"
            ),
            (true, false) => tracing::info!(free_bytes, "the disk has its reserve again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_ledger_has_room_for_itself_counts_as_free() {
        // No disk has as much.
        let reserve = DiskReserve::new(std::env::temp_dir(), 1 << 62);
        assert!(!reserve.is_free(Duration::ZERO, || 0));
        assert!(!reserve.is_free(Duration::from_millis(999), || 1 << 63), "asked a moment ago");
        assert!(reserve.is_free(SAMPLE_INTERVAL, || 1 << 63));
    }
}
