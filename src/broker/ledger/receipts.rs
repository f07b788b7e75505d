//! What became of each message (§4.13).

use super::Answer;
use claudemesh_base::wire::Receipt;

/// A receipt, and the member it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceiptNotice {
    /// The ledger's number of the member that sent the message.
    pub(crate) sender: i64,
    pub(crate) receipt: Receipt,
}

/// What became of each message (§4.13).
pub(crate) trait ReceiptLedger {
    /// What became of messages that a member sent, by its own ids. Ids it never used, and those of
    /// messages whose recipients were not counted, have no receipt.
    fn receipts(&self, mesh: &str, sender_pubkey: &str, ids: Vec<String>) -> Answer<Vec<Receipt>>;
}
