//! An outbox row as the API shows it.

use super::{RowChain, RowView, receipt};
use crate::api::bodies::{self, ChainLink, MessageStatus, OutboxRow, ReceiptBody};
use claudemesh_base::runtime::iso;
use claudemesh_fsm::outbox::Status;

impl RowView {
    /// A time at which something will be tried makes sense only while something waits.
    fn next_attempt(&self) -> Option<String> {
        (self.status == Status::Pending).then(|| iso(self.next_attempt_at))
    }

    /// Whether the broker may have a message we have no answer for. While an attempt is under way
    /// that is so by definition.
    fn is_unanswered(&self) -> bool {
        self.may_have_been_sent || self.status == Status::Inflight
    }
}

impl From<receipt::StoredReceipt> for ReceiptBody {
    fn from(receipt: receipt::StoredReceipt) -> Self {
        Self {
            delivered: receipt.is_delivered(),
            recipients: receipt.recipients,
            stored: receipt.stored,
            expired: receipt.expired,
            updated_at: iso(receipt.updated_at),
        }
    }
}

impl From<RowView> for MessageStatus {
    fn from(row: RowView) -> Self {
        Self {
            next_attempt_at: row.next_attempt(),
            may_have_been_sent: row.is_unanswered(),
            receipt: row.receipt.map(ReceiptBody::from),
            client_message_id: row.client_message_id,
            status: row.status.as_str().to_owned(),
            mesh: row.mesh,
            to: row.to,
            encryption: row.encryption,
            attempts: row.attempts,
            enqueued_at: iso(row.enqueued_at),
            delivered_at: row.delivered_at.map(iso),
            broker_message_id: row.broker_message_id,
            history_id: row.history_id,
            last_error: row.last_error,
            superseded_by: row.superseded_by,
        }
    }
}

impl From<RowView> for OutboxRow {
    fn from(row: RowView) -> Self {
        Self {
            next_attempt_at: row.next_attempt(),
            may_have_been_sent: row.is_unanswered(),
            receipt: row.receipt.map(ReceiptBody::from),
            id: row.id,
            client_message_id: row.client_message_id,
            mesh: row.mesh,
            to: row.to,
            status: row.status.as_str().to_owned(),
            attempts: row.attempts,
            enqueued_at: iso(row.enqueued_at),
            delivered_at: row.delivered_at.map(iso),
            broker_message_id: row.broker_message_id,
            last_error: row.last_error,
            aborted_at: row.aborted_at.map(iso),
            aborted_by: row.aborted_by,
            superseded_by: row.superseded_by,
            payload_bytes: row.payload_bytes,
        }
    }
}

impl From<RowChain> for bodies::Inspected {
    fn from(inspected: RowChain) -> Self {
        let link = |successor: super::Successor| ChainLink {
            id: successor.id,
            client_message_id: successor.client_message_id,
            status: successor.status.as_str().to_owned(),
        };
        Self {
            row: inspected.row.into(),
            chain: inspected.chain.into_iter().map(link).collect(),
            chain_is_cut: inspected.is_cut.then_some(true),
        }
    }
}
