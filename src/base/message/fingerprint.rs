//! The request fingerprint (§4.4): one hash over everything a caller asked for, so that an id can
//! be recognised as the same request or as another one.
//!
//! The mesh is not part of it. The formula is today's network's, byte for byte.

use claudemesh_fsm::envelope::{Destination, Draft, Priority};
use claudemesh_fsm::id::Fingerprint;
use sha2::{Digest, Sha256};

/// The version of the envelope that is hashed.
const ENVELOPE_VERSION: &str = "1";
const SEPARATOR: [u8; 1] = [0];

/// Binds a request's destination, reply, priority, `meta` and body together (§4.4).
///
/// `meta_canonical` is what [`canonical_meta`](super::canonical_meta) returned; absent text counts
/// as empty. No text field may contain a NUL byte: the edge refuses control characters, and
/// canonical JSON escapes them.
#[must_use]
pub fn fingerprint(
    destination: &Destination,
    reply_to_id: Option<&str>,
    priority: Priority,
    meta_canonical: Option<&str>,
    body: &[u8],
) -> Fingerprint {
    let fields = Fields {
        kind: destination.kind().as_str(),
        reference: &destination.reference(),
        reply_to_id: reply_to_id.unwrap_or_default(),
        priority: priority.as_str(),
        meta: meta_canonical.unwrap_or_default(),
    };
    digest(&fields, body)
}

/// The same of what a draft holds, whatever fingerprint it carries.
#[must_use]
pub fn fingerprint_of(draft: &Draft) -> Fingerprint {
    fingerprint(
        &draft.destination,
        draft.reply_to_id.as_deref(),
        draft.priority,
        draft.meta.as_deref(),
        &draft.payload,
    )
}

/// What is hashed before the body, as text; what is absent is empty.
pub(super) struct Fields<'a> {
    pub(super) kind: &'a str,
    pub(super) reference: &'a str,
    pub(super) reply_to_id: &'a str,
    pub(super) priority: &'a str,
    pub(super) meta: &'a str,
}

/// The formula.
pub(super) fn digest(fields: &Fields<'_>, body: &[u8]) -> Fingerprint {
    let Fields { kind, reference, reply_to_id, priority, meta } = *fields;
    let mut hash = Sha256::new();
    for field in [ENVELOPE_VERSION, kind, reference, reply_to_id, priority, meta] {
        hash.update(field);
        hash.update(SEPARATOR);
    }
    hash.update(Sha256::digest(body));
    Fingerprint::new(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(to: &str, priority: Priority, meta: Option<&str>, body: &str) -> String {
        let to = Destination::parse(to).expect("a good destination");
        fingerprint(&to, None, priority, meta, body.as_bytes()).to_hex()
    }

    #[test]
    fn the_published_vector_holds() {
        assert_eq!(
            of("alice", Priority::Next, None, "hello"),
            "dc13f9d139b04e9886a09444fa269f46468843858070b13afee7889305c2aa09"
        );
    }

    #[test]
    fn every_part_of_a_request_changes_it() {
        let all = [
            of("alice", Priority::Next, None, "hello"),
            of("Alice", Priority::Next, None, "hello"),
            of("@alice", Priority::Next, None, "hello"),
            of("#alice", Priority::Next, None, "hello"),
            of("alice", Priority::Now, None, "hello"),
            of("alice", Priority::Next, Some("{}"), "hello"),
            of("alice", Priority::Next, None, "hello "),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
