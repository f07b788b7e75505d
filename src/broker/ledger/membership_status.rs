//! Bans, revocations and blocks.

use super::Answer;
use super::Member;
use claudemesh_fsm::id::Millis;

/// Bans, revocations and blocks.
pub(crate) trait StatusLedger {
    /// ConnectionEnds a membership. `false` when it had ended before.
    fn revoke_member(&self, member: &Member, now: Millis) -> Answer<bool>;

    /// Suspends a membership. `false` when it was suspended or had ended before.
    fn ban_member(&self, member: &Member, now: Millis) -> Answer<bool>;

    /// Lifts a ban. `false` when there was none.
    fn unban_member(&self, member: &Member, now: Millis) -> Answer<bool>;

    /// Keeps a sender's direct messages from a member, or lets them through again. `false` when it
    /// was so already.
    fn set_block(
        &self,
        member: &Member,
        sender: &Member,
        is_blocked: bool,
        now: Millis,
    ) -> Answer<bool>;

    /// Whether a member does not take a sender's direct messages.
    fn is_blocked(&self, member: i64, sender: i64) -> Answer<bool>;
}
