//! The ledger: what the broker remembers, as a seam of traits. Whoever uses the ledger holds an
//! `Arc<dyn Ledger>` and knows no database; `sqlite` is the one implementation today.
//!
//! Each method is one transaction that either commits whole or leaves nothing. The ledger knows no
//! connection and reads no clock; it is told the time.

mod accept;
mod audit;
mod check;
mod delivery;
mod members;
mod membership_status;
mod meshes;
mod receipts;
mod retention;
mod session_keys;
mod sqlite;
mod topics;

pub(crate) use accept::{
    AcceptError, AcceptLedger, AcceptOutcome, Accepted, Admit, IncomingMessage, MessageSender,
    OnDecided, Recipient, Refusal,
};
pub use audit::AuditInfo;
pub(crate) use audit::{ACTOR_BROKER, AuditEntry, AuditLedger};
pub use check::Check;
pub(crate) use check::HealthLedger;
pub(crate) use delivery::{DeliveryLedger, QueueFilter, QueuedMessage};
pub(crate) use members::{GROUPS_MAX, GroupError, JoinOutcome, Member, MemberLedger, MemberState};
pub(crate) use membership_status::StatusLedger;
pub(crate) use meshes::{Invite, InviteProblem, Mesh, MeshLedger};
pub(crate) use receipts::{ReceiptLedger, ReceiptNotice};
pub(crate) use retention::{Expired, Retention, RetentionLedger};
pub(crate) use session_keys::SessionKeyLedger;
pub(crate) use sqlite::SqliteLedger;
pub(crate) use topics::{
    TOPICS_MAX, TopicError, TopicKey, TopicLedger, TopicMember, TopicPage, TopicRow,
};

use claudemesh_base::log::Repeated;
use claudemesh_base::runtime::BoxFuture;
use std::ops::Deref;
use std::sync::Arc;

/// What a method of the ledger yields.
pub(crate) type Answer<T, E = LedgerError> = BoxFuture<Result<T, E>>;

/// The database under the ledger failed. The text is for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LedgerError(pub(crate) String);

/// Everything a ledger does.
pub(crate) trait Ledger:
    AcceptLedger
    + AuditLedger
    + DeliveryLedger
    + HealthLedger
    + MemberLedger
    + MeshLedger
    + ReceiptLedger
    + RetentionLedger
    + SessionKeyLedger
    + StatusLedger
    + TopicLedger
    + Send
    + Sync
{
}

/// The ledger of a running broker, which says in the log when it begins to fail and when it works
/// again. With a full disk it fails everybody, all the time, so that each failure is not a line.
#[derive(Clone)]
pub(crate) struct LedgerHandle {
    ledger: Arc<dyn Ledger>,
    failures: Arc<Repeated>,
}

impl LedgerHandle {
    pub(crate) fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger, failures: Arc::default() }
    }

    /// The ledger failed a request whose sender was told so, or who will try again.
    pub(crate) fn failed(&self, error: &LedgerError) {
        if self.failures.happened() {
            tracing::error!(%error, "the ledger fails: senders are asked to try again, acknowledgements wait");
        }
    }

    /// The ledger stored a message. Smaller writes may fit a disk that is full, and do not count.
    pub(crate) fn works(&self) {
        if let Some(failures) = self.failures.ended() {
            tracing::info!(failures, "the ledger works again");
        }
    }

    /// How often the ledger has failed since it last worked; forgets the count.
    #[cfg(test)]
    pub(crate) fn take_failures(&self) -> Option<u64> {
        self.failures.ended()
    }
}

impl Deref for LedgerHandle {
    type Target = dyn Ledger;

    fn deref(&self) -> &Self::Target {
        &*self.ledger
    }
}
