//! The keys of the sessions of members.

use super::Answer;
use claudemesh_fsm::id::Millis;

/// The keys of the sessions of members.
pub(crate) trait SessionKeyLedger {
    /// Remembers that a session key belongs to a member. `false` when the key is another member's
    /// or is itself a member key: nobody may squat on a key that routes to somebody else.
    fn bind_session_key(&self, mesh: &str, pubkey: &str, member: i64, now: Millis) -> Answer<bool>;

    /// Whether a session key is bound to a member.
    fn is_session_key_of(&self, mesh: &str, pubkey: &str, member: i64) -> Answer<bool>;

    /// Notes that session keys are in use, so that the nightly expiry leaves them alone.
    fn touch_session_keys(&self, keys: Vec<(String, String)>, now: Millis) -> Answer<()>;
}
