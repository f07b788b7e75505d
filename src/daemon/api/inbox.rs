//! `GET /v1/inbox` (§3.4), which mutates only when `mark_seen=true` says so, and what does:
//! `POST /v1/inbox/seen`, `DELETE /v1/inbox`, `DELETE /v1/inbox/{id}`.

use super::body::read_body;
use super::query::{QueryParameters, encode_cursor};
use super::reply::{self, Answer, Problem};
use super::{App, Request};
use crate::api::bodies::{InboxMessage, MarkedSeen, Page, Removed, SeenBody};
use crate::store::{Error, inbox};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;
/// A page ends once its bodies weigh this much.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
const PARAMETERS: [&str; 8] =
    ["mesh", "topic", "from", "since", "unread_only", "limit", "cursor", "mark_seen"];

pub(super) async fn list(request: Request) -> Answer {
    let app = request.state();
    let parameters = QueryParameters::read(&request, &PARAMETERS)?;
    let (query, mark_seen) = (query_of(&parameters)?, parameters.flag("mark_seen")?);
    let page = page(app, query, mark_seen).await.map_err(|error| app.store_problem(&error))?;
    let mut response = reply::ok(&page);
    if let Some(cursor) = &page.next_cursor {
        let next = next_url(&request, cursor);
        response.insert_header("link", format!("<{next}>; rel=\"next\""));
    }
    Ok(response)
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

pub(super) async fn mark_seen(mut request: Request) -> Answer {
    let body: SeenBody = read_body(&mut request).await?;
    let app = request.state();
    let marked = app.inbox.mark_ids_seen(body.ids, app.runtime.now()).await;
    let marked_seen = marked.map_err(|error| app.store_problem(&error))?;
    Ok(reply::ok(&MarkedSeen { marked_seen }))
}

pub(super) async fn clear(request: Request) -> Answer {
    let app = request.state();
    let query = QueryParameters::read(&request, &["mesh", "before"])?;
    query.narrowing("before")?;
    let (mesh, before) = (query.narrowing("mesh")?, query.instant("before")?);
    let removed = app.inbox.clear(inbox::ClearFilter { mesh, before }).await;
    let removed = removed.map_err(|error| app.store_problem(&error))?;
    Ok(reply::ok(&Removed { removed, id: None }))
}

pub(super) async fn remove(request: Request) -> Answer {
    let app = request.state();
    let not_found = || {
        let detail = "no message has this `id`: it is the `id` of GET /v1/inbox";
        Problem::not_found("not_found", detail)
    };
    let id = reply::id_of(&request).ok_or_else(not_found)?;
    match app.inbox.remove(id.clone()).await {
        Ok(true) => Ok(reply::ok(&Removed { removed: 1, id: Some(id) })),
        Ok(false) => Err(not_found()),
        Err(error) => Err(app.store_problem(&error)),
    }
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
