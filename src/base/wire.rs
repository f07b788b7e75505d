//! The frames a daemon and a broker exchange, one JSON object each (`specs/wire.md`).
//!
//! Both sides use these types, so that they cannot disagree. Unknown fields are ignored and unknown
//! frame types are [`ClientFrame::Unknown`] and [`BrokerFrame::Unknown`]: today's network speaks
//! more than we do.

pub mod delivery;
pub mod features;
pub mod hello;
pub mod join;
pub mod receipts;
pub mod roster;
pub mod send_frame;
pub mod topics;

pub use delivery::{AckFrame, ClientAck, PushFrame, SendFrame};
pub use hello::{Group, Hello, HelloAck, SessionHello};
pub use receipts::{RECEIPT_IDS_MAX, Receipt, ReceiptsFrame, ReceiptsRequest};
pub use roster::{PeersList, Profile, RosterEntry};
pub use topics::{Topic, TopicCreate, TopicCreated, TopicHistory, TopicListResponse, TopicRef};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The most a frame may weigh, in bytes, unless the broker advertises `max_payload` (§3.6).
pub const FRAME_BYTES_MAX: usize = 65_536;
/// The most names a send may mention (§3.3).
pub const MENTIONS_MAX: usize = 16;

/// What a client sends to a broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant is the frame of the same name in specs/wire.md")]
pub enum ClientFrame {
    Hello(Box<Hello>),
    SessionHello(Box<SessionHello>),
    FeatureNegotiationRequest(features::FeatureRequest),
    Send(Box<SendFrame>),
    ClientAck(ClientAck),
    ReceiptsRequest(ReceiptsRequest),
    ListPeers(Correlated),
    SetStatus {
        status: String,
    },
    SetSummary {
        summary: String,
    },
    SetVisible {
        visible: bool,
    },
    SetProfile(Box<Profile>),
    JoinGroup {
        name: String,
        role: Option<String>,
    },
    LeaveGroup {
        name: String,
    },
    TopicCreate(TopicCreate),
    TopicList(Correlated),
    TopicJoin(TopicRef),
    TopicLeave(TopicRef),
    TopicMembers(TopicRef),
    TopicHistory(TopicHistory),
    #[serde(other)]
    Unknown,
}

/// What a broker sends to a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs, reason = "each variant is the frame of the same name in specs/wire.md")]
pub enum BrokerFrame {
    HelloAck(Box<HelloAck>),
    FeatureNegotiationResponse(features::FeatureResponse),
    Error(ErrorFrame),
    Ack(Box<AckFrame>),
    Push(Box<PushFrame>),
    Receipts(ReceiptsFrame),
    PeersList(PeersList),
    TopicCreated(TopicCreated),
    TopicListResponse(TopicListResponse),
    TopicMembersResponse(Map<String, Value>),
    TopicHistoryResponse(Map<String, Value>),
    #[serde(other)]
    Unknown,
}

/// A request that carries nothing but the id its answer will repeat.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correlated {
    /// Echoed in the answer.
    #[serde(rename = "_reqId", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A broker's complaint that belongs to no send.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFrame {
    /// A stable word.
    pub code: String,
    /// A sentence.
    #[serde(default)]
    pub message: String,
    /// The broker's clock, Unix milliseconds, where a clock is what is wrong; only ours says.
    #[serde(default, rename = "brokerTime", skip_serializing_if = "Option::is_none")]
    pub broker_time: Option<i64>,
    /// The request it answers; topic errors of today's network use `id`.
    #[serde(default, rename = "_reqId", alias = "id", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// A frame as text.
///
/// # Panics
/// Never: the frames have string keys and finite numbers only.
#[must_use]
pub fn to_text<T: Serialize>(frame: &T) -> String {
    serde_json::to_string(frame).expect("frames have string keys and finite numbers")
}

#[cfg(test)]
mod tests;
