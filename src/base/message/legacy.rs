//! The request fingerprint as the existing TypeScript daemon computed it (§4.4,
//! `specs/legacy.md`), so that a retry of a request it accepted finds its row.
//!
//! The formula is the same; three of the texts that go into it may differ. Where none does, there is
//! no second form and nothing is hashed.

use super::canonical::to_canonical;
use super::fingerprint::{Fields, digest};
use claudemesh_fsm::envelope::{Destination, DestinationKind, Draft};
use claudemesh_fsm::id::Fingerprint;
use serde_json::{Map, Value};

/// The largest number that JavaScript takes for an index when it orders keys: 2^32 − 2.
const INDEX_MAX: u32 = u32::MAX - 1;

/// What that daemon hashed for the request behind `draft`; `None` if it is what we hash.
///
/// `reference_as_written` is the destination's reference as that daemon took it from the caller's
/// words, where ours differs: a public key not in lowercase, or the `all` of `@all`.
///
/// Two different requests never share a form, ours or theirs: a topic is `topic` in ours and `dm` in
/// theirs, and the rest are two spellings of the same values. Comparing a row with both is therefore
/// safe whoever accepted it.
#[must_use]
pub fn fingerprint(draft: &Draft, reference_as_written: Option<&str>) -> Option<Fingerprint> {
    let meta = draft.meta.as_deref().and_then(in_their_order);
    let is_topic = matches!(draft.destination, Destination::Topic(_));
    if meta.is_none() && reference_as_written.is_none() && !is_topic {
        return None;
    }
    let kind = if is_topic { DestinationKind::Dm } else { draft.destination.kind() };
    let reference = draft.destination.reference();
    let reference = reference_as_written.unwrap_or(&reference);
    Some(digest_as(draft, kind, reference, meta.as_deref().or(draft.meta.as_deref())))
}

/// What an earlier version of this daemon hashed for `draft`, whose destination it took for
/// `reference`: `@all` was a group of that name once. `meta` is canonical there, as it is in ours.
#[must_use]
pub fn fingerprint_of_reference(draft: &Draft, reference: &str) -> Fingerprint {
    digest_as(draft, draft.destination.kind(), reference, draft.meta.as_deref())
}

/// The formula of §4.4 with another destination or `meta` than the draft has now.
fn digest_as(
    draft: &Draft,
    kind: DestinationKind,
    reference: &str,
    meta: Option<&str>,
) -> Fingerprint {
    let fields = Fields {
        kind: kind.as_str(),
        reference,
        reply_to_id: draft.reply_to_id.as_deref().unwrap_or_default(),
        priority: draft.priority.as_str(),
        meta: meta.unwrap_or_default(),
    };
    digest(&fields, &draft.payload)
}

/// Canonical `meta` with its keys in JavaScript's order; `None` if that changes nothing. Numbers and
/// text are written alike in both.
fn in_their_order(canonical: &str) -> Option<String> {
    let value: Value = serde_json::from_str(canonical).ok()?;
    let mut theirs = String::with_capacity(canonical.len());
    write(&value, &mut theirs);
    (theirs != canonical).then_some(theirs)
}

/// `meta` is at most 64 levels deep (§4.4), and so is this.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            out.push('{');
            for (position, (key, value)) in ordered(fields).into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                *out += &to_canonical(&Value::from(key));
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        plain => *out += &to_canonical(plain),
    }
}

/// Keys that are indices first, by number; then the others by UTF-16 code units.
fn ordered(fields: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut fields: Vec<_> = fields.iter().map(|(key, value)| (key.as_str(), value)).collect();
    fields.sort_by(|(left, _), (right, _)| match (index(left), index(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (None, None) => left.encode_utf16().cmp(right.encode_utf16()),
        (left, right) => right.is_some().cmp(&left.is_some()),
    });
    fields
}

/// The number a key stands for, if it is written as JavaScript would write it.
fn index(key: &str) -> Option<u32> {
    let number: u32 = key.parse().ok()?;
    (number <= INDEX_MAX && number.to_string() == key).then_some(number)
}

#[cfg(test)]
mod tests;
