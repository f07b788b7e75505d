//! Members, their groups and how they show themselves.

use super::Answer;
use super::{InviteProblem, LedgerError};
use claudemesh_base::wire::Group;
use claudemesh_fsm::id::Millis;

/// The most groups of one member: what every row of every roster repeats.
pub(crate) const GROUPS_MAX: usize = 64;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Member {
    /// The ledger's own number for it: what queues are keyed by.
    pub(crate) seq: i64,
    pub(crate) id: String,
    pub(crate) mesh_id: String,
    pub(crate) pubkey: String,
    pub(crate) display_name: String,
    pub(crate) role: String,
    pub(crate) joined_at: Millis,
    /// Its membership has ended for good.
    pub(crate) revoked: bool,
    /// Its membership is suspended.
    pub(crate) banned: bool,
    pub(crate) last_seen_at: Option<Millis>,
    pub(crate) status: String,
    pub(crate) summary: Option<String>,
    pub(crate) visible: bool,
    /// The `set_profile` fields as JSON.
    pub(crate) profile: Option<String>,
    pub(crate) groups: Vec<Group>,
}

impl Member {
    /// Whether its membership holds now.
    pub(crate) fn is_active(&self) -> bool {
        !self.revoked && !self.banned
    }
}

/// What a member says about itself; `None` leaves the column as it is.
#[derive(Debug, Default)]
pub(crate) struct MemberState {
    pub(crate) status: Option<String>,
    pub(crate) summary: Option<String>,
    pub(crate) visible: Option<bool>,
    pub(crate) profile: Option<String>,
}

/// Why a member does not get into groups.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GroupError {
    #[error("a member may be in at most {GROUPS_MAX} groups")]
    TooMany,
    #[error("not a member: the membership has ended")]
    NotAMember,
    #[error(transparent)]
    Failed(#[from] LedgerError),
}

/// What became of a wish to join.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum JoinOutcome {
    New(String),
    /// The key was a member already; no use of the invite was taken.
    Already(String),
    Refused(InviteProblem),
}

/// Members, their groups and how they show themselves.
pub(crate) trait MemberLedger {
    /// The member with this key, revoked or not.
    fn member(&self, mesh: &str, pubkey: &str) -> Answer<Option<Member>>;

    /// Every member of a mesh with its groups, oldest first.
    fn members(&self, mesh: &str) -> Answer<Vec<Member>>;

    /// Adds a member without an invite (§17.3); idempotent by key.
    fn add_member(
        &self,
        mesh: &str,
        id: &str,
        pubkey: &str,
        name: &str,
        role: &'static str,
        now: Millis,
    ) -> Answer<JoinOutcome>;

    /// Joins with an invite: one transaction takes a use and adds the member. A key that is a
    /// member already burns no use; a revoked or banned one stays out.
    fn join(
        &self,
        token: &str,
        mesh: &str,
        id: &str,
        pubkey: &str,
        name: &str,
        now: Millis,
    ) -> Answer<JoinOutcome>;

    /// Notes when a member was last seen.
    fn touch_member(&self, member: i64, now: Millis) -> Answer<()>;

    /// Changes how a member shows itself.
    fn set_state(&self, member: i64, state: MemberState) -> Answer<()>;

    /// Puts a member into groups; `replace` takes it out of all others first.
    fn join_groups(
        &self,
        mesh: &str,
        member: i64,
        groups: Vec<Group>,
        replace: bool,
    ) -> Answer<(), GroupError>;

    /// The groups of a member.
    fn groups(&self, member: i64) -> Answer<Vec<Group>>;

    /// Takes a member out of a group.
    fn leave_group(&self, mesh: &str, member: i64, name: &str) -> Answer<()>;
}
