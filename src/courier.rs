//! The one question the drain asks of a link: take this, and what became of it?
//!
//! A link that opens hands out a courier; when it closes, the courier says so and never works
//! again. "Open" and "has a usable socket" are therefore the same value (§15.5): whoever holds a
//! courier that is not closed can send.

use crate::clock::BoxFuture;
use crate::message::seal::SecretKey;
use crate::wire;
use claudemesh_fsm::outbox::Ack;
use std::sync::Arc;

/// What became of one send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The broker has it.
    Acked(Ack),
    /// The broker said no.
    Refused {
        /// Its code, if it gave one.
        code: Option<u16>,
        /// Its words.
        words: String,
    },
    /// The frame was written and nobody answered: the broker may have it.
    Lost {
        /// Why nobody answered.
        words: String,
    },
    /// The frame was certainly not written.
    Unsent {
        /// Why not.
        words: String,
    },
}

/// An open link, as the drain sees it.
pub trait Courier: Send + Sync {
    /// Sends one message and waits for its answer, the ack deadline, or the link's end.
    fn deliver(&self, message: wire::Send) -> BoxFuture<Delivery>;

    /// Completes when the link is no longer open.
    fn closed(&self) -> BoxFuture<()>;

    /// The key this link sends with: messages are sealed with its secret (protocol §2.3).
    fn sender(&self) -> Arc<SecretKey>;

    /// How long a message may wait on this mesh before it expires, in milliseconds (§4.9).
    fn max_age_ms(&self) -> u64;

    /// How many sends may await their answer at once (§4.6).
    fn inflight_max(&self) -> usize;
}
