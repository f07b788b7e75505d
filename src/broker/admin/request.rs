//! What may be asked of a broker's administration, and what it answers: the types that travel over
//! `admin.sock`.

use super::meshes::INVITE_EXPIRES_S;
use crate::ledger::{AuditInfo, Check, Member, Mesh};
use serde::{Deserialize, Serialize};

/// One administrative request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(crate) enum AdminRequest {
    Meshes,
    CreateMesh { slug: String },
    SetConnectionPolicy { mesh: String, policy: String },
    CreateInvite(InviteWish),
    Members { mesh: String },
    AddMember { mesh: String, pubkey: String, name: String },
    ActOnMember { mesh: String, member: String, act: MemberAct },
    SetBlock { mesh: String, member: String, sender: String, blocked: bool },
    Audit { mesh: String },
    Check,
}

/// The answer to one of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub(crate) enum AdminAnswer {
    Meshes(Vec<MeshInfo>),
    Mesh(MeshInfo),
    PolicySet(()),
    Invite(InviteInfo),
    Members(Vec<MemberInfo>),
    MemberId(String),
    Member(MemberDone),
    Audit(Vec<AuditInfo>),
    Check(Check),
}

/// A mesh, as shown to whoever administers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshInfo {
    /// Its id on the wire.
    pub id: String,
    /// Its name for people.
    pub slug: String,
    /// The key that signs its invites.
    pub owner_pubkey: String,
    /// When it was made, Unix milliseconds.
    pub created_at_ms: i64,
}

impl MeshInfo {
    pub(super) fn of(mesh: &Mesh) -> Self {
        Self {
            id: mesh.id.clone(),
            slug: mesh.slug.clone(),
            owner_pubkey: mesh.owner_pubkey.clone(),
            created_at_ms: mesh.created_at.0,
        }
    }
}

/// What an invite should allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InviteWish {
    /// The mesh's slug.
    pub mesh: String,
    /// Seconds from now.
    pub expires_s: u64,
    /// How many may join with it.
    pub uses: u32,
    /// `member` or `admin`.
    pub role: String,
}

impl Default for InviteWish {
    fn default() -> Self {
        let (mesh, role) = (String::new(), "member".to_owned());
        Self { mesh, expires_s: INVITE_EXPIRES_S, uses: 1, role }
    }
}

/// A new invite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteInfo {
    /// The token itself.
    pub token: String,
    /// `http://<host>:<port>/join/<token>`.
    pub link: String,
    /// When it stops working, Unix milliseconds.
    pub expires_at_ms: i64,
}

/// What to do to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberAct {
    /// Close its connections; it may come back when its operator acts.
    Kick,
    /// Suspend its membership until it is unbanned.
    Ban,
    /// Lift a ban.
    Unban,
    /// End its membership for good.
    Revoke,
}

impl MemberAct {
    /// Its word in the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Kick => "kick",
            Self::Ban => "ban",
            Self::Unban => "unban",
            Self::Revoke => "revoke",
        }
    }
}

/// A member, as shown to whoever administers its mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// The member's id.
    pub id: String,
    /// Its key.
    pub pubkey: String,
    /// Its name.
    pub display_name: String,
    /// `owner`, `admin` or `member`.
    pub role: String,
    /// When it joined, Unix milliseconds.
    pub joined_at_ms: i64,
    /// Whether its membership has ended.
    pub revoked: bool,
    /// Whether its membership is suspended.
    pub banned: bool,
    /// Its connections; `None` while no broker runs to know.
    pub connections: Option<usize>,
}

impl MemberInfo {
    pub(crate) fn of(member: Member, connections: Option<usize>) -> Self {
        Self {
            id: member.id,
            pubkey: member.pubkey,
            display_name: member.display_name,
            role: member.role,
            joined_at_ms: member.joined_at.0,
            revoked: member.revoked,
            banned: member.banned,
            connections,
        }
    }
}

/// What an act came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDone {
    /// Whom it was done to, as it stands now.
    pub member: MemberInfo,
    /// Whether anything is different from before.
    pub changed: bool,
    /// Connections that were closed.
    pub closed: usize,
}
