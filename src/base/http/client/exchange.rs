//! A request, its answer, and how far a request got that was not answered.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{HeaderMap, Method};
use std::io;

/// How far a request got before it failed (§8).
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answered at the address: nothing was sent.
    #[error("could not connect: {0}")]
    CouldNotConnect(io::Error),
    /// The request is certainly not at the other end: no byte of it was written.
    #[error("the request was not sent: {0}")]
    NotWritten(String),
    /// The request was written, at least in part, and no whole answer came: the other end may
    /// have acted on it.
    #[error("the request was sent and not answered: {0}")]
    Unanswered(String),
}

impl ClientError {
    /// Whether the other end cannot have taken the request, so that another way may be tried.
    #[must_use]
    pub const fn is_certainly_not_taken(&self) -> bool {
        matches!(self, Self::CouldNotConnect(_) | Self::NotWritten(_))
    }
}

/// A request. `Host` is `localhost` unless a header says otherwise.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query, percent-encoded by the caller.
    pub path: String,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty means none.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// `GET path`.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// `POST path` with a JSON body.
    #[must_use]
    pub fn post_json(path: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        let request = Self { body: body.into(), ..Self::new(Method::POST, path) };
        request.header("content-type", "application/json")
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn build(self) -> Result<hyper::Request<Full<Bytes>>, ClientError> {
        let mut builder = hyper::Request::builder().method(self.method).uri(self.path);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            builder = builder.header("host", "localhost");
        }
        for (name, value) in self.headers {
            builder = builder.header(name, value);
        }
        let body = Full::new(Bytes::from(self.body));
        builder.body(body).map_err(|error| ClientError::NotWritten(error.to_string()))
    }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}
