//! The events of `GET /v1/events`: their kinds, and their data as JSON.

use super::{InboxMessage, ReceiptBody};
use crate::events::{Event, EventContent};
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::to_text;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The kinds of event, as `event:` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    Message,
    PeerJoin,
    PeerLeave,
    BrokerStatus,
    System,
    Outbox,
}

impl EventKind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Message,
        Self::PeerJoin,
        Self::PeerLeave,
        Self::BrokerStatus,
        Self::System,
        Self::Outbox,
    ];

    /// The word after `event:`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::PeerJoin => "peer_join",
            Self::PeerLeave => "peer_leave",
            Self::BrokerStatus => "broker_status",
            Self::System => "system",
            Self::Outbox => "outbox",
        }
    }

    /// Reads the word back.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The kind of an event. What a broker tells has its kind from the broker's word.
    pub(crate) fn of(content: &EventContent) -> Self {
        match content {
            EventContent::Message(_) => Self::Message,
            EventContent::System { event, .. } => match event.as_str() {
                "peer_joined" => Self::PeerJoin,
                "peer_left" => Self::PeerLeave,
                _ => Self::System,
            },
            EventContent::Link { .. } => Self::BrokerStatus,
            EventContent::Moved(_) | EventContent::Receipt { .. } => Self::Outbox,
            EventContent::Storage(_) => Self::System,
        }
    }
}

/// The data of an event, as JSON on one line.
pub(crate) fn data_of(event: &Event) -> String {
    let ts = iso(event.at);
    match &event.content {
        EventContent::Message(message) => {
            to_text(&MessageEvent { ts, message: message.clone().into() })
        }
        EventContent::System { mesh, event, data } => {
            let (mesh, event, data) = (mesh.clone(), event.clone(), data.clone());
            to_text(&SystemEvent { ts, mesh, event, data })
        }
        EventContent::Link { mesh, view } => to_text(&BrokerStatusEvent {
            ts,
            mesh: mesh.clone(),
            status: view.state.as_str().to_owned(),
            state: view.state.as_str().to_owned(),
            reason: view.reason.clone(),
            remedy: view.remedy.clone(),
            close_code: view.close_code,
            feature: view.feature.clone(),
        }),
        EventContent::Moved(moved) => to_text(&OutboxEvent {
            ts,
            mesh: moved.mesh.clone(),
            client_message_id: moved.client_message_id.as_str().to_owned(),
            status: moved.status.as_str().to_owned(),
            broker_message_id: moved.broker_message_id.clone(),
            last_error: moved.last_error.clone(),
            receipt: None,
        }),
        EventContent::Receipt { mesh, update } => to_text(&OutboxEvent {
            ts,
            mesh: mesh.clone(),
            client_message_id: update.client_message_id.clone(),
            status: update.status.as_str().to_owned(),
            broker_message_id: update.broker_message_id.clone(),
            last_error: None,
            receipt: Some(update.receipt.into()),
        }),
        EventContent::Storage(change) => to_text(&StorageEvent {
            ts,
            event: "storage".to_owned(),
            subject: change.subject.to_owned(),
            level: change.level.as_str().to_owned(),
            detail: change.detail.clone(),
        }),
    }
}

/// Data of a `message` event: the inbox message, and when it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageEvent {
    pub ts: String,
    #[serde(flatten)]
    pub message: InboxMessage,
}

/// Data of an `outbox` event: a row changed status, or its receipt grew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEvent {
    pub ts: String,
    pub mesh: String,
    pub client_message_id: String,
    pub status: String,
    pub broker_message_id: Option<String>,
    pub last_error: Option<String>,
    /// `null` in the event of a changed status.
    pub receipt: Option<ReceiptBody>,
}

/// Data of a `broker_status` event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatusEvent {
    pub ts: String,
    pub mesh: String,
    /// The same as `state`, under the name older clients read.
    pub status: String,
    pub state: String,
    pub reason: Option<String>,
    pub close_code: Option<u16>,
    pub feature: Option<String>,
    pub remedy: Option<String>,
}

/// Data of `peer_join`, `peer_leave` and `system` events: what the broker said, with these added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SystemEvent {
    pub ts: String,
    pub mesh: String,
    pub event: String,
    #[serde(flatten)]
    pub data: Map<String, Value>,
}

/// Data of the `system` event that tells how full a store is (§1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageEvent {
    pub ts: String,
    /// `storage`.
    pub event: String,
    /// `outbox` or `disk`.
    pub subject: String,
    /// `ok`, `warning` or `refusing`.
    pub level: String,
    pub detail: String,
}

/// Data of a `lagged` event: the listener missed something and goes on from the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaggedEvent {
    pub ts: String,
    /// `slow_reader` or `unknown_epoch`.
    pub reason: String,
    /// The `id:` after which messages follow from the store.
    pub resumed_from: String,
}
