//! Why the broker, or its administration, fails.

use crate::ledger::LedgerError;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why the broker, or a request of its administration, failed. The text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The directory holds no ledger.
    #[error("there is no broker's ledger in {}", .0.display())]
    NoLedger(PathBuf),
    /// Another process holds the data directory's lock.
    #[error("a broker is running on {}", .0.display())]
    AlreadyRunning(PathBuf),
    /// The address is taken (§17.3: exit 5).
    #[error("{0} is taken by another program: choose another with --listen")]
    AddressTaken(SocketAddr),
    /// A file or socket failed.
    #[error("{0}")]
    Io(String),
    /// The ledger failed.
    #[error("the broker's ledger: {0}")]
    Ledger(#[from] LedgerError),
    /// An argument is wrong; says which and what was expected.
    #[error("{0}")]
    Invalid(String),
    /// A name is taken.
    #[error("{0}")]
    Conflict(String),
    /// No such mesh or member.
    #[error("{0}")]
    NotFound(String),
    /// A broker runs but does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// No broker runs, and the request needs one.
    #[error("{0}")]
    NotRunning(String),
}

impl BrokerError {
    pub(crate) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        Self::Io(format!("{what} {}: {error}", path.display()))
    }
}
