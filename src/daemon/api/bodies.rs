//! The bodies and events of the local API (`specs/ipc.md`): its only serde types, used by the daemon
//! and by its client. What the stores and flows know is turned into them here; no decision is made.

#![allow(missing_docs, reason = "each field is the member of the same name in specs/ipc.md")]

mod events;
mod inbox;
mod message;
mod outbox;
mod request;
mod status;

pub use events::{
    BrokerStatusEvent, LaggedEvent, MessageEvent, OutboxEvent, StorageEvent, SystemEvent,
};
pub(crate) use events::{EventKind, data_of};
pub use inbox::{InboxMessage, MarkedSeen, Removed};
pub use message::{Encryption, MessageStatus, ReceiptBody, Sent};
pub use outbox::{Aborted, ChainLink, Inspected, OutboxRow, Pruned, Requeued};
pub use request::{AbortBody, BodyError, PruneBody, RequestBody, RequeueBody, SeenBody, SendBody};
pub use status::{
    Candidate, DiskHealth, Health, MeshHealth, MeshRoster, MeshVersion, OutboxHealth, Peers,
    StoresHealth, Version,
};

use serde::{Deserialize, Serialize};

/// The routes' generation.
pub const IPC_API: &str = "v1";

/// A page of anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The page.
    pub items: Vec<T>,
    /// Opaque; ask with it for the next page. `null` on the last.
    pub next_cursor: Option<String>,
    /// How many messages `mark_seen=true` marked; a page of the outbox has no such member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marked_seen: Option<usize>,
}
