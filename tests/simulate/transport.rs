//! The daemon's sending side of one simulated connection: where the product has a link's desk.

use super::net::{Net, Put};
use claudemesh_base::message::SecretKey;
use claudemesh_base::runtime::{BoxFuture, Runtime};
use claudemesh_base::wire;
use claudemesh_daemon::port::{LinkTransport, SendOutcome};
use smol::channel::Receiver;
use std::sync::Arc;
use std::time::Duration;

/// How long a send waits for its answer.
const ACK_MAX: Duration = Duration::from_secs(5);
/// The mesh's max age: a week, as negotiated by default.
const MAX_AGE_MS: u64 = 168 * 60 * 60 * 1000;

/// The sending side of one connection.
pub struct SimCourier {
    pub(super) net: Arc<Net>,
    pub(super) conn: u64,
    pub(super) closed: Receiver<()>,
    pub(super) runtime: Runtime,
    pub(super) secret: SecretKey,
}

impl SimCourier {
    pub fn end(&self) -> Receiver<()> {
        self.closed.clone()
    }
}

impl LinkTransport for SimCourier {
    fn deliver(&self, message: wire::SendFrame) -> BoxFuture<SendOutcome> {
        let (net, id, runtime) = (self.net.clone(), self.conn, self.runtime.clone());
        Box::pin(async move {
            let name = message.id.clone().unwrap_or_default();
            let answer = match net.put(id, name.clone(), message) {
                Put::Written(answer) => answer,
                Put::Closed => {
                    return SendOutcome::Unsent { reason: "the link is no longer open".into() };
                }
                Put::Died => return std::future::pending().await,
            };
            let lost = |why: &str| SendOutcome::Lost { reason: why.into() };
            match runtime.timeout(ACK_MAX, answer).await {
                Some(answer) => answer.unwrap_or_else(|_| lost("the link ended")),
                None => {
                    net.give_up(id, &name);
                    lost("no answer from the broker")
                }
            }
        })
    }

    fn receipts(&self, ids: Vec<String>) -> BoxFuture<Option<Vec<wire::Receipt>>> {
        let (net, id, request_id) = (self.net.clone(), self.conn, self.runtime.mint_id());
        Box::pin(async move {
            let request = wire::ReceiptsRequest { ids, request_id: Some(request_id) };
            net.ask(id, request)?.await.ok()
        })
    }

    fn closed(&self) -> BoxFuture<()> {
        let closed = self.closed.clone();
        Box::pin(async move {
            let _ = closed.recv().await;
        })
    }

    fn secret(&self) -> &SecretKey {
        &self.secret
    }

    fn max_age_ms(&self) -> u64 {
        MAX_AGE_MS
    }
}
