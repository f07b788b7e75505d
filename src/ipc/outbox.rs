//! `GET /v1/outbox` and `POST /v1/outbox/requeue` (§3.2, §4.5.3).

use super::Request;
use super::query::{Query, bad, encode_cursor};
use super::reply::{self, Problem};
use super::send::bad_body;
use crate::api::{OutboxRow, Page, RequeueBody, Requeued};
use crate::message::fingerprint;
use crate::store::outbox::{ListQuery, Patch, RequeueOutcome, RequeueRequest};
use crate::store::{Error, Kind};
use claudemesh_fsm::envelope::Envelope;
use claudemesh_fsm::id::{ClientMessageId, RowId};
use claudemesh_fsm::outbox::Status;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 500;
const ABORTED_BY_DEFAULT: &str = "operator";

pub(super) async fn list(request: Request) -> tide::Result {
    let query = match list_query(&request) {
        Ok(query) => query,
        Err(problem) => return Ok(problem.into()),
    };
    Ok(match request.state().outbox.list(query).await {
        Ok(page) => reply::ok(&Page::<OutboxRow> {
            items: page.rows.into_iter().map(OutboxRow::from).collect(),
            next_cursor: page.next_before_seq.map(encode_cursor),
            marked_seen: None,
        }),
        Err(error) => store_problem(&error).into(),
    })
}

fn list_query(request: &Request) -> Result<ListQuery, Problem> {
    let query = Query::read(request, &["status", "mesh", "limit", "cursor"])?;
    let status = match query.text("status") {
        None => None,
        Some(word) => Some(
            Status::parse(&word)
                .ok_or_else(|| bad("status", "pending, inflight, done, dead or aborted"))?,
        ),
    };
    let limit = query.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    Ok(ListQuery { status, mesh: query.text("mesh"), before_seq: query.cursor()?, limit })
}

pub(super) async fn requeue(mut request: Request) -> tide::Result {
    let body = match RequeueBody::parse(&request.body_bytes().await?) {
        Ok(body) => body,
        Err(error) => return Ok(bad_body(&error).into()),
    };
    let app = request.state();
    let clock = &app.clock;
    let new_id = match body.new_client_message_id.as_deref().map(ClientMessageId::parse) {
        None => ClientMessageId::trusted(clock.mint_id()),
        Some(Ok(id)) => id,
        Some(Err(error)) => {
            let detail = format!("`new_client_message_id` {error}");
            return Ok(Problem::bad_request("invalid_client_message_id", detail).into());
        }
    };
    let new_row_id = RowId::trusted(clock.mint_id());
    let outcome = app
        .outbox
        .requeue(RequeueRequest {
            id: RowId::trusted(body.id.clone()),
            new_id: new_row_id.clone(),
            new_client_message_id: new_id.clone(),
            patch: body.payload.map(|payload| Patch {
                payload: payload.into_bytes(),
                fingerprint: fingerprint_of,
            }),
            aborted_by: body.aborted_by.unwrap_or_else(|| ABORTED_BY_DEFAULT.to_owned()),
            now: clock.now(),
            force: body.force,
        })
        .await;
    Ok(match outcome {
        Ok(RequeueOutcome::Requeued { may_have_been_sent }) => reply::ok(&Requeued {
            aborted_row_id: body.id,
            new_row_id: new_row_id.into_string(),
            new_client_message_id: new_id.into_string(),
            may_have_been_sent,
        }),
        Ok(refused) => refuse(&refused).into(),
        Err(error) => store_problem(&error).into(),
    })
}

fn fingerprint_of(envelope: &Envelope) -> claudemesh_fsm::id::Fingerprint {
    fingerprint(
        &envelope.destination,
        envelope.reply_to_id.as_deref(),
        envelope.priority,
        envelope.meta.as_deref(),
        &envelope.payload,
    )
}

fn refuse(outcome: &RequeueOutcome) -> Problem {
    match outcome {
        RequeueOutcome::NotFound => Problem::not_found(
            "not_found",
            "no row has this `id`: it is the `id` of GET /v1/outbox, not the client_message_id",
        ),
        RequeueOutcome::WrongState { status, superseded_by } => {
            let detail = match (status, superseded_by) {
                (Status::Inflight, _) => {
                    "this row is inflight: wait for the broker's answer".to_owned()
                }
                (Status::Done, _) => {
                    "this row is done, the broker has the message: send a new one".to_owned()
                }
                (_, Some(id)) => {
                    format!("this row is aborted: it was requeued as {}", id.as_str())
                }
                (_, None) => "this row is aborted, without a successor".to_owned(),
            };
            let superseded_by = superseded_by.as_ref().map(RowId::as_str);
            Problem::conflict("row_not_requeueable", detail)
                .with("row_status", status.as_str())
                .with("superseded_by", superseded_by)
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

/// A store that cannot answer.
pub(super) fn store_problem(error: &Error) -> Problem {
    match error.kind() {
        Kind::Full => Problem::insufficient_storage(error.to_string()),
        Kind::Corrupt => Problem::unavailable(
            "store_damaged",
            format!("a store is damaged ({error}): see `claudemesh daemon recover`"),
        ),
        Kind::Busy => Problem::daemon_busy(crate::db::QUEUE_MAX),
        _ => {
            tracing::error!(%error, "a store could not answer");
            Problem::internal()
        }
    }
}
