//! What a broker tells a sender of messages it took: how many recipients have stored each (§4.13).
//!
//! Both frames exist only between a broker and a client that negotiated `delivery_receipts`. A
//! receipt says how things are, not what happened: each replaces the one before it, any may be lost,
//! and the same may come twice.

use serde::{Deserialize, Serialize};

/// The most ids one request may name. It must fit a frame too, which long ids do not always do.
pub const RECEIPT_IDS_MAX: usize = 128;

/// "What became of these?"
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsRequest {
    /// `client_message_id`s of the asking member; at most [`RECEIPT_IDS_MAX`] are answered.
    pub ids: Vec<String>,
    /// Echoed in the answer.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Receipts: the answer to a request, or news.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsFrame {
    /// One per message that the broker knows; an id it does not know has none.
    pub receipts: Vec<Receipt>,
    /// The request it answers; absent for news.
    #[serde(default, rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Where one message is. `stored + expired` reaches `recipients` when nothing more will happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The sender's id for it.
    pub client_message_id: String,
    /// How many members it was put in the queue of.
    pub recipients: u32,
    /// How many of them acknowledged it, which a daemon does once it is on its disk (§5).
    #[serde(default)]
    pub stored: u32,
    /// How many will never get it: it waited too long, or their membership ended.
    #[serde(default)]
    pub expired: u32,
}
