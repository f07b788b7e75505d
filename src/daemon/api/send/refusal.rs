//! Why a message is not taken, as the caller reads it: another message has its id, or no mesh takes it.

use crate::api::App;
use crate::api::bodies::Candidate;
use crate::api::reply::Problem;
use crate::flow::accept::Rejection;
use claudemesh_fsm::accept::Conflict;
use claudemesh_fsm::id::RowId;
use serde_json::{Value, json};

/// What is left to do about a message whose id another row has.
pub(super) fn remedy(conflict: &Conflict, row_id: &RowId, has_no_destination: bool) -> String {
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

/// The id belongs to another row.
pub(super) fn conflicted(conflict: Conflict, detail: String) -> Problem {
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

/// The id is free, and the message was not taken.
pub(super) fn reject(app: &App, rejection: Rejection) -> Problem {
    match rejection {
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
        .with("candidates", json!(candidates.into_iter().map(Candidate::from).collect::<Vec<_>>())),
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
