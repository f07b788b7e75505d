//! `GET /v1/messages/{client_message_id}`: the receipt a caller can poll.

use super::Request;
use super::bodies::MessageStatus;
use super::reply::{self, Answer, Problem};
use claudemesh_fsm::id::ClientMessageId;

pub(super) async fn status(request: Request) -> Answer {
    let app = request.state();
    let id = reply::id_of(&request).and_then(|id| ClientMessageId::parse(&id).ok());
    let id = id.ok_or_else(not_found)?;
    let row = app.outbox.view(&id).await.map_err(|error| app.store_problem(&error))?;
    Ok(reply::ok(&MessageStatus::from(row.ok_or_else(not_found)?)))
}

fn not_found() -> Problem {
    Problem::not_found("message_not_found", "no message was accepted under this id")
}
