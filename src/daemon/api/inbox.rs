//! `GET /v1/inbox` (§3.4), which mutates only when `mark_seen=true` says so, and what does:
//! `POST /v1/inbox/seen`, `DELETE /v1/inbox`, `DELETE /v1/inbox/{id}`.

use super::query::{QueryParameters, encode_cursor};
use super::reply::{self, Problem};
use super::send::bad_body;
use super::{App, Request};
use crate::api::bodies::{InboxMessage, MarkedSeen, Page, Removed, SeenBody};
use crate::store::{Error, inbox};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// A page ends once its bodies weigh this much.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
const PARAMETERS: [&str; 8] =
    ["mesh", "topic", "from", "since", "unread_only", "limit", "cursor", "mark_seen"];

pub(super) async fn list(request: Request) -> tide::Result {
    let read = QueryParameters::read(&request, &PARAMETERS);
    let (query, mark_seen) =
        match read.and_then(|query| Ok((query_of(&query)?, query.flag("mark_seen")?))) {
            Ok(read) => read,
            Err(problem) => return Ok(problem.into()),
        };
    Ok(match page(request.state(), query, mark_seen).await {
        Ok(page) => {
            let next = page.next_cursor.clone();
            let mut response = reply::ok(&page);
            if let Some(cursor) = next {
                response.insert_header(
                    "link",
                    format!("<{}>; rel=\"next\"", next_url(&request, &cursor)),
                );
            }
            response
        }
        Err(error) => request.state().store_problem(&error).into(),
    })
}

fn query_of(query: &QueryParameters) -> Result<inbox::InboxFilter, Problem> {
    Ok(inbox::InboxFilter {
        mesh: query.text("mesh"),
        topic: query.text("topic"),
        from: query.text("from").map(|key| key.to_ascii_lowercase()),
        since: query.instant("since")?,
        unread_only: query.flag("unread_only")?,
        before_seq: query.cursor()?,
        limit: query.limit(LIMIT_DEFAULT, LIMIT_MAX)?,
        bytes_max: PAGE_BYTES_MAX,
    })
}

async fn page(
    app: &App,
    query: inbox::InboxFilter,
    mark_seen: bool,
) -> Result<Page<InboxMessage>, Error> {
    let page = app.inbox.list(query).await?;
    let marked_seen = if mark_seen {
        let seqs = page.messages.iter().map(|message| message.seq).collect();
        app.inbox.mark_seen(seqs, app.runtime.now()).await?
    } else {
        0
    };
    Ok(Page {
        items: page.messages.into_iter().map(InboxMessage::from).collect(),
        next_cursor: page.next_before_seq.map(encode_cursor),
        marked_seen: Some(marked_seen),
    })
}

pub(super) async fn mark_seen(mut request: Request) -> tide::Result {
    let body = match SeenBody::parse(&request.body_bytes().await?) {
        Ok(body) => body,
        Err(error) => return Ok(bad_body(&error).into()),
    };
    let app = request.state();
    Ok(match app.inbox.mark_ids_seen(body.ids, app.runtime.now()).await {
        Ok(marked_seen) => reply::ok(&MarkedSeen { marked_seen }),
        Err(error) => app.store_problem(&error).into(),
    })
}

pub(super) async fn clear(request: Request) -> tide::Result {
    let read = QueryParameters::read(&request, &["mesh", "before"]);
    let clear = match read.and_then(|query| {
        query.narrowing("before")?;
        Ok(inbox::ClearFilter { mesh: query.narrowing("mesh")?, before: query.instant("before")? })
    }) {
        Ok(clear) => clear,
        Err(problem) => return Ok(problem.into()),
    };
    Ok(match request.state().inbox.clear(clear).await {
        Ok(removed) => reply::ok(&Removed { removed, id: None }),
        Err(error) => request.state().store_problem(&error).into(),
    })
}

pub(super) async fn remove(request: Request) -> tide::Result {
    let not_found = || {
        let detail = "no message has this `id`: it is the `id` of GET /v1/inbox";
        Problem::not_found("not_found", detail)
    };
    // tide hands path parameters over as they came.
    let id = request.param("id").ok().and_then(reply::decode_segment);
    let Some(id) = id else { return Ok(not_found().into()) };
    Ok(match request.state().inbox.remove(id.clone()).await {
        Ok(true) => reply::ok(&Removed { removed: 1, id: Some(id) }),
        Ok(false) => not_found().into(),
        Err(error) => request.state().store_problem(&error).into(),
    })
}

/// This request's path and filters, with the next page's cursor.
fn next_url(request: &Request, cursor: &str) -> String {
    let mut url = request.url().clone();
    let kept: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| name != "cursor")
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut().clear().extend_pairs(kept).append_pair("cursor", cursor);
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}
