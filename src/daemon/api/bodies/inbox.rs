//! What the routes below `/v1/inbox` answer.

use super::message::{Encryption, encryption_word};
use crate::store::inbox::StoredMessage;
use claudemesh_base::runtime::iso;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One message of `GET /v1/inbox`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxMessage {
    pub id: String,
    pub client_message_id: Option<String>,
    pub broker_message_id: String,
    pub mesh: String,
    pub topic: Option<String>,
    pub sender_pubkey: String,
    pub sender_member_pubkey: Option<String>,
    pub sender_name: Option<String>,
    pub recipient_pubkey: Option<String>,
    pub recipient_kind: Option<String>,
    pub body: Option<String>,
    pub meta: Option<Value>,
    pub priority: String,
    pub subtype: Option<String>,
    #[serde(with = "encryption_word")]
    pub encryption: Encryption,
    pub undecryptable: bool,
    pub created_at: Option<String>,
    pub received_at: String,
    pub seen_at: Option<String>,
    pub reply_to_id: Option<String>,
}

/// `200` of `POST /v1/inbox/seen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedSeen {
    /// How many were unread until now.
    pub marked_seen: usize,
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

impl From<StoredMessage> for InboxMessage {
    fn from(message: StoredMessage) -> Self {
        let StoredMessage { seq: _, content, seen_at } = message;
        Self {
            id: content.id,
            client_message_id: content.client_message_id,
            broker_message_id: content.broker_message_id,
            mesh: content.mesh,
            topic: content.topic,
            sender_pubkey: content.sender_pubkey,
            sender_member_pubkey: content.sender_member_pubkey,
            sender_name: content.sender_name,
            recipient_pubkey: content.recipient_pubkey,
            recipient_kind: content.recipient_kind,
            undecryptable: content.body.is_none(),
            body: content.body,
            // Stored as canonical JSON; anything else was never stored.
            meta: content.meta.and_then(|meta| serde_json::from_str(&meta).ok()),
            priority: content.priority,
            subtype: content.subtype,
            encryption: content.encryption,
            created_at: content.created_at,
            received_at: iso(content.received_at),
            seen_at: seen_at.map(iso),
            reply_to_id: content.reply_to_id,
        }
    }
}
