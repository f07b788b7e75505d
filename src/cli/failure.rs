//! Why a command failed: an exit code, a message for a person, and a code for a program. `main` prints
//! it once.

use super::exit;
use crate::client;
use claudemesh_daemon::config::ConfigError;
use claudemesh_daemon::join::JoinError;
use serde_json::{Map, Value};
use std::fmt::Display;

/// A failure, ready to be printed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    pub(super) exit: u8,
    /// The stable code on which a program branches.
    pub(super) code: String,
    pub(super) message: String,
    /// What to do next, where the message does not say.
    pub(super) hint: Option<String>,
    /// Further members of the JSON form.
    pub(super) extra: Map<String, Value>,
}

impl Failure {
    pub(super) fn new(exit: u8, code: impl Into<String>, message: impl Display) -> Self {
        let (code, message) = (code.into(), message.to_string());
        Self { exit, code, message, hint: None, extra: Map::new() }
    }

    /// A failure without a code of its own.
    pub(super) fn failed(message: impl Display) -> Self {
        Self::new(exit::FAILED, "failed", message)
    }

    /// A command line that cannot be understood.
    pub(super) fn usage(message: impl Display) -> Self {
        Self::new(exit::USAGE, "usage", message)
    }

    /// The daemon does not run; `command` starts it.
    pub(super) fn not_running(command: impl Display) -> Self {
        Self::new(exit::NOT_RUNNING, "daemon_not_running", "the daemon is not running")
            .hint(format!("start it with `{command}`"))
    }

    /// The reader of our output has closed the pipe. That is no error, and nobody is left to tell.
    pub(super) fn closed_pipe() -> Self {
        Self::new(exit::OK, "closed_pipe", "")
    }

    pub(super) fn interrupted() -> Self {
        Self::new(exit::INTERRUPTED, "interrupted", "interrupted")
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        match error {
            client::Error::NotRunning => Self::not_running("claudemesh daemon up"),
            client::Error::Problem(problem) => {
                let exit = exit_of_problem(&problem.error);
                let mut failure = Self::new(exit, problem.error, problem.detail);
                failure.extra = problem.extra;
                failure
            }
            client::Error::Unanswered(_) => Self::new(exit::FAILED, "daemon_unanswered", error),
            other => Self::failed(other),
        }
    }
}

/// The daemon's stable codes (§3.2) as exit codes (§8).
fn exit_of_problem(code: &str) -> u8 {
    match code {
        "idempotency_key_reused"
        | "idempotency_key_conflict"
        | "client_message_id_taken"
        | "row_not_requeueable"
        | "row_not_abortable"
        | "attempt_unanswered"
        | "store_damaged" => exit::CONFLICT,
        "mesh_refused" => exit::REFUSED,
        "mesh_required" => exit::USAGE,
        code if code.starts_with("invalid_") || code.starts_with("missing_") => exit::USAGE,
        _ => exit::FAILED,
    }
}

impl From<JoinError> for Failure {
    fn from(error: JoinError) -> Self {
        let (exit, code) = match &error {
            JoinError::SlugTaken { .. } => (exit::CONFLICT, "slug_taken".to_owned()),
            JoinError::Refused { code, .. } => (exit::REFUSED, code.clone()),
            error if error.is_usage() => (exit::USAGE, "usage".to_owned()),
            JoinError::Unreachable { .. } => (exit::FAILED, "broker_unreachable".to_owned()),
            _ => (exit::FAILED, "join_failed".to_owned()),
        };
        Self::new(exit, code, error)
    }
}

impl From<claudemesh_daemon::identity::IdentityError> for Failure {
    fn from(error: claudemesh_daemon::identity::IdentityError) -> Self {
        Self::failed(error)
    }
}

impl From<claudemesh_base::paths::PathsError> for Failure {
    fn from(error: claudemesh_base::paths::PathsError) -> Self {
        Self::failed(error)
    }
}

/// A usage error, because a person wrote `config.toml`: a service manager must not try again.
impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(exit::USAGE, "invalid_config", error)
    }
}
