//! What an operator's verbs are answered with (§4.5.2, §4.5.3, §3.4).

use super::OutboxRow;
use serde::{Deserialize, Serialize};

/// `200` of `POST /v1/outbox/requeue` (§4.5.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct Requeued {
    pub aborted_row_id: String,
    pub new_row_id: String,
    pub new_client_message_id: String,
    pub may_have_been_sent: bool,
}

/// `200` of `POST /v1/outbox/abort` (§4.5.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
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

/// `GET /v1/outbox/{id}`: a row and what took its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
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
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct ChainLink {
    pub id: String,
    pub client_message_id: String,
    pub status: String,
}

/// `200` of `DELETE /v1/inbox` and `DELETE /v1/inbox/{id}` (§3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// How many messages left the inbox.
    pub removed: usize,
    /// The one that was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}
