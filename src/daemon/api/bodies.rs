//! The bodies and events of the local API (`specs/ipc.md`): its only serde types.
//!
//! Requests are read field by field, so that an error names the field. Responses are structs, so
//! that a field cannot be misspelt in one place. No decision is made here.

mod operator;
mod request;
mod size;

pub use operator::{Aborted, ChainLink, Inspected, Pruned, Removed, Requeued};
pub use request::{AbortBody, BodyError, PruneBody, RequeueBody, SeenBody, SendBody};
pub use size::size;

pub use claudemesh_fsm::envelope::Encryption;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The routes' generation.
pub const IPC_API: &str = "v1";
/// What this surface offers; a client asks before it relies on one.
pub const IPC_FEATURES: [&str; 8] =
    ["version", "health", "send", "messages", "inbox", "outbox", "events", "peers"];

/// How a message travels, in JSON: its word.
mod encryption_word {
    use super::Encryption;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(it: &Encryption, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(it.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Encryption, D::Error> {
        let word = String::deserialize(from)?;
        Encryption::parse(&word).ok_or_else(|| D::Error::custom("`direct` or `none` is expected"))
    }
}

/// `202` and `200` of `POST /v1/send` (§4.5.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
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
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
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

/// One row of `GET /v1/outbox`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
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

/// A page of anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The page.
    pub items: Vec<T>,
    /// Opaque; ask with it for the next page. `null` on the last.
    pub next_cursor: Option<String>,
    /// How many messages `mark_seen=true` marked; a page of the outbox has no such member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marked_seen: Option<usize>,
}

/// `200` of `POST /v1/inbox/seen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedSeen {
    /// How many were unread until now.
    pub marked_seen: usize,
}

/// One message of `GET /v1/inbox`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
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

/// `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct Version {
    pub daemon_version: String,
    pub ipc_api: String,
    pub ipc_features: Vec<String>,
    pub schema_version: u32,
    pub durable: bool,
    pub meshes: Vec<MeshVersion>,
}

/// One mesh in [`Version`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct MeshVersion {
    pub mesh: String,
    pub member_pubkey: String,
    pub features: std::collections::BTreeMap<String, i64>,
    pub legacy_broker: bool,
}

/// `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct Health {
    pub ok: bool,
    pub pid: u32,
    pub status: String,
    /// Why `status` is `degraded`, in words.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// What may become a reason.
    #[serde(default)]
    pub warnings: Vec<String>,
    pub uptime_seconds: u64,
    pub brokers: std::collections::BTreeMap<String, String>,
    pub meshes: Vec<MeshHealth>,
    pub outbox: OutboxHealth,
    #[serde(default)]
    pub disk: DiskHealth,
    #[serde(default)]
    pub stores: StoresHealth,
    pub durable: bool,
}

/// The disk in [`Health`]; members are `null` where the file system does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct DiskHealth {
    pub free_bytes: Option<u64>,
    pub reserved_bytes: u64,
    pub used_percent: Option<u64>,
}

/// Whether the databases are whole, in [`Health`]: `checking`, `whole` or `damaged` (§4.11).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct StoresHealth {
    pub outbox: String,
    pub inbox: String,
}

/// One mesh in [`Health`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct MeshHealth {
    pub mesh: String,
    pub link: String,
    pub reason: Option<String>,
    pub remedy: Option<String>,
    pub pending: u64,
    pub inflight: u64,
    pub oldest_pending_age_seconds: Option<u64>,
}

/// The outbox in [`Health`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct OutboxHealth {
    pub pending: u64,
    pub inflight: u64,
    pub done: u64,
    pub dead: u64,
    pub aborted: u64,
    pub oldest_pending_age_seconds: Option<u64>,
    /// What pending, inflight and dead rows weigh (§1.2).
    #[serde(default)]
    pub bytes: u64,
    #[serde(default)]
    pub max_bytes: u64,
    #[serde(default)]
    pub percent: u64,
}

/// `GET /v1/peers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// Each as the broker told it, with `mesh` added.
    pub peers: Vec<Map<String, Value>>,
    /// Whether each mesh's part can be trusted: "no peers" and "cannot know" differ.
    pub meshes: Vec<MeshRoster>,
}

/// One mesh in [`Peers`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct MeshRoster {
    pub mesh: String,
    pub link: String,
    /// `live`, `cached` or `unknown`.
    pub roster: String,
    pub as_of: Option<String>,
}

/// A candidate of `destination_ambiguous`, named as in the roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct Candidate {
    pub pubkey: String,
    pub member_pubkey: String,
    pub display_name: String,
    pub online: bool,
}

/// Data of an `outbox` event: a row changed status, or its receipt grew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct OutboxEvent {
    pub ts: String,
    pub mesh: String,
    pub client_message_id: String,
    pub status: String,
    pub broker_message_id: Option<String>,
    pub last_error: Option<String>,
    /// `null` in the event of a changed status.
    pub receipt: Option<ReceiptBody>,
}

/// Data of the `system` event that tells how full a store is (§1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct StorageEvent {
    pub ts: String,
    /// `storage`.
    pub event: String,
    /// `outbox` or `disk`.
    pub subject: String,
    /// `ok`, `warning` or `refusing`.
    pub level: String,
    pub detail: String,
}

/// Data of a `broker_status` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct BrokerStatusEvent {
    pub ts: String,
    pub mesh: String,
    /// The same as `state`, under the name older clients read.
    pub status: String,
    pub state: String,
    pub reason: Option<String>,
    pub close_code: Option<u16>,
    pub feature: Option<String>,
    pub remedy: Option<String>,
}

/// Data of a `lagged` event: the listener missed something and goes on from the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct LaggedEvent {
    pub ts: String,
    /// `slow_reader` or `unknown_epoch`.
    pub reason: String,
    /// The `id:` after which messages follow from the store.
    pub resumed_from: String,
}

/// Data of a `message` event: the inbox message, and when it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct MessageEvent {
    pub ts: String,
    #[serde(flatten)]
    pub message: InboxMessage,
}

/// Data of `peer_join`, `peer_leave` and `system` events: what the broker said, with these added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]
pub struct SystemEvent {
    pub ts: String,
    pub mesh: String,
    pub event: String,
    #[serde(flatten)]
    pub data: Map<String, Value>,
}
