//! Meshes and the invites to them (§17.3).

use super::Answer;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::negotiate::ConnectionPolicy;

/// One mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mesh {
    pub(crate) id: String,
    pub(crate) slug: String,
    pub(crate) owner_pubkey: String,
    /// 32 random bytes, base64url; travels in invites.
    pub(crate) root_key: String,
    /// §15.6.
    pub(crate) connection_policy: String,
    pub(crate) created_at: Millis,
}

/// One invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invite {
    pub(crate) token: String,
    pub(crate) mesh_id: String,
    pub(crate) role: String,
    pub(crate) expires_at: Millis,
    pub(crate) uses_max: i64,
    pub(crate) created_at: Millis,
}

/// Why an invite does not open the door; the text is the code of `specs/wire.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InviteProblem {
    NotFound,
    MeshMismatch,
    Revoked,
    Expired,
    Exhausted,
    /// The invite is good, but this key's membership has ended.
    MemberRevoked,
    /// The invite is good, but this key's membership is suspended.
    MemberBanned,
    /// The invite is good, but this key is a session's of another member.
    SessionKey,
}

impl InviteProblem {
    /// The `error` of the answer.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::NotFound => "invite_not_found",
            Self::MeshMismatch => "invite_mesh_mismatch",
            Self::Revoked => "invite_revoked",
            Self::Expired => "invite_expired",
            Self::Exhausted => "invite_exhausted",
            Self::MemberRevoked => "member_revoked",
            Self::MemberBanned => "member_banned",
            Self::SessionKey => {
                "peer_pubkey is the session key of a member of this mesh: join with a new key"
            }
        }
    }
}

/// Meshes and the invites to them (§17.3).
pub(crate) trait MeshLedger {
    /// Stores a mesh; `false` when its slug is taken.
    fn insert_mesh(&self, mesh: Mesh) -> Answer<bool>;

    /// Every mesh, by slug.
    fn meshes(&self) -> Answer<Vec<Mesh>>;

    /// The mesh with this id.
    fn mesh(&self, id: &str) -> Answer<Option<Mesh>>;

    /// The mesh with this slug.
    fn mesh_by_slug(&self, slug: &str) -> Answer<Option<Mesh>>;

    /// Changes what two installs of one member key do to each other (§15.6).
    fn set_connection_policy(
        &self,
        mesh: &str,
        policy: ConnectionPolicy,
        now: Millis,
    ) -> Answer<()>;

    /// Why nobody can join with an invite now; `None` if somebody can.
    fn invite_problem(
        &self,
        token: &str,
        mesh_id: &str,
        now: Millis,
    ) -> Answer<Option<InviteProblem>>;

    /// Stores an invite; `false` if there is one with the same token already.
    fn insert_invite(&self, invite: Invite) -> Answer<bool>;
}
