//! The queue of each member.

use super::Answer;
use super::ReceiptNotice;
use claudemesh_base::wire::PushFrame;

/// Which part of a member's queue one connection may read.
#[derive(Debug, Clone)]
pub(crate) struct QueueFilter {
    pub(crate) member: i64,
    /// The connection's routing key: messages for that key alone.
    pub(crate) routing_key: String,
    /// Whether messages for the member as a whole go to this connection.
    pub(crate) takes_member_messages: bool,
}

/// One waiting message.
#[derive(Debug)]
pub(crate) struct QueuedMessage {
    pub(crate) seq: i64,
    pub(crate) push: PushFrame,
}

/// The queue of each member.
pub(crate) trait DeliveryLedger {
    /// The next messages after `after_seq`, oldest first, at most `limit`.
    fn due_deliveries(
        &self,
        filter: QueueFilter,
        after_seq: i64,
        limit: usize,
    ) -> Answer<Vec<QueuedMessage>>;

    /// Removes deliveries that were acknowledged, and says what their senders may be told. A lost
    /// one only means the message comes again, and its receiver knows it.
    fn acknowledge(&self, member: i64, seqs: Vec<i64>) -> Answer<Vec<ReceiptNotice>>;

    /// Removes a delivery by the broker's id: an acknowledgement that comes after its lease.
    fn acknowledge_by_id(&self, member: i64, id: &str) -> Answer<Option<ReceiptNotice>>;
}
