//! `POST /v1/outbox/requeue` and `POST /v1/outbox/abort` (§4.5.3): a row is retired, with or without
//! a successor.

use super::body::{bad, read_body};
use super::outbox::no_such_row;
use super::reply::{self, Answer, Problem};
use super::{App, Request};
use crate::api::bodies::{AbortBody, Aborted, RequeueBody, Requeued};
use crate::store::outbox::{
    AbortOutcome, AbortRequest, Patch, RequeueOutcome, RequeueRequest, TooLarge,
};
use claudemesh_base::message::fingerprint_of;
use claudemesh_base::wire::FRAME_BYTES_MAX;
use claudemesh_base::wire::send_frame::oversized_frame_bytes;
use claudemesh_fsm::envelope::Envelope;
use claudemesh_fsm::id::{ClientMessageId, RowId};
use claudemesh_fsm::outbox::Status;

const ABORTED_BY_DEFAULT: &str = "operator";
/// It stays in the row for ever.
const ABORTED_BY_CHARACTERS_MAX: usize = 128;

pub(super) async fn requeue(mut request: Request) -> Answer {
    let body: RequeueBody = read_body(&mut request).await?;
    let app = request.state();
    let asked = requeue_request(app, body)?;
    let (id, new_id) = (asked.id.clone(), asked.new_id.clone());
    let new_client_message_id = asked.new_client_message_id.clone();
    match app.outbox.requeue(asked).await.map_err(|error| app.store_problem(&error))? {
        RequeueOutcome::Requeued { may_have_been_sent } => Ok(reply::ok(&Requeued {
            aborted_row_id: id.into_string(),
            new_row_id: new_id.into_string(),
            new_client_message_id: new_client_message_id.into_string(),
            may_have_been_sent,
        })),
        refused => Err(refuse_requeue(refused)),
    }
}

fn requeue_request(app: &App, body: RequeueBody) -> Result<RequeueRequest, Problem> {
    let runtime = &app.runtime;
    let new_client_message_id = match body.new_client_message_id.as_deref() {
        None => ClientMessageId::trusted(runtime.mint_id()),
        Some(id) => ClientMessageId::parse(id).map_err(|error| {
            let detail = format!("`new_client_message_id` {error}");
            Problem::bad_request("invalid_client_message_id", detail)
        })?,
    };
    if body.payload.as_ref().is_some_and(String::is_empty) {
        return Err(bad("payload", "a non-empty string: the new message"));
    }
    let meshes = app.meshes.clone();
    // A mesh that left or is refused may come back: then the limit is what brokers have by default.
    let limit_of = move |mesh: &str| {
        let told = meshes.get(mesh).and_then(|mesh| mesh.frame_bytes_max().ok().flatten());
        told.map_or(FRAME_BYTES_MAX, |max| usize::try_from(max).unwrap_or(usize::MAX))
    };
    Ok(RequeueRequest {
        id: RowId::trusted(body.id),
        new_id: RowId::trusted(runtime.mint_id()),
        new_client_message_id,
        patch: body
            .payload
            .map(|payload| Patch { payload: payload.into_bytes(), fingerprint: fingerprint_of }),
        check_size: Box::new(move |envelope, id| {
            check_size(envelope, id, limit_of(&envelope.mesh))
        }),
        aborted_by: aborted_by(body.aborted_by)?,
        now: runtime.now(),
        force: body.force,
    })
}

fn check_size(
    envelope: &Envelope,
    id: &ClientMessageId,
    frame_bytes_max: usize,
) -> Result<(), TooLarge> {
    match oversized_frame_bytes(envelope, id, frame_bytes_max) {
        None => Ok(()),
        Some(frame_bytes) => {
            Err(TooLarge { mesh: envelope.mesh.clone(), frame_bytes, frame_bytes_max })
        }
    }
}

/// Who is said to have asked, for the audit column.
fn aborted_by(given: Option<String>) -> Result<String, Problem> {
    let Some(name) = given else { return Ok(ABORTED_BY_DEFAULT.to_owned()) };
    let characters = name.chars().count();
    let is_good = !name.trim().is_empty()
        && characters <= ABORTED_BY_CHARACTERS_MAX
        && !name.chars().any(char::is_control);
    if is_good {
        return Ok(name);
    }
    let expected =
        format!("1 to {ABORTED_BY_CHARACTERS_MAX} characters, none of them a control character");
    Err(bad("aborted_by", &expected))
}

fn refuse_requeue(outcome: RequeueOutcome) -> Problem {
    match outcome {
        RequeueOutcome::NotFound => no_such_row(),
        RequeueOutcome::WrongState { status, superseded_by } => {
            wrong_state("row_not_requeueable", status, superseded_by, "send a new one")
        }
        RequeueOutcome::NoDestination => Problem::conflict(
            "row_not_requeueable",
            "this row does not say any more, or never said, where it goes: send the message again under a new id",
        )
        .with("row_status", Status::Dead.as_str())
        .with("superseded_by", None::<&str>),
        RequeueOutcome::BodyEmptied { status } => Problem::conflict(
            "row_not_requeueable",
            "this row's body is gone: repeat with the message in `payload`",
        )
        .with("row_status", status.as_str())
        .with("superseded_by", None::<&str>),
        RequeueOutcome::TooLarge(TooLarge { mesh, frame_bytes, frame_bytes_max }) => {
            Problem::payload_too_large(
                format!(
                    "the sealed frame would be {frame_bytes} bytes; mesh `{mesh}` takes {frame_bytes_max}: nothing was changed"
                ),
                frame_bytes_max,
            )
            .with("frame_bytes", frame_bytes)
        }
        RequeueOutcome::MayHaveBeenSent => Problem::conflict(
            "attempt_unanswered",
            "an attempt of this row was not answered, so the broker may have the message: repeat with \"force\": true to accept a possible second copy",
        )
        .with("row_status", Status::Pending.as_str())
        .with("may_have_been_sent", true),
        RequeueOutcome::NewIdTaken => Problem::conflict(
            "client_message_id_taken",
            "`new_client_message_id` belongs to another row: nothing was changed",
        ),
        RequeueOutcome::Requeued { .. } => Problem::internal(),
    }
}

/// A state that nobody can retire a row from, and why; `instead` is what is left to do about a
/// message that the broker has.
fn wrong_state(
    error: &'static str,
    status: Status,
    superseded_by: Option<RowId>,
    instead: &str,
) -> Problem {
    let detail = match (status, &superseded_by) {
        (Status::Inflight, _) => "this row is inflight: wait for the broker's answer".to_owned(),
        (Status::Done, _) => format!("this row is done, the broker has the message: {instead}"),
        (_, Some(id)) => format!("this row is aborted: it was requeued as {}", id.as_str()),
        (_, None) => "this row is aborted, without a successor".to_owned(),
    };
    Problem::conflict(error, detail)
        .with("row_status", status.as_str())
        .with("superseded_by", superseded_by.as_ref().map(RowId::as_str))
}

pub(super) async fn abort(mut request: Request) -> Answer {
    let AbortBody { id, aborted_by: name } = read_body(&mut request).await?;
    let app = request.state();
    let (aborted_by, now) = (aborted_by(name)?, app.runtime.now());
    let asked = AbortRequest { id: RowId::trusted(id.clone()), aborted_by, now };
    match app.outbox.abort(asked).await.map_err(|error| app.store_problem(&error))? {
        AbortOutcome::Aborted { may_have_been_sent } => {
            Ok(reply::ok(&Aborted { aborted_row_id: id, may_have_been_sent }))
        }
        AbortOutcome::NotFound => Err(no_such_row()),
        AbortOutcome::WrongState { status, superseded_by } => {
            let instead = "it cannot be taken back";
            Err(wrong_state("row_not_abortable", status, superseded_by, instead))
        }
    }
}
