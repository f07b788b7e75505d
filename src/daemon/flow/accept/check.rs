//! What can be said of a request without knowing a mesh: its fields become a draft, or a reason.

use super::Rejection;
use crate::api::bodies::SendBody;
use crate::store::outbox::RequestKey;
use claudemesh_base::message::{canonical_meta, fingerprint};
use claudemesh_base::wire::MENTIONS_MAX;
use claudemesh_fsm::envelope::{Destination, DestinationError, Draft, Priority};
use claudemesh_fsm::id::ClientMessageId;

/// Checks every field and fingerprints the whole.
pub(super) fn check(
    client_message_id: ClientMessageId,
    body: SendBody,
) -> Result<(RequestKey, Draft), Rejection> {
    let bad = |field, expected: &str| Rejection::BadField { field, expected: expected.to_owned() };
    if body.message.is_empty() {
        return Err(bad("message", "a non-empty string"));
    }
    let destination = Destination::parse(&body.to).map_err(|error| match error {
        DestinationError::Empty => {
            bad("to", "a public key, a name, @group, #topic or *, not empty")
        }
        DestinationError::ControlCharacter => bad("to", "free of control characters"),
        DestinationError::ReservedGroup => {
            bad("to", "a group whose name begins with neither * nor #")
        }
    })?;
    let written = body.to.trim();
    let reference_as_written = match &destination {
        Destination::Member(key) if key != written => Some(written.to_owned()),
        Destination::Everyone => written.strip_prefix('@').map(str::to_owned),
        _ => None,
    };
    let priority = match body.priority.as_deref() {
        None => Priority::default(),
        Some(word) => {
            Priority::parse(word).ok_or_else(|| bad("priority", "\"now\", \"next\" or \"low\""))?
        }
    };
    let has_control = |text: &String| text.chars().any(char::is_control);
    if body.reply_to_id.as_ref().is_some_and(has_control) {
        return Err(bad("reply_to_id", "free of control characters"));
    }
    check_mentions(&body.mentions, &destination)?;
    let meta = match &body.meta {
        None => None,
        Some(raw) => canonical_meta(raw).map_err(Rejection::BadMeta)?,
    };
    let payload = body.message.into_bytes();
    let reply_to_id = body.reply_to_id.filter(|id| !id.is_empty());
    let fingerprint =
        fingerprint(&destination, reply_to_id.as_deref(), priority, meta.as_deref(), &payload);
    let draft = Draft {
        destination,
        priority,
        meta,
        reply_to_id,
        mentions: body.mentions,
        payload,
        fingerprint,
    };
    let explicit_mesh = body.mesh;
    Ok((RequestKey { client_message_id, explicit_mesh, reference_as_written }, draft))
}

fn check_mentions(mentions: &[String], destination: &Destination) -> Result<(), Rejection> {
    let bad = |expected: String| Rejection::BadField { field: "mentions", expected };
    if mentions.len() > MENTIONS_MAX {
        return Err(bad(format!("at most {MENTIONS_MAX} names")));
    }
    if !mentions.is_empty() && !matches!(destination, Destination::Topic(_)) {
        return Err(bad("absent unless `to` is a #topic".to_owned()));
    }
    if mentions.iter().any(|name| name.is_empty() || name.chars().any(char::is_control)) {
        return Err(bad("names, not empty and free of control characters".to_owned()));
    }
    Ok(())
}
