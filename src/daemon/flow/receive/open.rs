//! Opening a push: which key, which box, and what that makes of it.

use crate::port::InboundPush;
use claudemesh_base::message::seal::open_plain;
use claudemesh_base::message::{Extension, PublicKey, SharedBox, SharedBoxes};
use claudemesh_base::wire::PushFrame;
use claudemesh_fsm::envelope::{Destination, DestinationKind, Encryption};
use claudemesh_fsm::receive::{self, Opened, ReceiveDecision};
use std::sync::Arc;

/// What a push turned out to be.
pub(super) struct OpenedPush {
    pub(super) decision: ReceiveDecision,
    /// The text, if there is any.
    pub(super) body: Option<String>,
    /// What travelled beside it; empty if nothing did, or if it does not open.
    pub(super) extension: Extension,
}

/// What opening needs from one push to the next.
#[derive(Default)]
pub(super) struct PushOpener {
    boxes: SharedBoxes,
}

impl PushOpener {
    pub(super) fn read(&self, inbound: &InboundPush) -> OpenedPush {
        let push = &inbound.push;
        let opened = self.open(inbound);
        let plain = open_plain(&push.ciphertext);
        let own_keys: Vec<String> =
            inbound.secrets.iter().map(|secret| secret.public().to_hex()).collect();
        let own_keys: Vec<&str> = own_keys.iter().map(String::as_str).collect();
        let connection_key = inbound.connection_key.to_hex();
        let decision = receive::decide(&receive::PushFacts {
            subtype: push.subtype.as_deref(),
            target: target_kind(push),
            has_topic: push.topic.is_some(),
            sender_key: &push.sender_pubkey,
            has_sender_member_key: push.sender_member_pubkey.is_some(),
            connection_key: &connection_key,
            own_keys: &own_keys,
            opened: match &opened {
                None => Opened::NotForUs,
                Some((_, Some(_))) => Opened::Text,
                Some((_, None)) => Opened::NotText,
            },
            plain_is_text: plain.is_some(),
        });
        match decision {
            ReceiveDecision::Store { encryption: Encryption::None, .. } => {
                OpenedPush { decision, body: plain, extension: plain_extension(push) }
            }
            _ => {
                let (shared, body) =
                    opened.map_or((None, None), |(shared, body)| (Some(shared), body));
                let extension = shared.map(|shared| sealed_extension(push, &shared));
                OpenedPush { decision, body, extension: extension.unwrap_or_default() }
            }
        }
    }

    /// The box that opens it, and its text if it is text.
    fn open(&self, inbound: &InboundPush) -> Option<(Arc<SharedBox>, Option<String>)> {
        let push = &inbound.push;
        let sender = PublicKey::parse(&push.sender_pubkey).ok()?;
        inbound.secrets.iter().find_map(|secret| {
            let shared = self.boxes.between(secret, &sender);
            let bytes = shared.open(&push.nonce, &push.ciphertext)?;
            Some((shared, String::from_utf8(bytes).ok()))
        })
    }
}

/// Whether it went to one member or to many, as the broker says; those of today's network do not.
fn target_kind(push: &PushFrame) -> Option<DestinationKind> {
    Destination::parse_exact(push.target_spec.as_deref()?).ok().map(|target| target.kind())
}

fn sealed_extension(push: &PushFrame, shared: &SharedBox) -> Extension {
    let (Some(nonce), Some(ciphertext)) = (&push.ext_nonce, &push.ext_ciphertext) else {
        return Extension::default();
    };
    shared.open_extension(nonce, ciphertext).unwrap_or_else(|error| unreadable(&error))
}

fn plain_extension(push: &PushFrame) -> Extension {
    let Some(json) = push.ext_ciphertext.as_deref().and_then(open_plain) else {
        return Extension::default();
    };
    Extension::parse(json.as_bytes()).unwrap_or_else(|error| unreadable(&error))
}

/// The body is worth having without what stood beside it.
fn unreadable(error: &dyn std::fmt::Display) -> Extension {
    tracing::debug!(%error, "the second box of a message was left out");
    Extension::default()
}

#[cfg(test)]
mod tests;
