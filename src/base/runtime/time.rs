//! Instants as text: ISO-8601 UTC with milliseconds and `Z`, the form of every time in JSON.

use claudemesh_fsm::id::Millis;
use std::time::{Duration, UNIX_EPOCH};

/// An instant as ISO-8601 UTC with milliseconds and `Z`, the form of every time in JSON.
#[must_use]
pub fn iso(at: Millis) -> String {
    let since_epoch = Duration::from_millis(u64::try_from(at.0).unwrap_or(0));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_epoch).to_string()
}

/// Reads an ISO-8601 UTC time back; `None` if it is not one.
#[must_use]
pub fn parse_iso(text: &str) -> Option<Millis> {
    let at = humantime::parse_rfc3339(text).ok()?;
    let since_epoch = at.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since_epoch.as_millis()).ok().map(Millis)
}
