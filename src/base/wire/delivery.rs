//! The frames a message travels in: `send` and its `ack`, `push` and its `client_ack`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One message on its way to the broker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendFrame {
    /// Correlates the `ack`; a daemon uses the `client_message_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A 64-hex key, `*`, `@group` or `#<topic id>`.
    #[serde(rename = "targetSpec")]
    pub target_spec: String,
    /// `now`, `next` or `low`.
    pub priority: String,
    /// 24 bytes, base64.
    pub nonce: String,
    /// A sealed box for one member; base64 plaintext for many (§3.7).
    pub ciphertext: String,
    /// Nonce of the second box (§3.6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext_nonce: Option<String>,
    /// The second box: `meta` and `reply_to_id`, sealed (§3.6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext_ciphertext: Option<String>,
    /// Names mentioned in a topic message; at most [`MENTIONS_MAX`](super::MENTIONS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
    /// The message this one answers; in clear, so only for many.
    #[serde(default, rename = "replyToId", skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// The key the broker deduplicates on (§4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// 64 hex digits (§4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<String>,
}

/// A broker's answer to one `send` (§4.5b, §17.2). Failure is the presence of `error`, never
/// `queued: false`: today's network sets that on successes too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckFrame {
    /// The `id` of the send.
    #[serde(default)]
    pub id: String,
    /// The broker's id; empty on failure.
    #[serde(default, rename = "messageId")]
    pub message_id: String,
    /// Whether the message was taken.
    #[serde(default)]
    pub queued: bool,
    /// Why it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// 201, 200, 409, or another status by which to classify a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Echoed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// As `messageId`, also present on a 409.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_message_id: Option<String>,
    /// The message's place in the broker's history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_id: Option<String>,
    /// The id was known already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate: Option<bool>,
    /// Whether the history still has the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history_available: Option<bool>,
    /// When the id was first seen, ISO-8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_at: Option<String>,
    /// `request_fingerprint_mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<String>,
    /// 16 hex digits of the fingerprint the broker has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_fingerprint_prefix: Option<String>,
    /// How many members it was put in the queue of: what its receipt begins with (§4.13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<u32>,
    /// Whether trying again can never help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permanent: Option<bool>,
}

/// A message, or a system event, on its way to a client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PushFrame {
    /// The broker's id; of a system event, a fresh one.
    pub message_id: String,
    /// The mesh's id, not its slug.
    #[serde(default)]
    pub mesh_id: String,
    /// The key the message is sealed with, `system`, or `webhook:<name>`.
    pub sender_pubkey: String,
    /// The member the sending key belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_member_pubkey: Option<String>,
    /// The sender's display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<String>,
    /// `now`, `next` or `low`.
    #[serde(default)]
    pub priority: String,
    /// As sent.
    #[serde(default)]
    pub nonce: String,
    /// As sent.
    #[serde(default)]
    pub ciphertext: String,
    /// As sent.
    #[serde(default, rename = "ext_nonce", skip_serializing_if = "Option::is_none")]
    pub ext_nonce: Option<String>,
    /// As sent.
    #[serde(default, rename = "ext_ciphertext", skip_serializing_if = "Option::is_none")]
    pub ext_ciphertext: Option<String>,
    /// When the broker accepted it, ISO-8601.
    #[serde(default)]
    pub created_at: String,
    /// What it was sent to; brokers of today's network do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_spec: Option<String>,
    /// The topic's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The message it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// The sender's id for it.
    #[serde(default, rename = "client_message_id", skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// 64 hex digits.
    #[serde(default, rename = "request_fingerprint", skip_serializing_if = "Option::is_none")]
    pub request_fingerprint: Option<String>,
    /// `system`, `reminder`, `webhook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtype: Option<String>,
    /// The system event's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The system event's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_data: Option<Value>,
}

/// "I have stored it": ends the broker's lease on a delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientAck {
    /// The sender's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_message_id: Option<String>,
    /// The broker's id, which decides when both are given (§17.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_message_id: Option<String>,
}
