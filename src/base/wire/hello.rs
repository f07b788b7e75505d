//! The first frame of a connection, and its answer (`specs/wire.md`).

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// How far a hello's timestamp may be from the broker's clock, in milliseconds.
pub const SKEW_MS_MAX: u64 = 60_000;

/// A member introduces a connection, signed with the member key.
///
/// The signature covers mesh, member, key and timestamp only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Constant 1; today's network never reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<u32>,
    /// The mesh's id, not its slug.
    pub mesh_id: String,
    /// The member row's id.
    pub member_id: String,
    /// The member key, lowercase hex.
    pub pubkey: String,
    /// The routing key, when it is not the member key. We never send one on a hello.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_pubkey: Option<String>,
    /// Overrides the member's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Stable per install and mesh: a second connection with it replaces the first.
    pub session_id: String,
    /// Required by today's network.
    pub pid: u32,
    /// Required by today's network.
    pub cwd: String,
    /// Shown in the roster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// What kind of program speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// `ai`, `human` or `connector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// Groups to be in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Unix milliseconds.
    pub timestamp: i64,
    /// Ed25519 over the canonical string, hex.
    pub signature: String,
}

/// A session introduces a connection of its own, vouched for by its member.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionHello {
    /// The mesh's id.
    pub mesh_id: String,
    /// The member row's id.
    pub parent_member_id: String,
    /// The member key.
    pub parent_member_pubkey: String,
    /// The session's own key, which routes.
    pub session_pubkey: String,
    /// The member's word for the session key.
    pub parent_attestation: Attestation,
    /// Overrides the member's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Presence key.
    pub session_id: String,
    /// Process id.
    #[serde(default)]
    pub pid: u32,
    /// Working directory.
    #[serde(default)]
    pub cwd: String,
    /// Groups to be in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Unix milliseconds.
    pub timestamp: i64,
    /// Ed25519 by the session key, hex.
    pub signature: String,
}

/// A member vouches for a session key until a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// The session key.
    pub session_pubkey: String,
    /// The member key.
    pub parent_member_pubkey: String,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// Ed25519 by the member key, hex.
    pub signature: String,
}

/// Membership of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Without the `@`; may be a path such as `eng/core`.
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// The broker takes the connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloAck {
    /// This connection's presence.
    #[serde(default)]
    pub presence_id: String,
    /// The name the broker knows the member by.
    #[serde(default)]
    pub member_display_name: String,
    /// The broker's clock, Unix milliseconds; only ours says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_time: Option<i64>,
    /// Whether this broker will answer a negotiation (§15); only ours says. What is not `true` is
    /// no promise.
    #[serde(default, deserialize_with = "is_true", skip_serializing_if = "std::ops::Not::not")]
    pub negotiates: bool,
    /// Profile, policy and restored state, passed over.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

fn is_true<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    Ok(Value::deserialize(value)? == Value::Bool(true))
}
