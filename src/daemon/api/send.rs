//! `POST /v1/send` (§3.3): the request's fields in, one of the answers of §4.5.1 out.

mod draft;
mod idempotency_key;
mod refusal;

pub use draft::draft_of;

use super::Request;
use super::bodies::{SendBody, Sent};
use super::body::read_body;
use super::reply::{self, Answer};
use crate::flow::accept::AcceptAnswer;
use crate::store::outbox::AcceptOutcome;
use claudemesh_fsm::accept::AcceptDecision;
use idempotency_key::idempotency_key;
use refusal::{conflicted, reject, remedy};

/// Every accepted message is on stable storage before its answer.
const DURABLE: bool = true;

pub(super) async fn send(mut request: Request) -> Answer {
    let header_id = idempotency_key(&request)?;
    let body: SendBody = read_body(&mut request).await?;
    let app = request.state();
    let (key, draft) = draft_of(body, header_id, &app.runtime)?;
    let explicit_mesh = key.explicit_mesh.clone();
    let answer = app.accept.accept(key, draft).await.map_err(|rejection| reject(app, rejection))?;
    respond(answer, explicit_mesh.as_deref())
}

fn respond(answer: AcceptAnswer, explicit_mesh: Option<&str>) -> Answer {
    let AcceptAnswer { client_message_id, accepted, encryption } = answer;
    let AcceptOutcome { row_id, decision, mesh, has_no_destination, fingerprint } = accepted;
    let location = format!("/v1/messages/{}", reply::encode_segment(client_message_id.as_str()));
    let sent = |status: &str| Sent {
        client_message_id: client_message_id.as_str().to_owned(),
        status: status.to_owned(),
        mesh: mesh.clone(),
        encryption,
        durable: DURABLE,
        duplicate: None,
        broker_message_id: None,
        history_id: None,
    };
    match decision {
        AcceptDecision::Insert | AcceptDecision::Queued => {
            Ok(reply::accepted(&sent("queued"), &location))
        }
        AcceptDecision::Inflight => Ok(reply::accepted(&sent("inflight"), &location)),
        AcceptDecision::Done { broker_message_id, history_id } => Ok(reply::ok(&Sent {
            duplicate: Some(true),
            broker_message_id: Some(broker_message_id),
            history_id,
            ..sent("done")
        })),
        AcceptDecision::Conflict(conflict) => {
            let is_other = |named: &&str| !mesh.is_empty() && *named != mesh;
            let detail = match explicit_mesh.filter(is_other) {
                Some(named) => {
                    format!("this id was accepted for mesh `{mesh}`, not `{named}`: use a new id")
                }
                None => remedy(&conflict, &row_id, has_no_destination),
            };
            Err(conflicted(conflict, detail)
                .with("daemon_fingerprint_prefix", fingerprint.prefix())
                .with("client_message_id", client_message_id.as_str()))
        }
    }
}
