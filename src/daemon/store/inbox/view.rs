//! A stored message as the API shows it.

use super::StoredMessage;
use crate::api::bodies::InboxMessage;
use claudemesh_base::runtime::iso;

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
