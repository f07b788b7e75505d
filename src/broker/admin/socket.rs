//! The running broker's side of `admin.sock`: small JSON over HTTP, for our own uid only.

use super::AUDIT_MAX;
use crate::membership::{self, AuditInfo, MemberAct, MemberDone, MemberInfo};
use crate::provision::{self, InviteWish, MeshInfo};
use crate::serve::json_answer;
use crate::{Broker, BrokerError};
use claudemesh_base::http::{Body, Handler, Peer, read_body};
use claudemesh_base::runtime::BoxFuture;
use futures_channel::oneshot;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

const BODY_BYTES_MAX: usize = 16 * 1024;

/// Answers `admin.sock`.
pub(crate) struct Office(pub(crate) Arc<Broker>);

#[derive(Deserialize)]
struct NewMesh {
    slug: String,
}

#[derive(Deserialize)]
struct Policy {
    mesh: String,
    policy: String,
}

#[derive(Deserialize)]
struct NewMember {
    mesh: String,
    pubkey: String,
    name: String,
}

#[derive(Deserialize)]
struct Act {
    mesh: String,
    member: String,
    act: String,
}

#[derive(Deserialize)]
struct Block {
    mesh: String,
    member: String,
    sender: String,
    blocked: bool,
}

impl Handler for Office {
    fn handle(&self, request: Request<Incoming>, peer: Peer) -> BoxFuture<Response<Body>> {
        let broker = Arc::clone(&self.0);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let read = read_body(body, BODY_BYTES_MAX, &broker.runtime, peer.arrival_deadline);
            let done = match read.await {
                Ok(body) => answer_to_the_end(broker, head.method, head.uri, body).await,
                Err(_) => Err(BrokerError::Invalid("the body did not arrive".to_owned())),
            };
            match done {
                Ok(body) => json_answer(StatusCode::OK, &body),
                Err(error) => {
                    let status = match &error {
                        BrokerError::NotFound(_) => StatusCode::NOT_FOUND,
                        BrokerError::Conflict(_) => StatusCode::CONFLICT,
                        BrokerError::Invalid(_) => StatusCode::BAD_REQUEST,
                        _ => StatusCode::INTERNAL_SERVER_ERROR,
                    };
                    json_answer(status, &json!({"error": error.to_string()}))
                }
            }
        })
    }
}

/// Does what is asked in a task of its own, so that it is done whole whoever still waits for it: a
/// ban that is written and not carried out would leave its member connected.
async fn answer_to_the_end(
    broker: Arc<Broker>,
    method: Method,
    uri: Uri,
    body: Vec<u8>,
) -> Result<Value, BrokerError> {
    let (reply, answered) = oneshot::channel();
    let (runtime, alive) = (broker.runtime.clone(), broker.alive());
    let work = async move {
        // Nobody waiting is fine.
        let _ = reply.send(answer(&broker, &method, uri.path(), &body).await);
        drop(alive);
    };
    runtime.spawn(work).detach();
    answered.await.unwrap_or_else(|_| {
        Err(BrokerError::Io("the broker ended before it had answered".to_owned()))
    })
}

async fn answer(
    broker: &Broker,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Result<Value, BrokerError> {
    let (ledger, runtime) = (&broker.ledger, &broker.runtime);
    match (method, path, path.strip_prefix("/member/")) {
        (&Method::GET, "/mesh", _) => {
            let meshes = provision::meshes(ledger).await?;
            Ok(meshes.iter().map(shown_mesh).collect())
        }
        (&Method::POST, "/mesh", _) => {
            let NewMesh { slug } = parse(body)?;
            let made = provision::create_mesh(ledger, &broker.dir, runtime, &slug).await?;
            Ok(shown_mesh(&made))
        }
        (&Method::POST, "/mesh/policy", _) => {
            let Policy { mesh, policy } = parse(body)?;
            provision::set_policy(ledger, runtime, &mesh, &policy).await?;
            Ok(json!({"policy": policy}))
        }
        (&Method::POST, "/invite", _) => {
            let wish: InviteWish = parse(body)?;
            let (dir, authority) = (&broker.dir, &broker.authority);
            let made = provision::create_invite(ledger, dir, runtime, authority, &wish).await?;
            let at = made.expires_at_ms;
            Ok(json!({"token": made.token, "link": made.link, "expires_at_ms": at}))
        }
        (&Method::POST, "/member", _) => {
            let NewMember { mesh, pubkey, name } = parse(body)?;
            let id = provision::add_member(ledger, runtime, &mesh, &pubkey, &name).await?;
            Ok(json!(id))
        }
        (&Method::POST, "/member/act", _) => {
            let Act { mesh, member, act } = parse(body)?;
            let act = MemberAct::parse(&act)
                .ok_or_else(|| BrokerError::Invalid(format!("there is no act {act:?}")))?;
            let done = membership::act(ledger, runtime, Some(broker), &mesh, &member, act).await?;
            Ok(shown_done(&done))
        }
        (&Method::POST, "/member/block", _) => {
            let Block { mesh, member, sender, blocked } = parse(body)?;
            let done = membership::block(ledger, runtime, &mesh, &member, &sender, blocked).await?;
            Ok(shown_done(&done))
        }
        (&Method::GET, _, Some(mesh)) => {
            let members = membership::members(ledger, Some(&broker.hub), mesh).await?;
            Ok(members.iter().map(shown_member).collect())
        }
        (&Method::GET, "/check", _) => Ok(Value::Object(broker.check().await?.to_json())),
        (&Method::GET, path, _) if path.starts_with("/audit/") => {
            let mesh = path.trim_start_matches("/audit/");
            let acts = membership::audit(ledger, mesh, AUDIT_MAX).await?;
            Ok(acts.iter().map(shown_act).collect())
        }
        _ => Err(BrokerError::NotFound(format!("no such verb: {method} {path}"))),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, BrokerError> {
    serde_json::from_slice(body).map_err(|error| BrokerError::Invalid(error.to_string()))
}

fn shown_mesh(mesh: &MeshInfo) -> Value {
    json!({
        "id": mesh.id,
        "slug": mesh.slug,
        "owner_pubkey": mesh.owner_pubkey,
        "created_at_ms": mesh.created_at_ms,
    })
}

fn shown_member(member: &MemberInfo) -> Value {
    json!({
        "id": member.id,
        "pubkey": member.pubkey,
        "display_name": member.display_name,
        "role": member.role,
        "joined_at_ms": member.joined_at_ms,
        "revoked": member.revoked,
        "banned": member.banned,
        "connections": member.connections,
    })
}

fn shown_done(done: &MemberDone) -> Value {
    json!({"member": shown_member(&done.member), "changed": done.changed, "closed": done.closed})
}

fn shown_act(act: &AuditInfo) -> Value {
    json!({
        "at_ms": act.at_ms,
        "actor": act.actor,
        "act": act.act,
        "subject": act.subject,
        "detail": act.detail,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::route::{Admission, Identity, Lines, Outgoing};
    use crate::testing::TestBroker;
    use claudemesh_fsm::negotiate::ConnectionPolicy;
    use futures_lite::future::poll_once;
    use std::time::Duration;

    #[test]
    fn an_act_is_carried_out_also_when_nobody_waits_for_its_answer() {
        let test = TestBroker::new(Settings::default());
        let member = test.member("id1", &"1".repeat(64));
        let broker = &test.broker;
        let (lines, ends) = Lines::new();
        let identity = Identity { mesh_id: "m".into(), member: member.seq, ..Identity::default() };
        let admitted = broker.hub.admit(identity, lines, ConnectionPolicy::default());
        assert!(matches!(admitted, Admission::Admitted(_)));
        let closed = test.run(async {
            let body = json!({"mesh": "test", "member": "id1", "act": "ban"}).to_string();
            let uri = Uri::from_static("/member/act");
            let asked = answer_to_the_end(Arc::clone(broker), Method::POST, uri, body.into_bytes());
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
