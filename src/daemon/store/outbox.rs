//! `outbox.db`: what was accepted, and where each message is (§4.5.2).

/// SQL: whether the broker may have a row that is not done (§4.5.3). A row that waits since before
/// the host lost power is doubted: its claim may be among what was forgotten (§4.7).
macro_rules! may_have_been_sent {
    () => {
        "(may_have_been_sent OR \
         (status = 'pending' AND outbox.seq <= (SELECT doubted_to FROM host)))"
    };
}

/// SQL: what a row weighs beside [`depth::ROW_OVERHEAD_BYTES`], in bytes (§1.2).
macro_rules! row_bytes_sql {
    () => {
        "octet_length(payload) + coalesce(octet_length(meta), 0)"
    };
}

/// SQL: receipts that may still grow, by the index `receipt_open`.
macro_rules! open_receipts {
    () => {
        "SELECT r.seq, o.client_message_id FROM receipt r JOIN outbox o ON o.seq = r.seq \
         WHERE r.recipients > r.stored + r.expired AND r.seq > ? AND o.mesh = ? \
         AND o.status <> 'aborted' ORDER BY r.seq LIMIT ?"
    };
}

mod abort;
mod accept;
mod chain;
mod claim;
mod depth;
mod expedite;
mod lifecycle;
mod moves;
mod prune;
mod query;
mod receipt;
mod requeue;
mod rows;
mod shrink;

pub use abort::{AbortOutcome, AbortRequest};
pub use accept::{AcceptOutcome, NewRow, RequestKey};
pub use chain::{CHAIN_ROWS_MAX, RowChain, Successor};
pub use claim::Claimed;
pub use depth::Depth;
pub use lifecycle::Recovered;
pub use prune::{PruneProgress, PruneQuery};
pub use query::{ListPage, ListQuery, RowView};
pub use receipt::{ReceiptUpdate, ReportedReceipt, StoredReceipt};
pub use requeue::{Patch, RequeueOutcome, RequeueRequest, TooLarge};
pub use shrink::{EMPTIED_AFTER_MS, SHRUNK_AFTER_MS, ShrinkPhase, ShrinkStep};

use super::quota::Quota;
use super::schema;
use claudemesh_base::db::{Db, Driver, Error, Integrity};
use claudemesh_fsm::id::{ClientMessageId, Millis};
use claudemesh_fsm::outbox::Status;
use depth::DepthCounters;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A row changed status: what listeners are told after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The state it was in; `None` for a row that is new.
    pub from: Option<Status>,
    /// The row's mesh.
    pub mesh: String,
    /// The caller's id.
    pub client_message_id: ClientMessageId,
    /// The state it is in now.
    pub status: Status,
    /// The broker's id, once it is done.
    pub broker_message_id: Option<String>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// What the row weighs (§1.2).
    pub bytes: u64,
}

type OnMoved = Arc<dyn Fn(&Moved) + Send + Sync>;

/// A handle on `outbox.db`. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    db: Db,
    depths: Arc<DepthCounters>,
    on_moved: OnMoved,
}

impl Outbox {
    /// Opens or creates the database. `on_moved` runs on the writer thread after each commit that
    /// moved a row, so it must not block.
    pub fn open(path: &Path, driver: Driver, on_moved: OnMoved) -> Result<Self, Error> {
        Self::open_within(path, driver, on_moved, Quota::unlimited())
    }

    /// The same, within bounds (§1.2).
    pub fn open_within(
        path: &Path,
        driver: Driver,
        on_moved: OnMoved,
        quota: Quota,
    ) -> Result<Self, Error> {
        let db = Db::open(path, &schema::OUTBOX, driver)?;
        let counted = smol::block_on(db.read(lifecycle::depths)).inspect_err(|_| db.close())?;
        let depths = DepthCounters::new(quota);
        depths.replace(counted);
        Ok(Self { db, depths, on_moved })
    }

    /// The depth of each mesh that ever had a row.
    #[must_use]
    pub fn depths(&self) -> BTreeMap<String, Depth> {
        self.depths.per_mesh()
    }

    /// The bounds and how things stand.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        self.depths.quota()
    }

    /// Whether the file is known to be whole (§4.11).
    #[must_use]
    pub fn integrity(&self) -> Integrity {
        self.db.integrity()
    }

    /// The database itself, for who looks after it.
    #[must_use]
    pub const fn db(&self) -> &Db {
        &self.db
    }

    /// One row with everything the API shows of it.
    pub async fn view(&self, id: &ClientMessageId) -> Result<Option<RowView>, Error> {
        let id = id.clone();
        self.db.read(move |tx| query::view(tx, &id)).await
    }

    /// A page of rows, newest first.
    pub async fn list(&self, query: ListQuery) -> Result<ListPage, Error> {
        self.db.read(move |tx| query::list(tx, &query)).await
    }

    /// When the oldest row of each mesh that still waits was accepted.
    pub async fn oldest_waiting(&self) -> Result<BTreeMap<String, Millis>, Error> {
        self.db.read(query::oldest_waiting).await
    }

    fn announce(&self, moved: &Moved) {
        self.depths.moved(moved);
        (self.on_moved)(moved);
    }
}

#[cfg(test)]
mod tests;
