//! The daemon's HTTP interface (§3): a table of routes on tide, behind our own server.
//!
//! ```text
//! http -> listen -> guard (§3.1) -> body within its limit -> tide route -> reply
//! ```
//!
//! A route reads its request, calls one flow or one store, and answers. What a request means is
//! decided in the flows; what a status code means, in [`reply`].

pub mod bodies;
pub mod guard;
pub mod listen;
pub mod reply;

mod events;
mod inbox;
mod messages;
mod operator;
mod outbox;
mod peers;
mod query;
mod send;
mod status;

use crate::events::EventBus;
use crate::flow::accept::AcceptFlow;
use crate::mesh::Meshes;
use crate::store::inbox::Inbox;
use crate::store::outbox::Outbox;
use crate::store::{Error, Kind};
use claudemesh_base::db::QUEUE_MAX;
use claudemesh_base::log::Throttled;
use claudemesh_base::runtime::{Runtime, Slots};
use reply::Problem;
use std::sync::Arc;
use std::time::Duration;
use tide::http::Method;

/// What every route may use; shared by all requests.
pub struct App {
    /// The accept flow.
    pub accept: AcceptFlow,
    /// What was accepted.
    pub outbox: Outbox,
    /// What arrived.
    pub inbox: Inbox,
    /// The attached meshes.
    pub meshes: Meshes,
    /// What listeners are told.
    pub bus: EventBus,
    /// Time.
    pub runtime: Runtime,
    /// Places for event streams.
    pub streams: Slots,
    /// Monotonic time at start.
    pub started_at: Duration,
    /// The stores could not answer.
    pub store_failures: Throttled,
}

impl App {
    /// What is answered where a store cannot. A caller that tries again and again does not fill the
    /// log.
    fn store_problem(&self, error: &Error) -> Problem {
        match error.kind() {
            Kind::Full => Problem::insufficient_storage(error.to_string()),
            Kind::Corrupt => Problem::unavailable(
                "store_damaged",
                format!("a store is damaged ({error}): see `claudemesh daemon recover`"),
            ),
            Kind::Busy => Problem::daemon_busy(QUEUE_MAX),
            _ => {
                if let Some(suppressed) = self.store_failures.admit(self.runtime.monotonic()) {
                    tracing::error!(%error, suppressed, "a store could not answer");
                }
                Problem::internal()
            }
        }
    }
}

/// Every route: its path, and the methods it takes. `:id` stands for one segment; the first path
/// that fits counts.
pub const ROUTES: [(&str, &[Method]); 14] = [
    ("/v1/version", &[Method::Get]),
    ("/v1/health", &[Method::Get]),
    ("/v1/send", &[Method::Post]),
    ("/v1/messages/:id", &[Method::Get]),
    ("/v1/inbox", &[Method::Get, Method::Delete]),
    ("/v1/inbox/seen", &[Method::Post]),
    ("/v1/inbox/:id", &[Method::Delete]),
    ("/v1/outbox", &[Method::Get]),
    ("/v1/outbox/requeue", &[Method::Post]),
    ("/v1/outbox/abort", &[Method::Post]),
    ("/v1/outbox/prune", &[Method::Post]),
    ("/v1/outbox/:id", &[Method::Get]),
    ("/v1/events", &[Method::Get]),
    ("/v1/peers", &[Method::Get]),
];

/// The methods a path takes, or `None` if it is no route.
#[must_use]
pub fn methods_of(path: &str) -> Option<&'static [Method]> {
    let matches = |pattern: &str| match pattern.strip_suffix(":id") {
        None => path == pattern,
        Some(parent) => path
            .strip_prefix(parent)
            .is_some_and(|segment| !segment.is_empty() && !segment.contains('/')),
    };
    ROUTES.iter().find(|(pattern, _)| matches(pattern)).map(|(_, methods)| *methods)
}

/// The router.
#[must_use]
pub fn routes(app: App) -> tide::Server<Arc<App>> {
    let mut server = tide::with_state(Arc::new(app));
    server.at("/v1/version").get(status::version);
    server.at("/v1/health").get(status::health);
    server.at("/v1/send").post(send::send);
    server.at("/v1/messages/:id").get(messages::status);
    server.at("/v1/inbox").get(inbox::list).delete(inbox::clear);
    server.at("/v1/inbox/seen").post(inbox::mark_seen);
    server.at("/v1/inbox/:id").delete(inbox::remove);
    server.at("/v1/outbox").get(outbox::list);
    server.at("/v1/outbox/requeue").post(operator::requeue);
    server.at("/v1/outbox/abort").post(operator::abort);
    server.at("/v1/outbox/prune").post(outbox::prune);
    server.at("/v1/outbox/:id").get(outbox::inspect);
    server.at("/v1/events").get(events::stream);
    server.at("/v1/peers").get(peers::list);
    server
}

type Request = tide::Request<Arc<App>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_route_only_if_it_is_in_the_table() {
        assert_eq!(methods_of("/v1/send"), Some(&[Method::Post][..]));
        assert_eq!(methods_of("/v1/messages/a%2Fb"), Some(&[Method::Get][..]));
        assert_eq!(methods_of("/v1/outbox/prune"), Some(&[Method::Post][..]), "no row's id");
        assert_eq!(methods_of("/v1/inbox/seen"), Some(&[Method::Post][..]), "no message's id");
        for path in ["/v1/messages/", "/v1/messages/a/b", "/v1", "/", "/v1/send/", "/v1/state"] {
            assert_eq!(methods_of(path), None, "{path}");
        }
    }
}
