//! HTTP on the broker's port: `/ws`, `/health`, `/health/ready`, `/metrics` and `/join`
//! (`specs/wire.md`).

use crate::admin::{link, web_socket_url};
use crate::alive::Alive;
use crate::connection;
use crate::intake::Limits;
use crate::join::{self, JoinError};
use crate::ledger::{JoinOutcome, Mesh};
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use claudemesh_base::http::{self, Body, BodyError, Handler, Peer, empty, full, read_body};
use claudemesh_base::runtime::{BoxFuture, Slots};
use claudemesh_base::wire::join::{JoinRequest, JoinResponse};
use claudemesh_base::wire::to_text;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// The largest body of any request (`specs/wire.md`).
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Answers the broker's port.
pub(crate) struct HttpHandler(pub(crate) Arc<Port>);

/// What the broker's port works with.
pub(crate) struct Port {
    pub(crate) connections: Arc<connection::Context>,
    pub(crate) limits: Arc<Limits>,
    /// `host:port` for links.
    pub(crate) authority: String,
    pub(crate) started_at: Duration,
    pub(crate) sockets: Slots,
    pub(crate) alive: Arc<Alive>,
}

impl Handler for HttpHandler {
    fn handle(&self, request: Request<Incoming>, peer: Peer) -> BoxFuture<Response<Body>> {
        let port = Arc::clone(&self.0);
        Box::pin(async move { route(port, request, peer).await })
    }
}

async fn route(port: Arc<Port>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let has_query = request.uri().query().is_some();
    let token = path.strip_prefix("/join/").map(str::to_owned);
    match (request.method(), path.as_str(), token) {
        (&Method::GET, "/ws", _) if !has_query => upgrade(&port, request),
        (&Method::GET, "/health", _) => health(&port).await,
        (&Method::GET, "/health/ready", _) => ready(&port).await,
        (&Method::GET, "/metrics", _) => text(
            StatusCode::OK,
            &port.connections.counters.render(port.connections.hub.connections()),
        ),
        (&Method::POST, "/join", _) => join(&port, request, peer, None).await,
        (&Method::POST, _, Some(token)) => join(&port, request, peer, Some(token)).await,
        (&Method::GET, _, Some(token)) => describe_invite(&port, &token).await,
        _ => text(StatusCode::NOT_FOUND, "not found"),
    }
}

/// Answers 101 and serves the WebSocket in a task of its own.
fn upgrade(port: &Port, mut request: Request<Incoming>) -> Response<Body> {
    let headers = request.headers();
    let asks = says(headers, UPGRADE, "websocket")
        && says(headers, CONNECTION, "upgrade")
        && says(headers, SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let (true, Some(accept)) = (asks, key) else {
        return text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket endpoint");
    };
    let Some(slot) = port.sockets.take() else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    };
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (serving, alive) = (Arc::clone(&port.connections), port.alive.guard());
    let task = async move {
        match http::upgraded(on_upgrade).await {
            Ok((socket, leftover)) => connection::serve(serving, socket, leftover).await,
            Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
        }
        drop((slot, alive));
    };
    port.connections.runtime.spawn(task).detach();
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "Upgrade")
        .header(SEC_WEBSOCKET_ACCEPT, accept)
        .body(empty())
        .unwrap_or_else(|_| text(StatusCode::BAD_REQUEST, "bad request"))
}

fn says(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(word)))
}

async fn health(port: &Port) -> Response<Body> {
    let db = if port.connections.ledger.is_up().await { "up" } else { "down" };
    let uptime = port.connections.runtime.monotonic().saturating_sub(port.started_at).as_secs();
    json_answer(
        StatusCode::OK,
        &json!({
            "status": "ok",
            "db": db,
            "version": env!("CARGO_PKG_VERSION"),
            "gitSha": "unknown",
            "uptime": uptime,
        }),
    )
}

/// Whether a message would be taken now.
async fn ready(port: &Port) -> Response<Body> {
    let reusable = port.connections.ledger.reusable_bytes().await;
    let reason = if !port.limits.reserve.is_free(port.connections.runtime.monotonic(), || reusable)
    {
        "the disk is below its reserve"
    } else if port.connections.ledger.is_writable().await {
        return json_answer(StatusCode::OK, &json!({"status": "ready"}));
    } else {
        "the ledger cannot be written"
    };
    let body = json!({"status": "not_ready", "reason": reason});
    json_answer(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// One line for whoever opens a link in a browser: how to join, or why nobody can.
async fn describe_invite(port: &Port, token: &str) -> Response<Body> {
    match invited(port, token).await {
        Ok(mesh) => {
            let line = format!(
                "An invite to the claudemesh mesh {:?}. Join with: claudemesh join {}\n",
                mesh.slug,
                link(&port.authority, token)
            );
            text(StatusCode::OK, &line)
        }
        Err(JoinError::Refused(code)) => {
            let line = format!("{code}: ask whoever sent you this link for a new one\n");
            text(StatusCode::NOT_FOUND, &line)
        }
        Err(JoinError::Failed(error)) => {
            port.connections.ledger.failed(&error);
            text(StatusCode::SERVICE_UNAVAILABLE, "try again in a moment\n")
        }
    }
}

/// The mesh that an invite opens now.
async fn invited(port: &Port, token: &str) -> Result<Mesh, JoinError> {
    let mesh = join::check_invite(&*port.connections.ledger, &join::open_token(token)?).await?;
    let now = port.connections.runtime.now();
    match port.connections.ledger.invite_problem(token, &mesh.id, now).await? {
        None => Ok(mesh),
        Some(problem) => Err(JoinError::Refused(problem.code())),
    }
}

async fn join(
    port: &Port,
    request: Request<Incoming>,
    peer: Peer,
    token: Option<String>,
) -> Response<Body> {
    let read = read_body(
        request.into_body(),
        BODY_BYTES_MAX,
        &port.connections.runtime,
        peer.arrival_deadline,
    );
    let body = match read.await {
        Ok(body) => body,
        Err(BodyError::TooLarge { .. }) => {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body must be at most 64 KiB");
        }
        Err(BodyError::TimedOut) => {
            return refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
        }
        Err(BodyError::Broken) => return refuse(StatusCode::BAD_REQUEST, "malformed body"),
    };
    let Ok(mut request) = serde_json::from_slice::<JoinRequest>(&body) else {
        let words = "the body must be JSON with peer_pubkey, display_name and invite_token";
        return refuse(StatusCode::BAD_REQUEST, words);
    };
    request.invite_token = token.or(request.invite_token);
    match join::join(&*port.connections.ledger, &port.connections.runtime, &request).await {
        Ok((mesh, joined)) => {
            let (member_id, already) = match joined {
                JoinOutcome::New(id) => (id, None),
                JoinOutcome::Already(id) => (id, Some(true)),
                JoinOutcome::Refused(problem) => {
                    return refuse(StatusCode::BAD_REQUEST, problem.code());
                }
            };
            let response = JoinResponse {
                ok: true,
                member_id,
                already_member: already,
                mesh_id: Some(mesh.id),
                slug: Some(mesh.slug.clone()),
                name: Some(mesh.slug),
                broker_url: Some(web_socket_url(&port.authority)),
                broker_time: Some(port.connections.runtime.now().0),
            };
            json_answer(StatusCode::OK, &response)
        }
        Err(JoinError::Refused(code)) => refuse(StatusCode::BAD_REQUEST, code),
        Err(JoinError::Failed(error)) => {
            port.connections.ledger.failed(&error);
            refuse(StatusCode::SERVICE_UNAVAILABLE, "member_insert_failed")
        }
    }
}

fn refuse(status: StatusCode, error: &str) -> Response<Body> {
    json_answer(status, &json!({"ok": false, "error": error}))
}

/// A JSON answer.
pub(crate) fn json_answer(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    answer(status, "application/json", to_text(body))
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", body.to_owned())
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
