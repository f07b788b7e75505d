//! What `POST /v1/send` and `GET /v1/messages/{id}` answer.

use super::outbox::{is_unanswered, next_attempt};
use crate::store::outbox::{RowView, StoredReceipt};
use claudemesh_base::runtime::iso;
pub use claudemesh_fsm::envelope::Encryption;
use serde::{Deserialize, Serialize};

/// How a message travels, in JSON: its word.
pub(super) mod encryption_word {
    use super::Encryption;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(in super::super) fn serialize<S: Serializer>(
        it: &Encryption,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(it.as_str())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Encryption, D::Error> {
        let word = String::deserialize(from)?;
        Encryption::parse(&word).ok_or_else(|| D::Error::custom("`direct` or `none` is expected"))
    }
}

/// `202` and `200` of `POST /v1/send` (§4.5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub client_message_id: String,
    pub status: String,
    pub mesh: String,
    #[serde(with = "encryption_word")]
    pub encryption: Encryption,
    pub durable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_message_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_id: Option<String>,
}

/// `GET /v1/messages/{client_message_id}`: where the message is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageStatus {
    pub client_message_id: String,
    pub status: String,
    pub mesh: String,
    pub to: String,
    #[serde(with = "encryption_word")]
    pub encryption: Encryption,
    pub attempts: i64,
    pub enqueued_at: String,
    pub next_attempt_at: Option<String>,
    pub delivered_at: Option<String>,
    pub broker_message_id: Option<String>,
    pub history_id: Option<String>,
    pub last_error: Option<String>,
    pub superseded_by: Option<String>,
    pub may_have_been_sent: bool,
    /// `null` until the broker has the message, and for ever where it does not tell.
    pub receipt: Option<ReceiptBody>,
}

/// What the broker told of a message after it took it (§4.13).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptBody {
    /// Whether everybody the message is for has stored it.
    pub delivered: bool,
    /// How many members it is for.
    pub recipients: u32,
    /// How many of them have stored it.
    pub stored: u32,
    /// How many will never get it: it waited too long, or their membership ended.
    pub expired: u32,
    /// When the broker last told something new.
    pub updated_at: String,
}

impl From<StoredReceipt> for ReceiptBody {
    fn from(receipt: StoredReceipt) -> Self {
        Self {
            delivered: receipt.is_delivered(),
            recipients: receipt.recipients,
            stored: receipt.stored,
            expired: receipt.expired,
            updated_at: iso(receipt.updated_at),
        }
    }
}

impl From<RowView> for MessageStatus {
    fn from(row: RowView) -> Self {
        Self {
            next_attempt_at: next_attempt(&row),
            may_have_been_sent: is_unanswered(&row),
            receipt: row.receipt.map(ReceiptBody::from),
            client_message_id: row.client_message_id,
            status: row.status.as_str().to_owned(),
            mesh: row.mesh,
            to: row.to,
            encryption: row.encryption,
            attempts: row.attempts,
            enqueued_at: iso(row.enqueued_at),
            delivered_at: row.delivered_at.map(iso),
            broker_message_id: row.broker_message_id,
            history_id: row.history_id,
            last_error: row.last_error,
            superseded_by: row.superseded_by,
        }
    }
}
