//! Between the HTTP server and the routes: guard, body, tide, answer (§3.1, §1.2).
//!
//! tide calls the route; it never sees a socket, a refused request or an unread body. Nothing here
//! knows a route: the table is handed in.

use super::guard::{self, AcceptedToken, GuardPolicy, RequestHead, TOKEN_IN_QUERY, TokenLog};
use super::reply::{self, Problem};
use super::routes::{Route, Router};
use bytes::Bytes;
use claudemesh_base::http::{self, Body, BodyError, Handler, Peer};
use claudemesh_base::runtime::{BoxFuture, Runtime, Shutdown, Slots};
use futures_lite::{future::or, stream::unfold};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use smol::channel::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use tide::http::{Method, Url};

/// Put into a tide response (`insert_ext`), it becomes the body: one write per item, the headers
/// at once, the end when the channel closes or the daemon shuts down. Keep the channel bounded.
pub(crate) struct EventStream(pub(crate) Receiver<Bytes>);

/// What the adapter is made of.
pub(crate) struct ApiService<S: 'static> {
    /// The routes.
    pub(crate) router: Router<S>,
    /// The token TCP callers must show.
    pub(crate) token: AcceptedToken,
    /// `GET /v1/health` needs no token.
    pub(crate) public_health: bool,
    /// Requests in flight; share one among all listeners.
    pub(crate) in_flight: Slots,
    /// The longest bodies.
    pub(crate) body_limits: BodyLimits,
    /// Ends event streams.
    pub(crate) shutdown: Shutdown,
    /// Time for deadlines.
    pub(crate) runtime: Runtime,
}

/// The longest bodies, in bytes, by route (§1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyLimits {
    /// `POST /v1/send`.
    pub(crate) send_bytes_max: usize,
    /// `POST /v1/outbox/requeue`.
    pub(crate) requeue_bytes_max: usize,
    /// `POST /v1/inbox/seen`.
    pub(crate) seen_bytes_max: usize,
    /// Any other route.
    pub(crate) other_bytes_max: usize,
}

/// The handler to give to [`http::serve`]; one serves all listeners.
pub(crate) fn handler<S: Clone + Send + Sync + 'static>(ipc: ApiService<S>) -> Arc<dyn Handler> {
    Arc::new(Adapter(Arc::new(Shared { ipc, token_log: Mutex::default() })))
}

struct Adapter<S: 'static>(Arc<Shared<S>>);

struct Shared<S: 'static> {
    ipc: ApiService<S>,
    token_log: Mutex<TokenLog>,
}

impl<S: Clone + Send + Sync + 'static> Handler for Adapter<S> {
    fn handle(
        &self,
        request: hyper::Request<Incoming>,
        peer: Peer,
    ) -> BoxFuture<hyper::Response<Body>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = shared.answer(request, peer).await;
            let mut response = answer.unwrap_or_else(hyper::Response::from);
            reply::set_phrase(&mut response);
            response
        })
    }
}

impl<S: Clone + Send + Sync + 'static> Shared<S> {
    async fn answer(
        &self,
        request: hyper::Request<Incoming>,
        peer: Peer,
    ) -> Result<hyper::Response<Body>, Problem> {
        let (head, body) = request.into_parts();
        self.guard(&head, peer)?;
        let in_flight = &self.ipc.in_flight;
        let _slot = in_flight.take().ok_or_else(|| Problem::daemon_busy(in_flight.max()))?;
        let (mut request, route) = self.route(&head)?;
        let limit_bytes = (route.body_bytes_max)(&self.ipc.body_limits);
        let runtime = &self.ipc.runtime;
        let bytes = http::read_body(body, limit_bytes, runtime, peer.arrival_deadline).await;
        request.set_body(bytes.map_err(refuse_body)?);
        request.ext_mut().insert(peer.transport);
        let answer = self.ipc.router.respond(request).await;
        self.convert_answer(answer.map_err(|error| defect(&error, route.path))?, route.path).await
    }

    fn guard(&self, head: &hyper::http::request::Parts, peer: Peer) -> Result<(), Problem> {
        let now = self.ipc.runtime.monotonic();
        let transport = peer.transport;
        let policy = GuardPolicy { token: &self.ipc.token, public_health: self.ipc.public_health };
        let (method, target, headers) = (&head.method, &head.uri, &head.headers);
        let verdict = guard::admit(RequestHead { transport, method, target, headers }, policy);
        verdict.map(drop).inspect_err(|problem| {
            if problem.error == TOKEN_IN_QUERY {
                self.log_token(now, transport);
            }
        })
    }

    fn log_token(&self, now: std::time::Duration, transport: http::Transport) {
        let mut log = self.token_log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = log.seen(now) {
            tracing::warn!(?transport, suppressed, "security: a token was sent in a query");
        }
    }

    /// The request without its body, as tide wants it, and its route.
    fn route(
        &self,
        head: &hyper::http::request::Parts,
    ) -> Result<(tide::http::Request, &'static Route<S>), Problem> {
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        // Without the slash, `localhost` and the target would melt into another host name.
        let url = target.starts_with('/').then(|| Url::parse(&format!("http://localhost{target}")));
        let url = url.and_then(Result::ok).ok_or_else(|| {
            Problem::bad_request("invalid_target", "the request target is no path: send /v1/…")
        })?;
        let (method, route) = self.find(&head.method, url.path())?;
        let mut request = tide::http::Request::new(method, url);
        for (name, value) in &head.headers {
            // http_types panics on anything but ASCII.
            let value = value.to_str().map_err(|_| Problem::invalid_header(name.as_str()))?;
            request.append_header(name.as_str(), value);
        }
        Ok((request, route))
    }

    /// The route of a method and a path. `HEAD` goes where `GET` goes.
    fn find(
        &self,
        method: &hyper::Method,
        path: &str,
    ) -> Result<(Method, &'static Route<S>), Problem> {
        let method = method.as_str().parse().ok();
        let served = method.map(|it| if it == Method::Head { Method::Get } else { it });
        let mut allowed = Vec::new();
        for route in self.ipc.router.at(path) {
            if let Some(method) = method.filter(|_| served == Some(route.method)) {
                return Ok((method, route));
            }
            allowed.push(route.method.as_ref());
        }
        Err(match allowed[..] {
            [] => Problem::unknown_route(path),
            _ => Problem::method_not_allowed(path, &allowed),
        })
    }

    async fn convert_answer(
        &self,
        mut answer: tide::http::Response,
        path: &str,
    ) -> Result<hyper::Response<Body>, Problem> {
        if let Some(problem) = answer.ext_mut().remove::<Problem>() {
            return Err(problem);
        }
        let body = match answer.ext_mut().remove::<EventStream>() {
            Some(EventStream(events)) => event_body(events, self.ipc.shutdown.clone()),
            None => {
                let bytes = answer.take_body().into_bytes().await;
                http::full(bytes.map_err(|error| defect(&error, path))?)
            }
        };
        let mut response = hyper::Response::new(body);
        *response.status_mut() = reply::hyper_status(answer.status().into());
        for (name, values) in answer.iter() {
            let Ok(name) = HeaderName::try_from(name.as_str()) else { continue };
            // The codec frames the body by what it is, not by what a route says.
            if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
                continue;
            }
            for value in values {
                if let Ok(value) = HeaderValue::try_from(value.as_str()) {
                    response.headers_mut().append(name.clone(), value);
                }
            }
        }
        Ok(response)
    }
}

/// Something failed that cannot fail.
fn defect(error: &tide::http::Error, path: &str) -> Problem {
    tracing::error!(%error, path, "a route's answer could not be read");
    Problem::internal()
}

fn refuse_body(error: BodyError) -> Problem {
    match error {
        BodyError::TooLarge { limit } => {
            Problem::payload_too_large(format!("this route takes bodies of {limit} bytes"), limit)
        }
        BodyError::TimedOut => Problem::request_timeout(),
        BodyError::Broken => Problem::bad_request("invalid_body", "the body is cut off or broken"),
    }
}

fn event_body(events: Receiver<Bytes>, shutdown: Shutdown) -> Body {
    http::stream(unfold((events, shutdown), |(events, shutdown)| async move {
        let end = async {
            shutdown.wait().await;
            None
        };
        // What is already queued still goes out at shutdown.
        let item = or(async { events.recv().await.ok() }, end).await?;
        Some((item, (events, shutdown)))
    }))
}

#[cfg(test)]
mod tests;
