//! What a broker answers to an id it may know (§4.5b, phase B0 of §17.1).
//!
//! The lookup comes first, before any rate limit: a retry of something the broker has must always
//! learn so. This file compares; it neither reads nor writes the ledger.

use crate::id::{BrokerMessageId, Fingerprint, Millis};
use alloc::string::String;

/// The `error` of a send whose id is taken by another request.
pub const ERROR: &str = "idempotency_key_reused";
/// The `conflict` that goes with it.
pub const CONFLICT: &str = "request_fingerprint_mismatch";

/// What the ledger holds under `(mesh, sending member, client_message_id)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DedupeEntry {
    /// What binds the id to its first request.
    pub fingerprint: Fingerprint,
    /// The id the message got.
    pub broker_message_id: BrokerMessageId,
    /// Its place in the history, if it has one.
    pub history_id: Option<String>,
    /// Whether the message itself is still kept; `false` once it is pruned.
    pub history_available: bool,
    /// When it was first accepted.
    pub first_seen_at: Millis,
    /// How many members it was put in the queue of; `None` where the ledger does not know.
    pub recipients: Option<u32>,
    /// When the ledger may forget it; `None`: never. Until it is forgotten it counts, however
    /// late: the nightly expiry decides, not the clock of one lookup.
    pub expires_at: Option<Millis>,
}

/// What a send is, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a send is answered by its verdict"]
pub enum DedupeDecision {
    /// Nobody used the id: go on to phase B1, and claim the id with the message.
    First,
    /// The broker has this very request: answer as the first time, create nothing.
    Duplicate(DedupeEntry),
    /// The id belongs to another request: 409, create nothing.
    Mismatch {
        /// The first 8 bytes, in hex, of the fingerprint the id is bound to.
        broker_fingerprint_prefix: String,
    },
    /// A send of an old client, without id or fingerprint: go on to phase B1, claim no id.
    Undeduplicated,
}

/// Judges a send. `fingerprint` is the send's, and `None` unless it came with both an id and a
/// fingerprint; `existing` is what the ledger has under its id.
pub fn decide(existing: Option<DedupeEntry>, fingerprint: Option<Fingerprint>) -> DedupeDecision {
    let Some(fingerprint) = fingerprint else {
        return DedupeDecision::Undeduplicated;
    };
    match existing {
        None => DedupeDecision::First,
        Some(seen) if seen.fingerprint == fingerprint => DedupeDecision::Duplicate(seen),
        Some(seen) => {
            DedupeDecision::Mismatch { broker_fingerprint_prefix: seen.fingerprint.prefix() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(byte: u8) -> DedupeEntry {
        DedupeEntry {
            fingerprint: Fingerprint::new([byte; 32]),
            broker_message_id: BrokerMessageId::trusted("b1".into()),
            history_id: Some("h1".into()),
            history_available: true,
            first_seen_at: Millis(5),
            recipients: Some(1),
            expires_at: Some(Millis(9)),
        }
    }

    #[test]
    fn the_first_send_of_an_id_is_the_first() {
        assert_eq!(decide(None, Some(Fingerprint::new([1; 32]))), DedupeDecision::First);
    }

    #[test]
    fn the_same_request_gets_its_first_answer_even_when_the_history_is_gone() {
        let mut pruned = seen(1);
        pruned.history_available = false;
        for seen in [seen(1), pruned] {
            let again = decide(Some(seen.clone()), Some(Fingerprint::new([1; 32])));
            assert_eq!(again, DedupeDecision::Duplicate(seen));
        }
    }

    #[test]
    fn another_request_under_the_id_learns_only_the_prefix() {
        let other = decide(Some(seen(0xAB)), Some(Fingerprint::new([1; 32])));
        let broker_fingerprint_prefix = "abababababababab".into();
        assert_eq!(other, DedupeDecision::Mismatch { broker_fingerprint_prefix });
    }

    #[test]
    fn an_old_clients_send_is_not_deduplicated() {
        assert_eq!(decide(None, None), DedupeDecision::Undeduplicated);
        assert_eq!(decide(Some(seen(1)), None), DedupeDecision::Undeduplicated);
    }
}
