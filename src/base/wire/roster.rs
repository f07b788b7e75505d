//! Who is there, as a broker tells it, and how a peer shows itself.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The roster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PeersList {
    /// One entry per connection, and per offline member where negotiated.
    pub peers: Vec<RosterEntry>,
    /// The request it answers.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One connection of a member, as the roster shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RosterEntry {
    /// The routing key: a session key, or the member key.
    pub pubkey: String,
    /// The member key.
    #[serde(default)]
    pub member_pubkey: String,
    /// The name to show.
    #[serde(default)]
    pub display_name: String,
    /// Absent means online: only brokers that list offline members say `false` (§3.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// `control-plane`, `session` or `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_role: Option<String>,
    /// Everything else: status, summary, groups, hostname and more, passed through.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// How a peer shows itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "each field is the profile field of the same name")]
pub struct Profile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avatar: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bio: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
}
