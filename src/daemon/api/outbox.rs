//! `GET /v1/outbox`, `GET /v1/outbox/{id}` and `POST /v1/outbox/prune` (§3.2, §4.5.2).

use super::Request;
use super::query::{QueryParameters, bad, decode_cursor, encode_cursor};
use super::reply::{self, Problem};
use super::send::bad_body;
use crate::api::bodies::{Inspected, OutboxRow, Page, PruneBody, Pruned};
use crate::store::outbox::{ListQuery, PruneQuery};
use claudemesh_base::runtime::parse_iso;
use claudemesh_fsm::id::{Millis, RowId};
use claudemesh_fsm::outbox::Status;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 500;

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
        Err(error) => request.state().store_problem(&error).into(),
    })
}

fn list_query(request: &Request) -> Result<ListQuery, Problem> {
    let query = QueryParameters::read(request, &["status", "mesh", "limit", "cursor"])?;
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

pub(super) async fn inspect(request: Request) -> tide::Result {
    // tide hands path parameters over as they came.
    let id = request.param("id").ok().and_then(reply::decode_segment);
    let Some(id) = id else { return Ok(no_such_row().into()) };
    Ok(match request.state().outbox.inspect(RowId::trusted(id)).await {
        Ok(Some(inspected)) => reply::ok(&Inspected::from(inspected)),
        Ok(None) => no_such_row().into(),
        Err(error) => request.state().store_problem(&error).into(),
    })
}

pub(super) fn no_such_row() -> Problem {
    Problem::not_found(
        "not_found",
        "no row has this `id`: it is the `id` of GET /v1/outbox, not the client_message_id",
    )
}

pub(super) async fn prune(mut request: Request) -> tide::Result {
    let body = match PruneBody::parse(&request.body_bytes().await?) {
        Ok(body) => body,
        Err(error) => return Ok(bad_body(&error).into()),
    };
    let app = request.state();
    let query = match prune_query(&body, app.runtime.now()) {
        Ok(query) => query,
        Err(problem) => return Ok(problem.into()),
    };
    Ok(match app.outbox.prune(query).await {
        Ok(pruned) => reply::ok(&Pruned {
            rows: pruned.rows,
            confirmed: body.confirm,
            next_cursor: pruned.next_after_seq.map(encode_cursor),
        }),
        Err(error) => app.store_problem(&error).into(),
    })
}

fn prune_query(body: &PruneBody, now: Millis) -> Result<PruneQuery, Problem> {
    let bad = |field: &str, expected: &str| {
        Problem::bad_request("invalid_parameter", format!("`{field}` must be {expected}"))
    };
    // What is finished now is not older than any time to come.
    let before = parse_iso(&body.before).filter(|before| *before <= now);
    let before = before.ok_or_else(|| {
        bad("before", "a time such as 2024-11-22T01:17:46.591Z, and not in the future")
    })?;
    let after_seq = match &body.cursor {
        None => 0,
        Some(text) => decode_cursor(text)
            .ok_or_else(|| bad("cursor", "a `next_cursor` of an earlier answer"))?,
    };
    Ok(PruneQuery { before, after_seq, confirm: body.confirm })
}
