//! The parameters of requests, and how they are written into paths.

use std::fmt::Write as _;

/// The parameters of `GET /v1/inbox` (§3.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the parameter of the same name in specs/ipc.md")]
pub(crate) struct InboxQuery {
    pub mesh: Option<String>,
    pub topic: Option<String>,
    /// A public key: of a session or of a member.
    pub from: Option<String>,
    /// ISO-8601, UTC.
    pub since: Option<String>,
    pub unread_only: bool,
    pub mark_seen: bool,
    pub limit: Option<usize>,
    pub cursor: Option<String>,
}

impl InboxQuery {
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        let flag = |set: bool| set.then(|| "true".to_owned());
        present([
            ("mesh", self.mesh.clone()),
            ("topic", self.topic.clone()),
            ("from", self.from.clone()),
            ("since", self.since.clone()),
            ("unread_only", flag(self.unread_only)),
            ("mark_seen", flag(self.mark_seen)),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("cursor", self.cursor.clone()),
        ])
    }
}

/// The parameters of `GET /v1/outbox`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the parameter of the same name in specs/ipc.md")]
pub(crate) struct OutboxQuery {
    pub status: Option<String>,
    pub mesh: Option<String>,
    pub limit: Option<usize>,
    pub cursor: Option<String>,
}

impl OutboxQuery {
    pub(super) fn parameters(&self) -> Vec<(&'static str, String)> {
        present([
            ("status", self.status.clone()),
            ("mesh", self.mesh.clone()),
            ("limit", self.limit.map(|limit| limit.to_string())),
            ("cursor", self.cursor.clone()),
        ])
    }
}

fn present<const N: usize>(
    parameters: [(&'static str, Option<String>); N],
) -> Vec<(&'static str, String)> {
    parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// `path?name=value&…`, percent-encoded.
pub(super) fn with_query(path: &str, parameters: &[(&'static str, String)]) -> String {
    let mut text = path.to_owned();
    for (nth, (name, value)) in parameters.iter().enumerate() {
        text.push(if nth == 0 { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        text.push_str(&path_segment(value));
    }
    text
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(super) fn path_segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => write!(encoded, "%{byte:02X}").expect("a string takes every byte"),
        }
    }
    encoded
}
