//! Why the daemon, or the repair of its databases, did not come to a good end.

use crate::identity::IdentityError;
use crate::store::{Error as StoreError, Kind};
use claudemesh_base::paths::PathsError;

/// Why the daemon did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another daemon holds the lock; its pid, where the file says.
    #[error("the daemon is already running{}", .0.map_or_else(String::new, |pid| format!(" (pid {pid})")))]
    AlreadyRunning(Option<u32>),
    /// The outbox is damaged (exit 5).
    #[error("{0}")]
    StoreDamaged(String),
    /// Something we need is taken, or a database is not one that we can use (exit 5).
    #[error("{0}")]
    Conflict(String),
    /// No mesh is left that a broker would have (exit 10).
    #[error("{0}")]
    Refused(String),
    /// Everything else, with what to do about it.
    #[error("{0}")]
    Failed(String),
}

impl DaemonError {
    /// The exit code of §8.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::AlreadyRunning(_) => 0,
            Self::Failed(_) => 1,
            Self::StoreDamaged(_) | Self::Conflict(_) => 5,
            Self::Refused(_) => 10,
        }
    }
}

impl From<PathsError> for DaemonError {
    fn from(error: PathsError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<IdentityError> for DaemonError {
    fn from(error: IdentityError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<StoreError> for DaemonError {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            Kind::Corrupt => {
                let why = first_finding(&error.to_string());
                Self::StoreDamaged(format!("outbox.db is damaged: {why}"))
            }
            // A service manager that starts it again finds the same.
            Kind::InUse | Kind::Newer | Kind::Foreign | Kind::Constraint => {
                Self::Conflict(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// The first thing that SQLite has to say, on one line.
#[must_use]
pub fn first_finding(findings: &str) -> String {
    let mut lines = findings.lines().filter(|line| !line.starts_with("***"));
    let first = lines.next().unwrap_or("it cannot be read").to_owned();
    match lines.count() {
        0 => first,
        more => format!("{first} (and {more} more)"),
    }
}
