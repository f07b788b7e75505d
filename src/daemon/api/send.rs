//! `POST /v1/send` (§3.3): the request's fields in, one of the answers of §4.5.1 out.

use super::reply::{self, Problem};
use super::{App, Request};
use crate::api::bodies::{BodyError, SendBody, Sent};
use crate::flow::accept::{AcceptAnswer, Rejection};
use crate::store::outbox::AcceptOutcome;
use claudemesh_fsm::accept::{AcceptDecision, Conflict};
use claudemesh_fsm::id::RowId;
use serde_json::{Value, json};

/// Every accepted message is on stable storage before its answer. Ephemeral mode, where it is not,
/// is a later release.
const DURABLE: bool = true;

pub(super) async fn send(mut request: Request) -> tide::Result {
    let header_id = match idempotency_key(&request) {
        Ok(id) => id,
        Err(problem) => return Ok(problem.into()),
    };
    let body = match SendBody::parse(&request.body_bytes().await?) {
        Ok(body) => body,
        Err(error) => return Ok(bad_body(&error).into()),
    };
    let explicit_mesh = body.mesh.clone();
    Ok(match request.state().accept.accept(body, header_id).await {
        Ok(answer) => respond(answer, explicit_mesh.as_deref()),
        Err(rejection) => reject(request.state(), rejection).into(),
    })
}

/// The id in `Idempotency-Key`: bare, or quoted as an RFC 8941 string.
fn idempotency_key(request: &Request) -> Result<Option<String>, Problem> {
    let bad = |detail: &str| Problem::bad_request("invalid_client_message_id", detail);
    let Some(values) = request.header("idempotency-key") else { return Ok(None) };
    let (Some(value), None) = (values.get(0), values.get(1)) else {
        return Err(bad("`Idempotency-Key` came more than once: send one id"));
    };
    let value = value.as_str().trim();
    if !value.starts_with('"') {
        return Ok(Some(value.to_owned()));
    }
    let quoted = unquote(value);
    quoted
        .map(Some)
        .ok_or_else(|| bad("`Idempotency-Key` begins with a quote and is no RFC 8941 string"))
}

fn unquote(value: &str) -> Option<String> {
    let inside = value.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return None,
            '\\' => text.push(characters.next().filter(|c| matches!(c, '"' | '\\'))?),
            other => text.push(other),
        }
    }
    // A backslash that escaped the closing quote leaves the string open.
    (value.len() >= 2).then_some(text)
}

pub(super) fn bad_body(error: &BodyError) -> Problem {
    let code = match error {
        BodyError::NotJson(_) => "invalid_json",
        BodyError::NotAnObject(_) => "expected_json_object",
        BodyError::Missing { field, .. } => match *field {
            "to" => "missing_to",
            "message" => "missing_message",
            "ids" => "missing_ids",
            "before" => "missing_before",
            _ => "missing_id",
        },
        BodyError::Wrong { field, .. } => code_of(field),
    };
    Problem::bad_request(code, error.to_string())
}

fn code_of(field: &str) -> &'static str {
    match field {
        "to" => "invalid_to",
        "message" => "invalid_message",
        "priority" => "invalid_priority",
        "mentions" => "invalid_mentions",
        "reply_to_id" => "invalid_reply_to_id",
        "client_message_id" | "new_client_message_id" => "invalid_client_message_id",
        _ => "invalid_parameter",
    }
}

fn respond(answer: AcceptAnswer, explicit_mesh: Option<&str>) -> tide::Response {
    let AcceptAnswer { client_message_id, accepted, encryption } = answer;
    let AcceptOutcome { row_id, decision, mesh, has_no_destination, fingerprint } = accepted;
    let location = format!("/v1/messages/{}", reply::encode_segment(client_message_id.as_str()));
    let sent = |status: &str| Sent {
        client_message_id: client_message_id.as_str().to_owned(),
        status: status.to_owned(),
        mesh: mesh.clone(),
        encryption,
        durable: DURABLE,
        duplicate: None,
        broker_message_id: None,
        history_id: None,
    };
    match decision {
        AcceptDecision::Insert | AcceptDecision::Queued => {
            reply::accepted(&sent("queued"), &location)
        }
        AcceptDecision::Inflight => reply::accepted(&sent("inflight"), &location),
        AcceptDecision::Done { broker_message_id, history_id } => reply::ok(&Sent {
            duplicate: Some(true),
            broker_message_id: Some(broker_message_id),
            history_id,
            ..sent("done")
        }),
        AcceptDecision::Conflict(conflict) => {
            let is_other = |named: &&str| !mesh.is_empty() && *named != mesh;
            let detail = match explicit_mesh.filter(is_other) {
                Some(named) => {
                    format!("this id was accepted for mesh `{mesh}`, not `{named}`: use a new id")
                }
                None => remedy(&conflict, &row_id, has_no_destination),
            };
            conflicted(conflict, detail)
                .with("daemon_fingerprint_prefix", fingerprint.prefix())
                .with("client_message_id", client_message_id.as_str())
                .into()
        }
    }
}

fn remedy(conflict: &Conflict, row_id: &RowId, has_no_destination: bool) -> String {
    match conflict {
        // An earlier daemon did not record where it goes, or damage took that: the reason says so.
        Conflict::DeadMatch { .. } if has_no_destination => {
            "this message failed for good and cannot be requeued: use a new id to send it again"
                .to_owned()
        }
        Conflict::DeadMatch { .. } => {
            let id = row_id.as_str();
            format!(
                "this message failed for good: requeue it with `claudemesh outbox requeue {id}`"
            )
        }
        Conflict::AbortedMatch { superseded_by: Some(id) } => {
            format!("this message was requeued as {id}: follow that row, or use a new id")
        }
        Conflict::AbortedMatch { superseded_by: None } => {
            "this message was given up by an operator: use a new id to send it again".to_owned()
        }
        Conflict::PendingMismatch
        | Conflict::InflightMismatch
        | Conflict::DoneMismatch { .. }
        | Conflict::DeadMismatch
        | Conflict::AbortedMismatch => "this id was accepted for another request: use a new id, \
                                        or send exactly the first request again"
            .to_owned(),
    }
}

fn conflicted(conflict: Conflict, detail: String) -> Problem {
    let problem =
        Problem::conflict("idempotency_key_reused", detail).with("conflict", conflict.as_str());
    let problem = match &conflict {
        Conflict::DoneMismatch { broker_message_id } => {
            problem.with("broker_message_id", broker_message_id.as_str())
        }
        _ => problem.with("broker_message_id", Value::Null),
    };
    match conflict {
        Conflict::DeadMatch { last_error } => problem.with("reason", last_error),
        Conflict::AbortedMatch { superseded_by } => problem.with("superseded_by", superseded_by),
        _ => problem,
    }
}

fn reject(app: &App, rejection: Rejection) -> Problem {
    match rejection {
        Rejection::IdsDisagree => Problem::bad_request(
            "idempotency_key_conflict",
            "the `Idempotency-Key` header and `client_message_id` differ: send one of them, or the same id in both",
        ),
        Rejection::BadId(error) => Problem::bad_request(
            "invalid_client_message_id",
            format!("`client_message_id` {error}"),
        ),
        Rejection::BadField { field, expected } => {
            Problem::bad_request(code_of(field), format!("`{field}` must be {expected}"))
        }
        Rejection::BadMeta(error) => Problem::bad_request("invalid_meta", error.to_string()),
        Rejection::MeshRequired { attached } => Problem::bad_request(
            "mesh_required",
            if attached.is_empty() {
                "no mesh is attached: join one with `claudemesh join <link>`"
            } else {
                "several meshes could take this message: name one in `mesh`"
            },
        )
        .with("attached", attached),
        Rejection::MeshNotAttached(mesh) => Problem::not_found(
            "mesh_not_attached",
            format!("this daemon does not serve mesh `{mesh}`: join it, or start the daemon without --mesh"),
        )
        .with("mesh", mesh),
        Rejection::MeshRefused { mesh, reason, remedy } => Problem::unavailable(
            "mesh_refused",
            format!("the broker of mesh `{mesh}` does not take messages from us ({reason}): {remedy}"),
        )
        .with("mesh", mesh)
        .with("reason", reason),
        Rejection::Ambiguous { to, candidates } => Problem::conflict(
            "destination_ambiguous",
            format!(
                "`{to}` is the name of {} members: use a public key or a prefix of at least 8 digits",
                candidates.len(),
            ),
        )
        .with("candidates", json!(candidates)),
        Rejection::Unknown { to, mesh } => Problem::not_found(
            "destination_unknown",
            format!("nobody in mesh `{mesh}` is known as `{to}`"),
        ),
        Rejection::Unresolvable { mesh, .. } => Problem::unavailable(
            "destination_unresolvable",
            format!("the roster of mesh `{mesh}` was never fetched: send to a public key, or try again when the link is open"),
        )
        .with("mesh", mesh),
        Rejection::TooLarge { mesh, frame_bytes, frame_bytes_max } => Problem::payload_too_large(
            format!("the sealed frame would be {frame_bytes} bytes; mesh `{mesh}` takes {frame_bytes_max}"),
            frame_bytes_max,
        )
        .with("frame_bytes", frame_bytes),
        Rejection::Store(error) => app.store_problem(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_key_is_unquoted_once() {
        assert_eq!(unquote(r#""a-1""#).as_deref(), Some("a-1"));
        assert_eq!(unquote(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        for broken in [r#"""#, r#""a"#, r#""a"b""#, r#""a\n""#, r#""a\""#] {
            assert_eq!(unquote(broken), None, "{broken}");
        }
    }
}
