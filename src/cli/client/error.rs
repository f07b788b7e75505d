//! What can happen to a request to the daemon.

use claudemesh_base::http::client::ClientError;
use serde_json::{Map, Value};
use std::io::{self, ErrorKind};

/// Why there is no good answer, and how far the request got.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody listens at the socket.
    #[error("the daemon is not running")]
    NotRunning,
    /// Somebody may listen, but we did not get through: nothing was sent.
    #[error("the daemon's socket cannot be used: {0}")]
    Unreachable(#[source] io::Error),
    /// The request is certainly not with the daemon.
    #[error("the request did not reach the daemon: {0}")]
    NotWritten(String),
    /// The request was written and not answered: the daemon may have acted on it.
    #[error("the daemon did not answer: {0}")]
    Unanswered(String),
    /// The daemon answered with a problem. Its answer is final.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// The daemon answered something this client does not understand.
    #[error("the daemon's answer is not understood ({0}): is it of another version?")]
    InvalidResponse(String),
}

impl Error {
    pub(super) fn invalid_response(why: impl Into<String>) -> Self {
        Self::InvalidResponse(why.into())
    }

    /// Whether the daemon cannot have acted on the request.
    #[must_use]
    pub(crate) const fn is_certainly_not_taken(&self) -> bool {
        matches!(self, Self::NotRunning | Self::Unreachable(_) | Self::NotWritten(_))
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::CouldNotConnect(error) => match error.kind() {
                ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
                    Self::NotRunning
                }
                _ => Self::Unreachable(error),
            },
            ClientError::NotWritten(why) => Self::NotWritten(why),
            ClientError::Unanswered(why) => Self::Unanswered(why),
        }
    }
}

/// A problem (RFC 9457) as the daemon answered it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The stable code to branch on; empty if there was none.
    pub error: String,
    /// What a person should do about it.
    pub detail: String,
    /// The members of this kind of problem: `candidates`, `attached`, `conflict`, …
    pub extra: Map<String, Value>,
}

impl Problem {
    /// Reads a body; whatever it is, a problem comes out.
    #[must_use]
    pub(crate) fn parse(status: u16, body: &[u8]) -> Self {
        let mut extra = match serde_json::from_slice(body) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        let mut text = |name: &str| match extra.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let error = text("error").unwrap_or_default();
        let title = text("title");
        let detail = text("detail")
            .or(title)
            .or_else(|| (!error.is_empty()).then(|| error.clone()))
            .unwrap_or_else(|| format!("the daemon answered with HTTP status {status}"));
        for repeated in ["type", "status"] {
            extra.remove(repeated);
        }
        Self { status, error, detail, extra }
    }
}
