//! What can happen to a request to the daemon.

use claudemesh_base::http::client::ClientError;
use serde_json::{Map, Value};
use std::fmt;
use std::io::{self, ErrorKind};

/// Why there is no good answer, and how far the request got.
#[derive(Debug)]
pub(crate) enum Error {
    /// Nobody listens at the socket.
    NotRunning,
    /// Somebody may listen, but we did not get through: nothing was sent.
    Unreachable(io::Error),
    /// The request is certainly not with the daemon.
    NotWritten(String),
    /// The request was written and not answered: the daemon may have acted on it.
    Unanswered(String),
    /// The daemon answered with a problem. Its answer is final.
    Problem(Box<Problem>),
    /// The daemon answered something this client does not understand.
    BadAnswer(String),
}

impl Error {
    pub(super) fn bad_answer(why: impl Into<String>) -> Self {
        Self::BadAnswer(why.into())
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning => f.write_str("the daemon is not running"),
            Self::Unreachable(error) => write!(f, "the daemon's socket cannot be used: {error}"),
            Self::NotWritten(why) => write!(f, "the request did not reach the daemon: {why}"),
            Self::Unanswered(why) => write!(f, "the daemon did not answer: {why}"),
            Self::Problem(problem) => f.write_str(&problem.detail),
            Self::BadAnswer(why) => write!(
                f,
                "the daemon's answer is not understood ({why}): is it of another version?"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable(error) => Some(error),
            _ => None,
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
