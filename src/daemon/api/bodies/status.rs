//! What `GET /v1/version`, `GET /v1/health` and `GET /v1/peers` answer.

use crate::mesh::roster::MemberMatch;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// `GET /v1/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub struct MeshVersion {
    pub mesh: String,
    pub member_pubkey: String,
    pub features: BTreeMap<String, i64>,
    pub legacy_broker: bool,
}

/// `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    pub brokers: BTreeMap<String, String>,
    pub meshes: Vec<MeshHealth>,
    pub outbox: OutboxHealth,
    #[serde(default)]
    pub disk: DiskHealth,
    #[serde(default)]
    pub stores: StoresHealth,
    pub durable: bool,
}

/// One mesh in [`Health`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// The disk in [`Health`]; members are `null` where the file system does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskHealth {
    pub free_bytes: Option<u64>,
    pub reserved_bytes: u64,
    pub used_percent: Option<u64>,
}

/// Whether the databases are whole, in [`Health`]: `checking`, `whole` or `damaged` (§4.11).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoresHealth {
    pub outbox: String,
    pub inbox: String,
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
pub struct Candidate {
    pub pubkey: String,
    pub member_pubkey: String,
    pub display_name: String,
    pub online: bool,
}

impl From<MemberMatch> for Candidate {
    fn from(found: MemberMatch) -> Self {
        Self {
            pubkey: found.recipient.routing_key,
            member_pubkey: found.recipient.member_key,
            display_name: found.name,
            online: found.online,
        }
    }
}
