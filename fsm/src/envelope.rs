//! What a message is addressed to and how urgent it is: everything about an outbox row that never
//! changes once it is accepted, and that a requeue copies whole (§4.5.3).

mod destination;

pub use destination::{Destination, DestinationError, DestinationKind, is_public_key};

use crate::id::Fingerprint;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Deref;

/// How urgent a message is (§3.3). The order is the claim order: `Now` first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Interrupts.
    Now,
    /// The default.
    #[default]
    Next,
    /// Can wait.
    Low,
}

impl Priority {
    /// The word used on the wire, in the API and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Next => "next",
            Self::Low => "low",
        }
    }

    /// Reads one of `now`, `next`, `low`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "now" => Some(Self::Now),
            "next" => Some(Self::Next),
            "low" => Some(Self::Low),
            _ => None,
        }
    }
}

/// Who a direct message is pinned to when it is accepted (§3.3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipient {
    /// The key the broker routes by: a session key, or the member key.
    pub routing_key: String,
    /// The member the routing key belongs to; the same key when only a key was given.
    pub member_key: String,
}

/// How a message travels (§3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encryption {
    /// Sealed end to end for one recipient.
    Direct,
    /// In clear, for many recipients.
    #[default]
    None,
}

impl Encryption {
    /// The word in answers, in the inbox and in its database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::None => "none",
        }
    }

    /// Reads the word back.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Direct, Self::None].into_iter().find(|encryption| encryption.as_str() == text)
    }
}

/// A message as its caller wants it, checked and fingerprinted. It has no mesh and no recipient
/// yet, so it cannot be stored or sent: [`address`](Self::address) makes an [`Envelope`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Where it goes, as the caller wrote it.
    pub destination: Destination,
    /// How urgent it is.
    pub priority: Priority,
    /// RFC 8785 canonical JSON of `meta`, when there is one.
    pub meta: Option<String>,
    /// The message this one answers.
    pub reply_to_id: Option<String>,
    /// Names mentioned in a topic message.
    pub mentions: Vec<String>,
    /// The message body, UTF-8.
    pub payload: Vec<u8>,
    /// What binds the id to all of the above (§4.4).
    pub fingerprint: Fingerprint,
}

impl Draft {
    /// Addresses the message within `mesh`. A message to a member is pinned to whom `pin` finds for
    /// the name or key; nothing else has a recipient.
    ///
    /// # Errors
    /// What `pin` says, with the draft as it was.
    #[allow(clippy::result_large_err, reason = "the draft comes back, and is not boxed for it")]
    pub fn address<E>(
        self,
        mesh: &str,
        pin: impl FnOnce(&str) -> Result<Recipient, E>,
    ) -> Result<Envelope, (Self, E)> {
        let recipient = match &self.destination {
            Destination::Member(to) => match pin(to) {
                Ok(recipient) => Some(recipient),
                Err(error) => return Err((self, error)),
            },
            _ => None,
        };
        Ok(Envelope { mesh: mesh.into(), recipient, draft: self })
    }
}

/// Everything about a message that is fixed once it is accepted: a draft and its address.
///
/// Only [`Draft::address`] and the outbox make one, so that none is ever half filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope {
    /// The mesh's slug; empty only if the destination is [`Destination::Unrecorded`].
    pub mesh: String,
    /// Whom a direct message is pinned to; `None` for a group, a topic or everyone.
    pub recipient: Option<Recipient>,
    /// What the caller wrote.
    pub draft: Draft,
}

impl Envelope {
    /// Whether nobody knows where this goes: an earlier daemon recorded no mesh or no destination
    /// (§4.5.2). Such a message can be neither sent nor requeued.
    #[must_use]
    pub fn has_no_destination(&self) -> bool {
        self.draft.destination == Destination::Unrecorded
    }

    /// What a broker is asked to route to: the recipient's key, or the destination as the caller
    /// wrote it.
    #[must_use]
    pub fn target_spec(&self) -> String {
        match &self.recipient {
            Some(recipient) => recipient.routing_key.clone(),
            None => self.draft.destination.to_text(),
        }
    }
}

impl Deref for Envelope {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.draft
    }
}
