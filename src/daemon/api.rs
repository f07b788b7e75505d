//! The daemon's HTTP interface (§3): a table of routes on tide, behind our own server.
//!
//! ```text
//! http -> listen -> guard (§3.1) -> body within its limit -> tide route -> reply
//! ```
//!
//! A route reads its request, calls one flow or one store, and answers. What a request means is
//! decided in the flows; what a status code means, in `reply`.

pub mod bodies;
pub(crate) mod guard;
pub(crate) mod listen;

mod body;
mod events;
mod inbox;
mod messages;
mod operator;
mod outbox;
mod peers;
mod query;
mod reply;
mod routes;
mod send;
mod status;

pub use send::draft_of;

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
use routes::Router;
use std::sync::Arc;
use std::time::Duration;

/// What every route may use; shared by all requests.
pub(crate) struct App {
    /// The accept flow.
    pub(crate) accept: AcceptFlow,
    /// What was accepted.
    pub(crate) outbox: Outbox,
    /// What arrived.
    pub(crate) inbox: Inbox,
    /// The attached meshes.
    pub(crate) meshes: Meshes,
    /// What listeners are told.
    pub(crate) bus: EventBus,
    /// Time.
    pub(crate) runtime: Runtime,
    /// Places for event streams.
    pub(crate) streams: Slots,
    /// Monotonic time at start.
    pub(crate) started_at: Duration,
    /// The stores could not answer.
    pub(crate) store_failures: Throttled,
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

/// The router.
pub(crate) fn router(app: App) -> Router<Arc<App>> {
    Router::new(Arc::new(app), &routes::ROUTES)
}

type Request = tide::Request<Arc<App>>;
