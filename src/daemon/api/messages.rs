//! `GET /v1/messages/{client_message_id}`: the receipt a caller can poll.

use super::Request;
use super::reply::{self, Problem};
use crate::api::bodies::MessageStatus;
use claudemesh_fsm::id::ClientMessageId;

pub(super) async fn status(request: Request) -> tide::Result {
    // tide hands path parameters over as they came.
    let id = request.param("id").ok().and_then(reply::decode_segment);
    let id = id.and_then(|id| ClientMessageId::parse(&id).ok());
    let Some(id) = id else { return Ok(not_found().into()) };
    Ok(match request.state().outbox.view(&id).await {
        Ok(Some(row)) => reply::ok(&MessageStatus::from(row)),
        Ok(None) => not_found().into(),
        Err(error) => request.state().store_problem(&error).into(),
    })
}

fn not_found() -> Problem {
    Problem::not_found("message_not_found", "no message was accepted under this id")
}
