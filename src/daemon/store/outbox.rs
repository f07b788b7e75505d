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
mod depth;
mod expedite;
mod lifecycle;
mod moves;
mod prune;
mod query;
mod receipt;
mod requeue;
mod shrink;

pub use abort::{AbortOutcome, AbortRequest};
pub use accept::AcceptOutcome;
pub use chain::{CHAIN_ROWS_MAX, RowChain, Successor};
pub use depth::Depth;
pub use lifecycle::Recovered;
pub use moves::Claimed;
pub use prune::{PruneProgress, PruneQuery};
pub use query::{ListPage, ListQuery, RowView};
pub use receipt::{ReceiptUpdate, StoredReceipt};
pub use requeue::{Patch, RequeueOutcome, RequeueRequest, TooLarge};
pub use shrink::{EMPTIED_AFTER_MS, SHRUNK_AFTER_MS, ShrinkPhase, ShrinkStep};

use super::quota::Quota;
use super::schema;
use accept::{RetryRequest, accept_in, known_in, look_up};
use claudemesh_base::db::{Db, Driver, Durability, Error, Integrity, Kind, Tx};
use claudemesh_fsm::accept::AcceptDecision;
use claudemesh_fsm::envelope::Envelope;
use claudemesh_fsm::id::{ClientMessageId, Millis, RowId};
use claudemesh_fsm::outbox::{Ack, AnyRow, Guard, Row, State, Status, Step, Verdict};
use depth::{DepthCounters, ROW_OVERHEAD_BYTES, row_bytes};
use moves::{Applied, UnsettledClaim, apply, claim_due_in};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A message to be accepted.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Our name for the row.
    pub id: RowId,
    /// The caller's name for the message.
    pub client_message_id: ClientMessageId,
    /// The message.
    pub envelope: Envelope,
    /// Now.
    pub enqueued_at: Millis,
    /// Whether the caller named the mesh, so that another mesh's row is a mismatch (§3.3).
    pub mesh_is_explicit: bool,
    /// The public key the caller wrote, if not in lowercase: an earlier daemon hashed it as written
    /// (§4.4).
    pub key_as_written: Option<String>,
}

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
    ///
    /// # Errors
    /// See [`Db::open`].
    pub fn open(path: &Path, driver: Driver, on_moved: OnMoved) -> Result<Self, Error> {
        Self::open_within(path, driver, on_moved, Quota::unlimited())
    }

    /// The same, within bounds (§1.2).
    ///
    /// # Errors
    /// See [`Db::open`].
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

    /// Looks the id up, decides (§4.5.1), inserts if there is no row, commits, and only then
    /// answers. The work is queued before this returns: a caller that goes away changes nothing.
    /// Where there is no room for a row, an id that has one is answered all the same (§3.3).
    ///
    /// # Errors
    /// When there is no room, the queue is full or the commit fails: then nothing was accepted.
    pub fn accept(
        &self,
        new: NewRow,
    ) -> impl Future<Output = Result<AcceptOutcome, Error>> + Send + use<> {
        let outbox = self.clone();
        let new = Arc::new(new);
        let room = self.depths.reserve(row_bytes(&new.envelope));
        let queued = room.map(|room| self.insert(new.clone(), room));
        async move {
            let answer = match queued {
                Ok(answer) => answer.await,
                Err(no_room) => Err(no_room),
            };
            match answer {
                Err(no_room) if no_room.kind() == Kind::Full => {
                    outbox.db.read(move |tx| known_in(tx, &new)).await?.ok_or(no_room)
                }
                answer => answer,
            }
        }
    }

    fn insert(
        &self,
        new: Arc<NewRow>,
        room: depth::Reservation,
    ) -> impl Future<Output = Result<AcceptOutcome, Error>> + Send + use<> {
        let outbox = self.clone();
        let inserted = Moved {
            from: None,
            mesh: new.envelope.mesh.clone(),
            client_message_id: new.client_message_id.clone(),
            status: Status::Pending,
            broker_message_id: None,
            last_error: None,
            bytes: row_bytes(&new.envelope),
        };
        let after = move |result: &Result<AcceptOutcome, Error>| {
            let is_new = |accepted: &AcceptOutcome| accepted.decision == AcceptDecision::Insert;
            if result.as_ref().is_ok_and(is_new) {
                outbox.announce(&inserted);
            }
            outbox.quota().record_outcome(result, is_new);
            drop(room);
        };
        self.db.try_write_one(move |tx| accept_in(tx, &new), after)
    }

    /// What a retry of `client_message_id` is told, if it has a row: for requests that cannot be
    /// inserted but may be retries all the same (§3.3). `key_as_written` as in [`NewRow`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn existing(
        &self,
        client_message_id: &ClientMessageId,
        envelope: Envelope,
        key_as_written: Option<String>,
        explicit_mesh: Option<String>,
    ) -> Result<Option<AcceptOutcome>, Error> {
        let id = client_message_id.clone();
        self.db
            .read(move |tx| {
                let (key_as_written, explicit_mesh) =
                    (key_as_written.as_deref(), explicit_mesh.as_deref());
                let asked = RetryRequest { envelope: &envelope, key_as_written, explicit_mesh };
                Ok(look_up(tx, &id)?.map(|row| row.judge(&asked)))
            })
            .await
    }

    /// Stores one move. `Ok(None)` means another writer moved the row first, and this result is to
    /// be dropped.
    ///
    /// # Errors
    /// When the commit fails, the row comes back in the state it had, with the reason.
    pub async fn store<S, N>(&self, step: Step<S, N>) -> Result<Option<Row<N>>, (Row<S>, Error)>
    where
        S: State,
        N: State,
    {
        let (guard, unsettled) = step.split();
        let outcome = self.write_guard(guard).await;
        unsettled.settle(outcome)
    }

    /// Claims up to `limit` due rows of `mesh` for one attempt each, in one commit. Rows accepted
    /// before `expired_before` are not claimed but handed back, to be expired.
    ///
    /// # Errors
    /// When the commit fails: then nothing was claimed.
    pub async fn claim_due(
        &self,
        mesh: &str,
        now: Millis,
        expired_before: Millis,
        limit: usize,
    ) -> Result<Claimed, Error> {
        let mesh = mesh.to_owned();
        let outbox = self.clone();
        let job = move |tx: &Tx<'_>| claim_due_in(tx, &mesh, now, expired_before, limit);
        let after = move |result: &Result<UnsettledClaim, Error>| {
            result.iter().for_each(UnsettledClaim::log_dead_lettered);
            result.iter().flat_map(UnsettledClaim::moves).for_each(|moved| outbox.announce(moved));
        };
        Ok(self.db.write(Durability::Relaxed, job, after).await?.settle())
    }

    /// The broker acknowledged an attempt that had been given up: a pending row becomes done, any
    /// other is left as it is (§4.5.2). Says whether a row moved.
    ///
    /// # Errors
    /// When the commit fails.
    pub async fn late_ack(
        &self,
        mesh: &str,
        id: &ClientMessageId,
        ack: Ack,
    ) -> Result<bool, Error> {
        let (mesh, id) = (mesh.to_owned(), id.clone());
        let outbox = self.clone();
        let job = move |tx: &Tx<'_>| match query::row(tx, &id)? {
            // A broker speaks for its own mesh alone.
            Some(AnyRow::Pending(row)) if row.envelope().mesh == mesh => {
                let (guard, _) = row.acked_late(ack).split();
                apply(tx, guard).map(Some)
            }
            _ => Ok(None),
        };
        let after = move |result: &Result<Option<Applied>, Error>| {
            result
                .iter()
                .flatten()
                .for_each(|applied| applied.moved.iter().for_each(|moved| outbox.announce(moved)));
        };
        Ok(self.db.write(Durability::Relaxed, job, after).await?.is_some())
    }

    /// One row with everything the API shows of it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn view(&self, id: &ClientMessageId) -> Result<Option<RowView>, Error> {
        let id = id.clone();
        self.db.read(move |tx| query::view(tx, &id)).await
    }

    /// A page of rows, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn list(&self, query: ListQuery) -> Result<ListPage, Error> {
        self.db.read(move |tx| query::list(tx, &query)).await
    }

    /// When the oldest row of each mesh that still waits was accepted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn oldest_waiting(&self) -> Result<BTreeMap<String, Millis>, Error> {
        self.db.read(query::oldest_waiting).await
    }

    /// Retires a row and puts a successor in its place, in one transaction (§4.5.3).
    ///
    /// # Errors
    /// When there is no room for the successor or the commit fails: then nothing changed.
    pub async fn requeue(&self, request: RequeueRequest) -> Result<RequeueOutcome, Error> {
        // What is put in place of an old payload is new; the rest only changes its state.
        let payload_bytes = request.patch.as_ref().map_or(0, |patch| patch.payload.len());
        let room = self.depths.reserve(ROW_OVERHEAD_BYTES + payload_bytes as u64)?;
        let outbox = self.clone();
        let job = move |tx: &Tx<'_>| requeue::requeue_in(tx, request);
        let after = move |result: &Result<requeue::RequeueEffect, Error>| {
            if let Ok(done) = result {
                done.moves.iter().for_each(|moved| outbox.announce(moved));
            }
            outbox.quota().record_outcome(result, |done| {
                matches!(done.outcome, RequeueOutcome::Requeued { .. })
            });
            drop(room);
        };
        Ok(self.db.write(Durability::Synced, job, after).await?.outcome)
    }

    async fn write_guard(&self, guard: Guard) -> Result<Verdict, Error> {
        let durability =
            if guard.change().must_be_synced() { Durability::Synced } else { Durability::Relaxed };
        let outbox = self.clone();
        let after = move |result: &Result<Applied, Error>| {
            result
                .iter()
                .for_each(|applied| applied.moved.iter().for_each(|moved| outbox.announce(moved)));
        };
        let applied = self.db.write(durability, move |tx| apply(tx, guard), after).await?;
        Ok(applied.verdict)
    }

    fn announce(&self, moved: &Moved) {
        self.depths.moved(moved);
        (self.on_moved)(moved);
    }
}

#[cfg(test)]
mod tests;
