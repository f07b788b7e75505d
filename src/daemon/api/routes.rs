//! The routes of the local API, one row each: everything that depends on a route derives from here.

use super::listen::BodyLimits;
use super::reply::Answer;
use super::{App, events, inbox, messages, operator, outbox, peers, send, status};
use claudemesh_base::runtime::BoxFuture;
use std::sync::Arc;
use tide::http::Method;

/// One route of a program with the state `S`.
pub(crate) struct Route<S> {
    pub(crate) method: Method,
    /// `:id` stands for one segment; the first path that fits counts.
    pub(crate) path: &'static str,
    /// The longest body, in bytes.
    pub(crate) body_bytes_max: fn(&BodyLimits) -> usize,
    pub(crate) handler: fn(tide::Request<S>) -> BoxFuture<Answer>,
    /// What it is for, in one sentence.
    #[cfg_attr(not(test), allow(dead_code, reason = "the documentation is held against it"))]
    pub(crate) about: &'static str,
}

/// Declares routes: method, path, handler, body limit, sentence.
macro_rules! routes {
    ($($method:ident $path:literal $handler:expr, $limit:ident, $about:literal;)*) => {
        [$(Route {
            method: tide::http::Method::$method,
            path: $path,
            body_bytes_max: |limits| limits.$limit,
            handler: |request| Box::pin($handler(request)),
            about: $about,
        },)*]
    };
}
#[cfg(test)]
pub(super) use routes;

/// Every route of the local API.
pub(super) static ROUTES: [Route<Arc<App>>; 15] = routes![
    Get "/v1/version" status::version, other_bytes_max, "The versions, and what this daemon offers.";
    Get "/v1/health" status::health, other_bytes_max, "How the links, the stores and the disk are.";
    Post "/v1/send" send::send, send_bytes_max, "Accepts a message for good.";
    Get "/v1/messages/:id" messages::status, other_bytes_max, "Where an accepted message is.";
    Get "/v1/inbox" inbox::list, other_bytes_max, "What arrived, newest first.";
    Delete "/v1/inbox" inbox::clear, other_bytes_max, "Removes what arrived.";
    Post "/v1/inbox/seen" inbox::mark_seen, seen_bytes_max, "Marks messages as seen.";
    Delete "/v1/inbox/:id" inbox::remove, other_bytes_max, "Removes one message.";
    Get "/v1/outbox" outbox::list, other_bytes_max, "What was accepted, newest first.";
    Post "/v1/outbox/requeue" operator::requeue, requeue_bytes_max, "Sends a row again under a new id.";
    Post "/v1/outbox/abort" operator::abort, other_bytes_max, "Gives a row up.";
    Post "/v1/outbox/prune" outbox::prune, other_bytes_max, "Shrinks rows that are finished.";
    Get "/v1/outbox/:id" outbox::inspect, other_bytes_max, "One row and what took its place.";
    Get "/v1/events" events::stream, other_bytes_max, "What happens, as it happens.";
    Get "/v1/peers" peers::list, other_bytes_max, "Who is there, and whether that is known.";
];

/// What this surface offers: the first word of each path; a client asks before it relies on one.
pub(super) fn features() -> Vec<String> {
    let words = ROUTES.iter().filter_map(|route| route.path.split('/').nth(2));
    let mut features: Vec<String> = words.map(str::to_owned).collect();
    features.dedup();
    features
}

/// A table of routes, and tide to call them.
pub(crate) struct Router<S: 'static> {
    table: &'static [Route<S>],
    server: tide::Server<S>,
}

impl<S: Clone + Send + Sync + 'static> Router<S> {
    pub(crate) fn new(state: S, table: &'static [Route<S>]) -> Self {
        let mut server = tide::with_state(state);
        for &Route { path, method, handler, .. } in table {
            let endpoint = move |request| async move { Ok(into_response(handler(request).await)) };
            server.at(path).method(method, endpoint);
        }
        Self { table, server }
    }

    /// The routes of a path; none if it is no route.
    pub(super) fn at(&self, path: &str) -> impl Iterator<Item = &'static Route<S>> + use<S> {
        let pattern = self.table.iter().map(|route| route.path).find(|pattern| fits(pattern, path));
        self.table.iter().filter(move |route| Some(route.path) == pattern)
    }

    pub(super) async fn respond(
        &self,
        request: tide::http::Request,
    ) -> tide::Result<tide::http::Response> {
        self.server.respond(request).await
    }
}

/// A problem travels through tide as it is, and becomes an answer after it.
fn into_response(answer: Answer) -> tide::Response {
    answer.unwrap_or_else(|problem| {
        let mut response = tide::Response::new(problem.status);
        response.insert_ext(problem);
        response
    })
}

fn fits(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix(":id") {
        None => path == pattern,
        Some(parent) => path
            .strip_prefix(parent)
            .is_some_and(|segment| !segment.is_empty() && !segment.contains('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_path_is_a_route_only_if_it_is_in_the_table() {
        let fitting =
            |path: &str| ROUTES.iter().map(|route| route.path).find(|pattern| fits(pattern, path));
        assert_eq!(fitting("/v1/send"), Some("/v1/send"));
        assert_eq!(fitting("/v1/messages/a%2Fb"), Some("/v1/messages/:id"));
        assert_eq!(fitting("/v1/outbox/prune"), Some("/v1/outbox/prune"), "no row's id");
        assert_eq!(fitting("/v1/inbox/seen"), Some("/v1/inbox/seen"), "no message's id");
        for path in ["/v1/messages/", "/v1/messages/a/b", "/v1", "/", "/v1/send/", "/v1/state"] {
            assert_eq!(fitting(path), None, "{path}");
        }
    }

    #[test]
    fn the_features_are_what_clients_know() {
        let known = ["version", "health", "send", "messages", "inbox", "outbox", "events", "peers"];
        assert_eq!(features(), known);
    }

    #[test]
    fn the_specification_names_exactly_these_routes() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../specs/ipc.md");
        let page = std::fs::read_to_string(page).expect("specs/ipc.md");
        let named = page.split('`').filter_map(|code| {
            let (method, path) = code.split_once(' ')?;
            let is_route = method.parse::<Method>().is_ok() && path.starts_with("/v1/");
            let path = path.split(['?', ' ']).next().unwrap_or_default();
            let path = path.split('{').next().map(|parent| (parent, path.contains('{')))?;
            is_route.then(|| format!("{method} {}{}", path.0, if path.1 { ":id" } else { "" }))
        });
        let named: BTreeSet<String> = named.collect();
        let served: BTreeSet<String> =
            ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
        assert_eq!(named, served);
        assert!(ROUTES.iter().all(|route| route.about.ends_with('.')));
    }
}
