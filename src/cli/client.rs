//! A typed client of our own local API over the Unix socket (`specs/ipc.md`): what the daily verbs
//! of the command line speak through.
//!
//! It retries nothing and guesses nothing. An [`Error`] says how far a request got, so that the
//! caller knows whether the daemon may have acted on it (§8).

mod error;
mod query;
mod sse;

pub(crate) use error::{Error, Problem};
pub(crate) use query::{InboxQuery, OutboxQuery};
pub(crate) use sse::SseEvent;

use claudemesh_base::http::Socket;
use claudemesh_base::http::client::{self as http, Chunks, Connection, Request, Response};
use claudemesh_base::paths::Paths;
use claudemesh_base::runtime::Runtime;
use claudemesh_base::wire::to_text;
use claudemesh_daemon::api::bodies::{
    AbortBody, Aborted, Health, InboxMessage, Inspected, MarkedSeen, MessageStatus, OutboxRow,
    Page, Peers, PruneBody, Pruned, RequeueBody, Requeued, SeenBody, SendBody, Sent, Version,
};
use futures_lite::StreamExt;
use query::{path_segment, with_query};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

/// For a local socket to accept. A daemon with a full backlog answers later than this only when
/// something is wrong.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For a read to be answered whole.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// For a write to be answered. The existing clients allow 3 s; a disk under load may need more for
/// its sync, and giving up early only makes the outcome unknown.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence on an event stream after which it is dead: the daemon writes a comment every 15 s.
pub(crate) const STREAM_SILENCE_MAX: Duration = Duration::from_secs(45);

/// Where the daemon's socket is, and a clock for the timeouts. One connection per call.
#[derive(Clone)]
pub(crate) struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client of the daemon that serves `paths`. Connects to nothing yet.
    #[must_use]
    pub(crate) fn new(paths: &Paths, runtime: &Runtime) -> Self {
        Self { socket: paths.socket(), runtime: runtime.clone() }
    }

    /// `GET /v1/version`.
    pub(crate) async fn version(&self) -> Result<Version, Error> {
        self.get("/v1/version".to_owned()).await
    }

    /// `GET /v1/health`.
    pub(crate) async fn health(&self) -> Result<Health, Error> {
        self.get("/v1/health".to_owned()).await
    }

    /// `POST /v1/send`. After [`Error::Unanswered`] the daemon may hold the message: send exactly
    /// the same again, with the same id.
    pub(crate) async fn send(&self, message: &SendBody) -> Result<Sent, Error> {
        self.post("/v1/send", message).await
    }

    /// `GET /v1/messages/{client_message_id}`: where a message is.
    pub(crate) async fn message(&self, client_message_id: &str) -> Result<MessageStatus, Error> {
        self.get(format!("/v1/messages/{}", path_segment(client_message_id))).await
    }

    /// `GET /v1/inbox`, newest first.
    pub(crate) async fn inbox(&self, query: &InboxQuery) -> Result<Page<InboxMessage>, Error> {
        self.get(with_query("/v1/inbox", &query.parameters())).await
    }

    /// `POST /v1/inbox/seen`; how many were marked.
    pub(crate) async fn mark_seen(&self, ids: &[String]) -> Result<usize, Error> {
        let body = SeenBody { ids: ids.to_vec() };
        let marked: MarkedSeen = self.post("/v1/inbox/seen", &body).await?;
        Ok(marked.marked_seen)
    }

    /// `GET /v1/outbox`, newest first.
    pub(crate) async fn outbox(&self, query: &OutboxQuery) -> Result<Page<OutboxRow>, Error> {
        self.get(with_query("/v1/outbox", &query.parameters())).await
    }

    /// `POST /v1/outbox/requeue` (§4.5.3).
    pub(crate) async fn requeue(&self, requeue: &RequeueBody) -> Result<Requeued, Error> {
        self.post("/v1/outbox/requeue", requeue).await
    }

    /// `POST /v1/outbox/abort` (§4.5.3).
    pub(crate) async fn abort(&self, row_id: &str) -> Result<Aborted, Error> {
        let body = AbortBody { id: row_id.to_owned(), aborted_by: None };
        self.post("/v1/outbox/abort", &body).await
    }

    /// `GET /v1/outbox/{id}`: one row and its successors.
    pub(crate) async fn outbox_row(&self, row_id: &str) -> Result<Inspected, Error> {
        self.get(format!("/v1/outbox/{}", path_segment(row_id))).await
    }

    /// `POST /v1/outbox/prune` (§4.5.2), from `cursor` on: shrinks, or with `confirm` unset counts,
    /// rows that were finished before an instant (ISO-8601). One answer may not be the whole.
    pub(crate) async fn prune(&self, prune: &PruneBody) -> Result<Pruned, Error> {
        self.post("/v1/outbox/prune", prune).await
    }

    /// `GET /v1/peers`, of one mesh or of all.
    pub(crate) async fn peers(&self, mesh: Option<&str>) -> Result<Peers, Error> {
        let parameters: Vec<_> = mesh.map(|mesh| ("mesh", mesh.to_owned())).into_iter().collect();
        self.get(with_query("/v1/peers", &parameters)).await
    }

    /// `GET /v1/events`: live events of these types (all when empty), after what `last_event_id`
    /// names if it names something (§3.5).
    pub(crate) async fn events(
        &self,
        types: &[String],
        last_event_id: Option<&str>,
    ) -> Result<Events, Error> {
        let types: Vec<_> =
            (!types.is_empty()).then(|| ("types", types.join(","))).into_iter().collect();
        let mut request = Request::get(with_query("/v1/events", &types));
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let connection = Connection::new(self.connect().await?, &self.runtime).await?;
        let mut answer = connection.open_stream(request, READ_TIMEOUT).await?;
        if !is_success(answer.status) {
            let mut body = Vec::new();
            while let Some(chunk) = self.runtime.timeout(READ_TIMEOUT, answer.chunks.next()).await {
                match chunk {
                    Some(chunk) => body.extend_from_slice(&chunk?),
                    None => break,
                }
            }
            return Err(Error::Problem(Box::new(Problem::parse(answer.status, &body))));
        }
        Ok(Events {
            chunks: answer.chunks,
            parser: sse::Parser::default(),
            ready: VecDeque::new(),
            runtime: self.runtime.clone(),
        })
    }

    /// Any request, and its answer as it is, also one that says no: for whoever wants to see the
    /// API itself. With `body` it is a `POST`, without a `GET`; `path` is percent-encoded.
    /// Never fails with [`Error::Problem`].
    pub(crate) async fn raw_request(
        &self,
        path: &str,
        body: Option<&Value>,
    ) -> Result<RawResponse, Error> {
        let (request, timeout) = match body {
            Some(body) => (Request::post_json(path, body.to_string()), WRITE_TIMEOUT),
            None => (Request::get(path), READ_TIMEOUT),
        };
        let socket = self.connect().await?;
        let Response { status, body, .. } =
            http::request(socket, &self.runtime, request, timeout).await?;
        let body =
            String::from_utf8(body).map_err(|error| Error::invalid_response(error.to_string()))?;
        Ok(RawResponse { status, body })
    }

    async fn connect(&self) -> Result<Socket, Error> {
        Ok(http::connect_unix(&self.socket, &self.runtime, CONNECT_TIMEOUT).await?)
    }

    async fn get<T: DeserializeOwned>(&self, path: String) -> Result<T, Error> {
        self.call(Request::get(path), READ_TIMEOUT).await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(Request::post_json(path, to_text(body)), WRITE_TIMEOUT).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        request: Request,
        timeout: Duration,
    ) -> Result<T, Error> {
        let socket = self.connect().await?;
        let Response { status, body, .. } =
            http::request(socket, &self.runtime, request, timeout).await?;
        if !is_success(status) {
            return Err(Error::Problem(Box::new(Problem::parse(status, &body))));
        }
        serde_json::from_slice(&body).map_err(|error| Error::invalid_response(error.to_string()))
    }
}

/// Whether a status says that the request did what it asked for.
const fn is_success(status: u16) -> bool {
    status / 100 == 2
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawResponse {
    /// The HTTP status.
    pub status: u16,
    /// The body's text.
    pub body: String,
}

/// A live stream of events. Dropping it disconnects.
pub(crate) struct Events {
    chunks: Chunks,
    parser: sse::Parser,
    ready: VecDeque<SseEvent>,
    runtime: Runtime,
}

impl Events {
    /// The next event; `None` when the daemon ended the stream, as it does when it stops.
    /// Fails when the connection fails, stays silent for [`STREAM_SILENCE_MAX`], or carries
    /// something that is no event stream.
    pub(crate) async fn next(&mut self) -> Result<Option<SseEvent>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let chunk = self.runtime.timeout(STREAM_SILENCE_MAX, self.chunks.next()).await;
            match chunk {
                None => return Err(Error::Unanswered("the event stream fell silent".to_owned())),
                Some(None) => return Ok(None),
                Some(Some(chunk)) => self.ready.extend(self.parser.push(&chunk?)?),
            }
        }
    }
}

#[cfg(test)]
mod tests;
