//! What is forgotten, and when (§17.1).

use super::Answer;
use claudemesh_fsm::id::Millis;

/// How long things are kept, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Messages that wait, topics' messages, and session keys nobody uses.
    pub(crate) message_ms: u64,
}

/// What a night's expiry removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) messages: usize,
    pub(crate) undelivered: usize,
    pub(crate) dedupe: usize,
    pub(crate) session_keys: usize,
}

/// What is forgotten, and when (§17.1).
pub(crate) trait RetentionLedger {
    /// Forgets what is past its time, by the ledger's own time.
    fn expire(&self, now: Millis, keep: Retention) -> Answer<Expired>;

    /// Removes the messages that nobody waits for any more and that are no topic's past. Yields how
    /// many went.
    fn sweep(&self, now: Millis) -> Answer<usize>;
}
