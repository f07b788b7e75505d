//! How things stand, in figures and in words.

use super::StorageLimits;
use claudemesh_base::db::Space;
use claudemesh_base::size::size;
use claudemesh_fsm::quota::Level;

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The bounds.
    pub limits: StorageLimits,
    /// What pending, inflight and dead rows weigh.
    pub outbox_bytes: u64,
    /// How full the outbox is.
    pub outbox: Level,
    /// Whether the disk has its reserve.
    pub disk: Level,
    /// The disk's room; `None` where the file system does not say.
    pub space: Option<Space>,
    /// Whether the disk turned the last write away.
    pub is_full: bool,
}

impl Usage {
    /// Whether the disk takes nothing new: then no stream is opened either.
    #[must_use]
    pub fn disk_is_full(&self) -> bool {
        self.is_full || self.disk == Level::Refusing
    }

    /// Why the daemon does less than it should.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.outbox == Level::Refusing {
            reasons.push(self.outbox_words());
        }
        if let Some(space) = self.space.filter(|_| self.disk == Level::Refusing) {
            reasons.push(disk_words(space, self.limits.disk_reserved_bytes));
        }
        if self.is_full {
            reasons.push(FULL_WORDS.to_owned());
        }
        reasons
    }

    /// What may become a reason.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        (self.outbox == Level::Warning).then(|| self.outbox_words()).into_iter().collect()
    }

    /// How much of its bound the outbox has used, rounded down.
    #[must_use]
    pub fn outbox_percent(&self) -> u64 {
        percent(self.outbox_bytes, self.limits.outbox_bytes_max)
    }

    /// How much of the disk is used, rounded down.
    #[must_use]
    pub fn disk_percent(&self) -> Option<u64> {
        let space = self.space?;
        let used = space.total_bytes.saturating_sub(space.free_bytes);
        Some(percent(used, space.total_bytes))
    }

    fn outbox_words(&self) -> String {
        outbox_words(self.outbox_bytes, self.limits.outbox_bytes_max)
    }
}

/// A write found no room, whatever the file system says.
pub(super) const FULL_WORDS: &str =
    "the disk is full: the last write was turned away; free some space";

pub(super) fn outbox_fact(bytes: u64, max: u64) -> String {
    format!("the outbox holds {} % of its {} (outbox.max_bytes)", percent(bytes, max), size(max))
}

pub(super) fn outbox_words(bytes: u64, max: u64) -> String {
    let fact = outbox_fact(bytes, max);
    format!("{fact}: see `claudemesh outbox list --failed`, or wait until what is pending was sent")
}

pub(super) fn disk_words(space: Space, reserved: u64) -> String {
    let (free, reserved) = (size(space.free_bytes), size(reserved));
    format!(
        "the disk has {free} free, of which {reserved} are kept in reserve (disk.reserved_bytes): free some space"
    )
}

fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}
