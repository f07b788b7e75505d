//! `GET /v1/outbox`, `GET /v1/outbox/{id}` and `POST /v1/outbox/prune` (§3.2, §4.5.2).

use super::Request;
use super::body::{self, read_body};
use super::query::{QueryParameters, bad, decode_cursor, encode_cursor};
use super::reply::{self, Answer, Problem};
use crate::api::bodies::{Inspected, OutboxRow, Page, PruneBody, Pruned};
use crate::store::outbox::{ListQuery, PruneQuery};
use claudemesh_base::runtime::parse_iso;
use claudemesh_fsm::id::{Millis, RowId};
use claudemesh_fsm::outbox::Status;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 500;

pub(super) async fn list(request: Request) -> Answer {
    let app = request.state();
    let page = app.outbox.list(list_query(&request)?).await;
    let page = page.map_err(|error| app.store_problem(&error))?;
    Ok(reply::ok(&Page::<OutboxRow> {
        items: page.rows.into_iter().map(OutboxRow::from).collect(),
        next_cursor: page.next_before_seq.map(encode_cursor),
        marked_seen: None,
    }))
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

pub(super) async fn inspect(request: Request) -> Answer {
    let app = request.state();
    let id = reply::id_of(&request).ok_or_else(no_such_row)?;
    let found = app.outbox.inspect(RowId::trusted(id)).await;
    let found = found.map_err(|error| app.store_problem(&error))?.ok_or_else(no_such_row)?;
    Ok(reply::ok(&Inspected::from(found)))
}

pub(super) fn no_such_row() -> Problem {
    Problem::not_found(
        "not_found",
        "no row has this `id`: it is the `id` of GET /v1/outbox, not the client_message_id",
    )
}

pub(super) async fn prune(mut request: Request) -> Answer {
    let body: PruneBody = read_body(&mut request).await?;
    let app = request.state();
    let query = prune_query(&body, app.runtime.now())?;
    let pruned = app.outbox.prune(query).await.map_err(|error| app.store_problem(&error))?;
    Ok(reply::ok(&Pruned {
        rows: pruned.rows,
        confirmed: body.confirm,
        next_cursor: pruned.next_after_seq.map(encode_cursor),
    }))
}

fn prune_query(body: &PruneBody, now: Millis) -> Result<PruneQuery, Problem> {
    // What is finished now is not older than any time to come.
    let before = parse_iso(&body.before).filter(|before| *before <= now);
    let before = before.ok_or_else(|| {
        body::bad("before", "a time such as 2024-11-22T01:17:46.591Z, and not in the future")
    })?;
    let after_seq = match &body.cursor {
        None => 0,
        Some(text) => decode_cursor(text)
            .ok_or_else(|| body::bad("cursor", "a `next_cursor` of an earlier answer"))?,
    };
    Ok(PruneQuery { before, after_seq, confirm: body.confirm })
}
