//! The running broker's side of `admin.sock`: one JSON request over HTTP, for our own uid only.

use super::{AdminAnswer, AdminContext, AdminRequest, PATH, carry_out};
use crate::BrokerError;
use crate::alive::Alive;
use crate::http_handler::json_answer;
use claudemesh_base::http::{Body, Handler, Peer, read_body};
use claudemesh_base::runtime::BoxFuture;
use futures_channel::oneshot;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const BODY_BYTES_MAX: usize = 16 * 1024;

/// Answers `admin.sock`.
pub(crate) struct AdminHandler {
    pub(crate) context: Arc<AdminContext>,
    pub(crate) alive: Arc<Alive>,
}

/// Why a request was not carried out.
#[derive(Serialize, Deserialize)]
pub(super) struct Refused {
    pub(super) error: String,
}

impl Handler for AdminHandler {
    fn handle(&self, request: Request<Incoming>, peer: Peer) -> BoxFuture<Response<Body>> {
        let (context, alive) = (Arc::clone(&self.context), Arc::clone(&self.alive));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let runtime = context.runtime.clone();
            let read = read_body(body, BODY_BYTES_MAX, &runtime, peer.arrival_deadline);
            let done = match (read.await, head.method, head.uri.path()) {
                (Err(_), ..) => Err(BrokerError::Invalid("the body did not arrive".to_owned())),
                (Ok(body), Method::POST, PATH) => match serde_json::from_slice(&body) {
                    Ok(request) => answer_detached(context, &alive, request).await,
                    Err(error) => Err(BrokerError::Invalid(error.to_string())),
                },
                (_, method, path) => {
                    Err(BrokerError::NotFound(format!("no such verb: {method} {path}")))
                }
            };
            match done {
                Ok(answer) => json_answer(StatusCode::OK, &answer),
                Err(error) => {
                    let status = match &error {
                        BrokerError::NotFound(_) => StatusCode::NOT_FOUND,
                        BrokerError::Conflict(_) => StatusCode::CONFLICT,
                        BrokerError::Invalid(_) => StatusCode::BAD_REQUEST,
                        _ => StatusCode::INTERNAL_SERVER_ERROR,
                    };
                    json_answer(status, &Refused { error: error.to_string() })
                }
            }
        })
    }
}

/// Carries a request out in a task of its own, so that it is done whole whoever still waits for it:
/// a ban that is written and not carried out would leave its member connected.
async fn answer_detached(
    context: Arc<AdminContext>,
    alive: &Alive,
    request: AdminRequest,
) -> Result<AdminAnswer, BrokerError> {
    let (reply, answered) = oneshot::channel();
    let (runtime, alive) = (context.runtime.clone(), alive.guard());
    let work = async move {
        // Nobody waiting is fine.
        let _ = reply.send(carry_out(&context, request).await);
        drop(alive);
    };
    runtime.spawn(work).detach();
    answered.await.unwrap_or_else(|_| {
        Err(BrokerError::Io("the broker ended before it had answered".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::admin::MemberAct;
    use crate::hub::{Admission, Identity, OutboundQueue, Outgoing};
    use crate::testing::TestBroker;
    use claudemesh_fsm::negotiate::ConnectionPolicy;
    use futures_lite::future::poll_once;
    use std::time::Duration;

    #[test]
    fn an_act_is_carried_out_also_when_nobody_waits_for_its_answer() {
        let test = TestBroker::new(Settings::default());
        let member = test.member("id1", &"1".repeat(64));
        let broker = &test.connections;
        let (outbound, ends) = OutboundQueue::new();
        let identity = Identity { mesh_id: "m".into(), member: member.seq, ..Identity::default() };
        let admitted = broker.hub.admit(identity, outbound, ConnectionPolicy::default());
        assert!(matches!(admitted, Admission::Admitted(_)));
        let closed = test.run(async {
            let (mesh, member) = ("test".to_owned(), "id1".to_owned());
            let request = AdminRequest::ActOnMember { mesh, member, act: MemberAct::Ban };
            let admin = Arc::clone(&test.parts.admin);
            let asked = answer_detached(admin, &test.parts.alive, request);
            let mut asked = Box::pin(asked);
            assert!(poll_once(&mut asked).await.is_none());
            // The command line died.
            drop(asked);
            broker.runtime.timeout(Duration::from_secs(10), ends.outgoing.recv()).await
        });
        assert!(matches!(closed, Some(Ok(Outgoing::Close(4002, "banned")))), "{closed:?}");
        assert_eq!(broker.hub.connections(), 0);
    }
}
