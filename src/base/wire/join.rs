//! Joining a mesh: an invite, and what is sent to the broker's `/join` (`specs/wire.md`).

use serde::{Deserialize, Serialize};

/// A v1 invite; its token is base64url of this JSON, without padding. The field order is part of
/// the format.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitePayload {
    /// Always 1.
    pub v: u32,
    /// The mesh's id on the wire.
    pub mesh_id: String,
    /// The mesh's name for people.
    pub mesh_slug: String,
    /// Where its broker listens, `/ws` included.
    pub broker_url: String,
    /// Unix seconds.
    pub expires_at: i64,
    /// 32 bytes, base64url.
    pub mesh_root_key: String,
    /// `admin` or `member`.
    pub role: String,
    /// Who signs, 64 hex digits.
    pub owner_pubkey: String,
    /// Ed25519 over the canonical invite, hex.
    pub signature: String,
}

/// The body of `POST /join` and `POST /join/<token>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The invite; may also stand in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite_token: Option<String>,
    /// The joining member's public key, 64 hex digits.
    #[serde(default)]
    pub peer_pubkey: String,
    /// The name to show.
    #[serde(default)]
    pub display_name: String,
}

/// The answer to a join that succeeded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// Always true.
    #[serde(default)]
    pub ok: bool,
    /// The member row's id.
    #[serde(default, rename = "memberId")]
    pub member_id: String,
    /// The key was a member before; no use of the invite was taken.
    #[serde(default, rename = "alreadyMember", skip_serializing_if = "Option::is_none")]
    pub already_member: Option<bool>,
    /// The mesh's id; only our broker says, as everything below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_id: Option<String>,
    /// The mesh's slug.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// The mesh's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where to connect, `/ws` included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_url: Option<String>,
    /// The broker's clock, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_time: Option<i64>,
}
