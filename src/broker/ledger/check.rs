//! Whether the ledger works, and whether its tables agree (§17.1).

use super::Answer;
use claudemesh_base::runtime::BoxFuture;
use serde::{Deserialize, Serialize};

/// What the orphan check found (§17.1): sizes, and how many rows do not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Check {
    /// Messages that are kept.
    pub messages: i64,
    /// Ids that are remembered.
    pub dedupe: i64,
    /// Messages that wait for somebody, once per recipient.
    pub deliveries: i64,
    /// Dedupe rows that claim a history which is not there.
    pub dedupe_without_message: i64,
    /// Messages with an id whose dedupe row is missing.
    pub message_without_dedupe: i64,
    /// Deliveries of a message that is not there.
    pub delivery_without_message: i64,
    /// Deliveries to a member that is not there, or whose membership has ended.
    pub delivery_without_recipient: i64,
    /// Members whose count of waiting messages, or of their bytes, is wrong.
    pub mailbox_miscounted: i64,
}

impl Check {
    /// Whether the tables agree.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.complaints().is_empty()
    }

    /// What does not agree, one sentence each.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let must_be_zero = [
            (self.dedupe_without_message, "ids claim a message that is not there"),
            (self.message_without_dedupe, "messages have an id that is not remembered"),
            (self.delivery_without_message, "deliveries are of a message that is not there"),
            (self.delivery_without_recipient, "deliveries are to a member that is not there"),
            (self.mailbox_miscounted, "members have a wrong count or size of waiting messages"),
        ];
        let found = must_be_zero.into_iter().filter(|(count, _)| *count != 0);
        found.map(|(count, words)| format!("{count} {words}")).collect()
    }
}

/// Whether the ledger works.
pub(crate) trait HealthLedger {
    /// Proves that dedupe rows, messages, deliveries and counts agree.
    fn check(&self) -> Answer<Check>;

    /// How many bytes the ledger can store without taking more of the disk.
    fn reusable_bytes(&self) -> BoxFuture<u64>;

    /// Whether the ledger can be written (`GET /health/ready`).
    fn is_writable(&self) -> BoxFuture<bool>;

    /// Whether the ledger answers at all (`GET /health`).
    fn is_up(&self) -> BoxFuture<bool>;

    /// Completes when a thread of the ledger panicked: nothing works any more then.
    fn panicked(&self) -> BoxFuture<()>;

    /// Finishes what is queued and closes the ledger. Blocks.
    fn close(&self);
}
