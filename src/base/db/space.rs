//! How much room the file system of a database has (§1.2).

use std::path::Path;

/// A file system's room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What we may still use.
    pub free_bytes: u64,
    /// Its size.
    pub total_bytes: u64,
}

impl Space {
    /// What the file system of `dir` says; `None` if it does not.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(dir).ok()?;
        Some(Self {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }
}
