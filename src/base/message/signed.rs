//! The exact strings that signatures cover (§2): fields joined with `|`, no trailing
//! newline, integers in plain decimal.
//!
//! Only builds text. Whether a timestamp is fresh or a key allowed is for whoever verifies.

use super::keys::PublicKey;
use claudemesh_fsm::id::Millis;

/// The invite format these strings describe.
pub const INVITE_VERSION: u32 = 1;

/// What a member signs to open a connection.
#[must_use]
pub fn hello(mesh_id: &str, member_id: &str, member: &PublicKey, at: Millis) -> String {
    format!("{mesh_id}|{member_id}|{member}|{}", at.0)
}

/// What a member signs to let a session key speak for it until `expires_at`.
#[must_use]
pub fn session_attestation(member: &PublicKey, session: &PublicKey, expires_at: Millis) -> String {
    format!("claudemesh-session-attest|{member}|{session}|{}", expires_at.0)
}

/// What a session key signs to open its connection.
#[must_use]
pub fn session_hello(mesh_id: &str, member: &PublicKey, session: &PublicKey, at: Millis) -> String {
    format!("claudemesh-session-hello|{mesh_id}|{member}|{session}|{}", at.0)
}

/// The fields of an invite that its owner signs.
#[derive(Debug, Clone, Copy)]
pub struct InviteClaims<'a> {
    /// The mesh's id on the wire.
    pub mesh_id: &'a str,
    /// The mesh's name for people.
    pub mesh_slug: &'a str,
    /// Where its broker listens, `/ws` included.
    pub broker_url: &'a str,
    /// When the invite stops working: Unix time in *seconds*.
    pub expires_at_s: i64,
    /// The mesh's root key as it stands in the invite.
    pub mesh_root_key: &'a str,
    /// The role a joiner gets.
    pub role: &'a str,
    /// Who signs.
    pub owner: &'a PublicKey,
}

/// What a mesh's owner signs to invite.
#[must_use]
pub fn invite(invite: &InviteClaims<'_>) -> String {
    let InviteClaims { mesh_id, mesh_slug, broker_url, expires_at_s, mesh_root_key, role, owner } =
        invite;
    format!(
        "{INVITE_VERSION}|{mesh_id}|{mesh_slug}|{broker_url}|{expires_at_s}|{mesh_root_key}|{role}|{owner}"
    )
}
