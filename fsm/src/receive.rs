//! What a pushed message is to its receiver, and whether to acknowledge it (§5).
//!
//! The question behind it: is this a sealed box for one member, or plaintext for many? Brokers of
//! today's network do not say, so what the push looks like has to decide; ours says it in
//! `targetSpec`. What is, or may be, a box that no key of ours opens is never decoded as text.

use crate::envelope::{DestinationKind, Encryption, is_public_key};

/// What became of opening the ciphertext with our session key, then our member key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It opened, and is UTF-8.
    Text,
    /// It opened, and is not UTF-8.
    NotText,
    /// No key of ours opens it, or it was not a box at all.
    NotForUs,
}

/// The facts about one push.
#[derive(Debug, Clone, Copy)]
pub struct PushFacts<'a> {
    /// `subtype`, if any.
    pub subtype: Option<&'a str>,
    /// Whether it was sent to one member or to many, if the broker says it.
    pub target: Option<DestinationKind>,
    /// Whether the push names a `topic`.
    pub has_topic: bool,
    /// `senderPubkey`: the key the sender's connection routes by.
    pub sender_key: &'a str,
    /// Whether the push names a `senderMemberPubkey`. On today's network only a live multicast
    /// does.
    pub has_sender_member_key: bool,
    /// The key the connection it arrived on routes by.
    pub connection_key: &'a str,
    /// Every key this daemon holds in the mesh.
    pub own_keys: &'a [&'a str],
    /// What became of opening it.
    pub opened: Opened,
    /// Whether the ciphertext is base64 of UTF-8 text: the plaintext convention of `*`, `@group`
    /// and `#topic` (`specs/wire.md`).
    pub plain_is_text: bool,
}

/// What to do with a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a push that is not acknowledged comes back"]
pub enum ReceiveDecision {
    /// Store it, commit, acknowledge, tell listeners.
    Store {
        /// There is no text: no key of ours opens the box, or what came in plain is none. The body
        /// is NULL, whatever the bytes look like.
        undecryptable: bool,
        /// How it travelled, and so where its body is: in what opening gave, or in the decoded
        /// ciphertext.
        encryption: Encryption,
    },
    /// An event of the broker: never stored, never acknowledged.
    System,
    /// The echo of a message of ours: dropped.
    Own {
        /// Whether to acknowledge it. On today's network a topic has one row for all its readers,
        /// and acknowledging our copy would delete it for everybody.
        ack: bool,
    },
    /// Not a message: count it and drop it, and acknowledge it so that it does not come back.
    Malformed(&'static str),
}

impl ReceiveDecision {
    /// Whether to send `client_ack`; for [`ReceiveDecision::Store`], after the commit.
    #[must_use]
    pub const fn ack(self) -> bool {
        match self {
            Self::Store { .. } | Self::Malformed(_) => true,
            Self::System => false,
            Self::Own { ack } => ack,
        }
    }
}

/// Judges one push.
pub fn decide(push: &PushFacts<'_>) -> ReceiveDecision {
    if matches!(push.subtype, Some("system" | "webhook")) {
        return ReceiveDecision::System;
    }
    if !is_public_key(push.sender_key) {
        return ReceiveDecision::Malformed("senderPubkey is not a public key");
    }
    if is_echo(push) {
        // A broker that says the kind keeps a copy per reader, so ours may go.
        return ReceiveDecision::Own { ack: push.target.is_some() };
    }
    match route(push) {
        Route::Direct => direct(push.opened),
        // No text: sealed with a topic key we do not have, or rubbish. Somebody sent something, so
        // it is shown that it is there, and never what its bytes look like.
        Route::Multicast => in_plain(push.plain_is_text),
        // Only a live multicast of today's network names the member; what is left may be a box.
        Route::Unknown if push.opened != Opened::NotForUs => direct(push.opened),
        Route::Unknown if push.has_sender_member_key && push.plain_is_text => in_plain(true),
        Route::Unknown => direct(Opened::NotForUs),
    }
}

enum Route {
    Direct,
    Multicast,
    Unknown,
}

fn route(push: &PushFacts<'_>) -> Route {
    match push.target {
        Some(DestinationKind::Dm) => Route::Direct,
        Some(DestinationKind::Topic) => Route::Multicast,
        None if push.has_topic => Route::Multicast,
        None => Route::Unknown,
    }
}

fn direct(opened: Opened) -> ReceiveDecision {
    match opened {
        Opened::Text => {
            ReceiveDecision::Store { undecryptable: false, encryption: Encryption::Direct }
        }
        Opened::NotForUs => {
            ReceiveDecision::Store { undecryptable: true, encryption: Encryption::Direct }
        }
        Opened::NotText => ReceiveDecision::Malformed("the box holds no UTF-8 text"),
    }
}

fn in_plain(is_text: bool) -> ReceiveDecision {
    ReceiveDecision::Store { undecryptable: !is_text, encryption: Encryption::None }
}

/// Whether we sent it ourselves. Judged by the key that sent it, never by its member: another
/// install of the same member may well write to us.
fn is_echo(push: &PushFacts<'_>) -> bool {
    let sent_by = |key: &str| push.sender_key.eq_ignore_ascii_case(key);
    let by_this_connection = sent_by(push.connection_key);
    if !by_this_connection && !push.own_keys.iter().any(|key| sent_by(key)) {
        return false;
    }
    match route(push) {
        Route::Multicast => true,
        // Said to be for us: a note to self is a message.
        Route::Direct => push.opened == Opened::NotForUs,
        // A box from another of our keys that opens is one connection writing to another.
        Route::Unknown => by_this_connection || push.opened == Opened::NotForUs,
    }
}

#[cfg(test)]
mod tests;
