//! The composition root: opens the stores, starts the flows and the edges, and ends them in order.

use crate::config::Settings;
use crate::paths::Paths;
use std::fmt;
use std::net::SocketAddr;

/// How to run, already resolved from flags, environment and files.
#[derive(Debug)]
pub struct Options {
    /// Where everything is.
    pub paths: Paths,
    /// What `config.toml`, flags and detection say.
    pub settings: Settings,
    /// Serve only these meshes; all of them when empty.
    pub only_meshes: Vec<String>,
    /// Also run the embedded broker, on this address if one is given (§8 `--local`).
    pub local_broker: Option<LocalBroker>,
    /// Write the log to standard error too: for a person who watches.
    pub log_to_stderr: bool,
}

/// The embedded broker inside the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalBroker {
    /// Where it listens; `None` takes the address of the last run, or the default.
    pub listen: Option<SocketAddr>,
}

/// Why the daemon did not start, or ended badly.
#[derive(Debug)]
pub enum DaemonError {
    /// Another daemon holds the lock; its pid, where the file says.
    AlreadyRunning(Option<u32>),
    /// The outbox is damaged (exit 5).
    StoreDamaged(String),
    /// No mesh is left that a broker would have (exit 10).
    Refused(String),
    /// Everything else, with what to do about it.
    Failed(String),
}

impl DaemonError {
    /// The exit code of §8.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::AlreadyRunning(_) => 0,
            Self::Failed(_) => 1,
            Self::StoreDamaged(_) => 5,
            Self::Refused(_) => 10,
        }
    }
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRunning(Some(pid)) => {
                write!(f, "the daemon is already running (pid {pid})")
            }
            Self::AlreadyRunning(None) => f.write_str("the daemon is already running"),
            Self::StoreDamaged(why) | Self::Refused(why) | Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for DaemonError {}

/// Runs until a signal ends it. Blocks.
///
/// # Errors
/// When it cannot start, or must not go on.
pub fn run(options: Options) -> Result<(), DaemonError> {
    let _ = options;
    Err(DaemonError::Failed("not built yet".to_owned()))
}
