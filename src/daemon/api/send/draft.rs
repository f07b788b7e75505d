//! What can be said of a request without knowing a mesh: its fields become a draft, or a problem.

use crate::api::bodies::SendBody;
use crate::api::body::bad;
use crate::api::reply::Problem;
use crate::store::outbox::RequestKey;
use claudemesh_base::message::{canonical_meta, fingerprint};
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::MENTIONS_MAX;
use claudemesh_fsm::envelope::{Destination, DestinationError, Draft, Priority};
use claudemesh_fsm::id::ClientMessageId;

/// Checks every field and fingerprints the whole. `header_id` is the `Idempotency-Key` header,
/// unquoted.
///
/// # Errors
/// The first field that cannot be used, as the problem to answer with.
pub fn draft_of(
    body: SendBody,
    header_id: Option<String>,
    runtime: &Runtime,
) -> Result<(RequestKey, Draft), Problem> {
    let client_message_id = choose_id(body.client_message_id.as_deref(), header_id, runtime)?;
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
    let mentions = body.mentions.unwrap_or_default();
    check_mentions(&mentions, &destination)?;
    let meta = match &body.meta {
        None => None,
        Some(raw) => canonical_meta(raw.get())
            .map_err(|error| Problem::bad_request("invalid_meta", error.to_string()))?,
    };
    let payload = body.message.into_bytes();
    let reply_to_id = body.reply_to_id.filter(|id| !id.is_empty());
    let fingerprint =
        fingerprint(&destination, reply_to_id.as_deref(), priority, meta.as_deref(), &payload);
    let draft = Draft { destination, priority, meta, reply_to_id, mentions, payload, fingerprint };
    let explicit_mesh = body.mesh;
    Ok((RequestKey { client_message_id, explicit_mesh, reference_as_written }, draft))
}

fn choose_id(
    in_body: Option<&str>,
    in_header: Option<String>,
    runtime: &Runtime,
) -> Result<ClientMessageId, Problem> {
    let given = |id: &str| !id.trim().is_empty();
    let in_body = in_body.filter(|id| given(id));
    let in_header = in_header.filter(|id| given(id));
    let id = match (in_body, &in_header) {
        (Some(body), Some(header)) if body.trim() != header.trim() => {
            return Err(Problem::bad_request(
                "idempotency_key_conflict",
                "the `Idempotency-Key` header and `client_message_id` differ: send one of them, or the same id in both",
            ));
        }
        (Some(id), _) => id,
        (None, Some(id)) => id,
        (None, None) => return Ok(ClientMessageId::trusted(runtime.mint_id())),
    };
    ClientMessageId::parse(id).map_err(|error| {
        let detail = format!("`client_message_id` {error}");
        Problem::bad_request("invalid_client_message_id", detail)
    })
}

fn check_mentions(mentions: &[String], destination: &Destination) -> Result<(), Problem> {
    if mentions.len() > MENTIONS_MAX {
        return Err(bad("mentions", &format!("at most {MENTIONS_MAX} names")));
    }
    if !mentions.is_empty() && !matches!(destination, Destination::Topic(_)) {
        return Err(bad("mentions", "absent unless `to` is a #topic"));
    }
    if mentions.iter().any(|name| name.is_empty() || name.chars().any(char::is_control)) {
        return Err(bad("mentions", "names, not empty and free of control characters"));
    }
    Ok(())
}
