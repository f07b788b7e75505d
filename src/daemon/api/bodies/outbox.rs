//! What the routes below `/v1/outbox` answer.

use super::ReceiptBody;
use crate::store::outbox::{RowChain, RowView, Successor};
use claudemesh_base::runtime::iso;
use claudemesh_fsm::outbox::Status;
use serde::{Deserialize, Serialize};

/// One row of `GET /v1/outbox`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    pub id: String,
    pub client_message_id: String,
    pub mesh: String,
    pub to: String,
    pub status: String,
    pub attempts: i64,
    pub enqueued_at: String,
    pub next_attempt_at: Option<String>,
    pub delivered_at: Option<String>,
    pub broker_message_id: Option<String>,
    pub last_error: Option<String>,
    pub aborted_at: Option<String>,
    pub aborted_by: Option<String>,
    pub superseded_by: Option<String>,
    pub may_have_been_sent: bool,
    pub payload_bytes: i64,
    pub receipt: Option<ReceiptBody>,
}

/// `GET /v1/outbox/{id}`: a row and what took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspected {
    #[serde(flatten)]
    pub row: OutboxRow,
    pub chain: Vec<ChainLink>,
    /// Present when the chain is longer than is shown: its last row leads on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_is_cut: Option<bool>,
}

/// One successor in [`Inspected`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLink {
    pub id: String,
    pub client_message_id: String,
    pub status: String,
}

/// `200` of `POST /v1/outbox/requeue` (§4.5.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requeued {
    pub aborted_row_id: String,
    pub new_row_id: String,
    pub new_client_message_id: String,
    pub may_have_been_sent: bool,
}

/// `200` of `POST /v1/outbox/abort` (§4.5.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aborted {
    pub aborted_row_id: String,
    pub may_have_been_sent: bool,
}

/// `200` of `POST /v1/outbox/prune` (§4.5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Rows that shrank; without `confirm`, rows that would.
    pub rows: usize,
    /// Whether they did.
    pub confirmed: bool,
    /// Opaque; ask with it to go on. `null` once every row was looked at.
    pub next_cursor: Option<String>,
}

/// When a message is tried again, which only one that waits has.
pub(super) fn next_attempt(row: &RowView) -> Option<String> {
    (row.status == Status::Pending).then(|| iso(row.next_attempt_at))
}

/// Whether the broker may have a message it did not answer for, as it may during every attempt.
pub(super) fn is_unanswered(row: &RowView) -> bool {
    row.may_have_been_sent || row.status == Status::Inflight
}

impl From<RowView> for OutboxRow {
    fn from(row: RowView) -> Self {
        Self {
            next_attempt_at: next_attempt(&row),
            may_have_been_sent: is_unanswered(&row),
            receipt: row.receipt.map(ReceiptBody::from),
            id: row.id,
            client_message_id: row.client_message_id,
            mesh: row.mesh,
            to: row.to,
            status: row.status.as_str().to_owned(),
            attempts: row.attempts,
            enqueued_at: iso(row.enqueued_at),
            delivered_at: row.delivered_at.map(iso),
            broker_message_id: row.broker_message_id,
            last_error: row.last_error,
            aborted_at: row.aborted_at.map(iso),
            aborted_by: row.aborted_by,
            superseded_by: row.superseded_by,
            payload_bytes: row.payload_bytes,
        }
    }
}

impl From<RowChain> for Inspected {
    fn from(inspected: RowChain) -> Self {
        let link = |successor: Successor| ChainLink {
            id: successor.id,
            client_message_id: successor.client_message_id,
            status: successor.status.as_str().to_owned(),
        };
        Self {
            row: inspected.row.into(),
            chain: inspected.chain.into_iter().map(link).collect(),
            chain_is_cut: inspected.is_cut.then_some(true),
        }
    }
}
