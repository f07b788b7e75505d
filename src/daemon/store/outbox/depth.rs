//! How many rows each mesh has in each state, and what they weigh.
//!
//! Kept in memory with every move, not counted: counting a million rows takes longer than a request
//! may, and counters on disk would cost every accept. An end in order notes them in the table
//! `depth`; after any other end they are counted once, at the start.

use super::Moved;
use crate::store::quota::Quota;
use claudemesh_base::db::{Error, Tx};
use claudemesh_fsm::envelope::Envelope;
use claudemesh_fsm::outbox::Status;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a row weighs beside its payload and meta: keys, ids, schedule, and its part of the indexes.
pub(super) const ROW_OVERHEAD_BYTES: u64 = 512;
/// The states that count against `outbox.max_bytes` (§1.2).
const LIVE: [Status; 3] = [Status::Pending, Status::Inflight, Status::Dead];

/// How many rows there are in each state, and their weight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    rows: [u64; Status::ALL.len()],
    bytes: [u64; Status::ALL.len()],
}

impl Depth {
    /// The number of rows in `status`.
    #[must_use]
    pub const fn of(&self, status: Status) -> u64 {
        self.rows[status as usize]
    }

    /// The weight of pending, inflight and dead rows, in bytes.
    #[must_use]
    pub fn live_bytes(&self) -> u64 {
        LIVE.iter().map(|status| self.bytes[*status as usize]).sum()
    }

    /// This and `other` together.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        let add = |sum: &mut [u64], more: &[u64]| {
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        };
        add(&mut self.rows, &other.rows);
        add(&mut self.bytes, &other.bytes);
        self
    }

    fn moved(&mut self, from: Option<Status>, to: Status, bytes: u64) {
        if let Some(from) = from {
            let from = from as usize;
            self.rows[from] = self.rows[from].saturating_sub(1);
            self.bytes[from] = self.bytes[from].saturating_sub(bytes);
        }
        self.rows[to as usize] += 1;
        self.bytes[to as usize] += bytes;
    }
}

/// What a row with this envelope weighs.
pub(super) fn row_bytes(envelope: &Envelope) -> u64 {
    let bytes = envelope.payload.len() + envelope.meta.as_ref().map_or(0, String::len);
    ROW_OVERHEAD_BYTES + bytes as u64
}

/// Reads the table `depth`.
pub(super) fn read(tx: &Tx<'_>) -> Result<BTreeMap<String, Depth>, Error> {
    collect(tx, "SELECT mesh, status, rows, bytes FROM depth")
}

/// Counts every row, in one scan: grouping them in SQL would sort them first, which takes four
/// times as long.
pub(super) fn count(tx: &Tx<'_>) -> Result<BTreeMap<String, Depth>, Error> {
    collect(tx, concat!("SELECT mesh, status, 1, 512 + ", row_bytes_sql!(), " FROM outbox"))
}
const _: () = assert!(ROW_OVERHEAD_BYTES == 512, "the statement above has the number too");

/// Writes the table `depth` anew.
pub(super) fn write(tx: &Tx<'_>, depths: &BTreeMap<String, Depth>) -> Result<(), Error> {
    tx.execute("DELETE FROM depth", &[])?;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    for (mesh, depth) in depths {
        for status in Status::ALL {
            let (rows, bytes) = (depth.rows[status as usize], depth.bytes[status as usize]);
            let sql = "INSERT INTO depth VALUES (?, ?, ?, ?)";
            let of = [mesh.into(), status.as_str().into()];
            tx.execute(sql, &[of[0], of[1], number(rows).into(), number(bytes).into()])?;
        }
    }
    Ok(())
}

/// Adds up lines of a mesh, a state, a number of rows and their weight.
fn collect(tx: &Tx<'_>, sql: &'static str) -> Result<BTreeMap<String, Depth>, Error> {
    let mut depths = BTreeMap::<String, Depth>::new();
    tx.query(sql, &[], |row| {
        let (mesh, status) = (row.text(0)?, row.text(1)?);
        let status = Status::parse(&status)
            .ok_or_else(|| Error::corrupt(format_args!("status `{status}`")))?;
        let depth = depths.entry(mesh).or_default();
        depth.rows[status as usize] += u64::try_from(row.int(2)?).unwrap_or(0);
        depth.bytes[status as usize] += u64::try_from(row.int(3)?).unwrap_or(0);
        Ok(())
    })?;
    Ok(depths)
}

/// The depths in memory, and what is on its way to the disk.
pub(super) struct DepthCounters {
    kept: Mutex<Kept>,
    quota: Quota,
}

#[derive(Default)]
struct Kept {
    per_mesh: BTreeMap<String, Depth>,
    live_bytes: u64,
    reserved_bytes: u64,
}

/// Room that was found for one row. Dropping it gives it back: by then the row is counted, or will
/// never be stored.
pub(super) struct Reservation {
    depths: Arc<DepthCounters>,
    bytes: u64,
}

impl DepthCounters {
    pub(super) fn new(quota: Quota) -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), quota })
    }

    pub(super) const fn quota(&self) -> &Quota {
        &self.quota
    }

    pub(super) fn per_mesh(&self) -> BTreeMap<String, Depth> {
        self.lock().per_mesh.clone()
    }

    /// All of it anew: a state that no row is in any more has no line to say so.
    pub(super) fn replace(&self, per_mesh: BTreeMap<String, Depth>) {
        let mut kept = self.lock();
        kept.live_bytes = per_mesh.values().map(Depth::live_bytes).sum();
        kept.per_mesh = per_mesh;
        let live_bytes = kept.live_bytes;
        drop(kept);
        self.quota.set_outbox_bytes(live_bytes);
    }

    pub(super) fn moved(&self, moved: &Moved) {
        let mut kept = self.lock();
        let depth = kept.per_mesh.entry(moved.mesh.clone()).or_default();
        depth.moved(moved.from, moved.status, moved.bytes);
        let is_live = |status: Status| LIVE.contains(&status);
        match (moved.from.is_some_and(is_live), is_live(moved.status)) {
            (true, false) => kept.live_bytes = kept.live_bytes.saturating_sub(moved.bytes),
            (false, true) => kept.live_bytes += moved.bytes,
            _ => return,
        }
        let live_bytes = kept.live_bytes;
        drop(kept);
        self.quota.set_outbox_bytes(live_bytes);
    }

    /// A row that a stop left inflight waits again; it weighs what it weighed.
    pub(super) fn returned(&self, mesh: &str, bytes: u64) {
        let mut kept = self.lock();
        let depth = kept.per_mesh.entry(mesh.to_owned()).or_default();
        depth.moved(Some(Status::Inflight), Status::Pending, bytes);
    }

    /// Finds room for a row, beside everything that is stored or on its way.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, Error> {
        let mut kept = self.lock();
        self.quota.admit_row(kept.live_bytes + kept.reserved_bytes, bytes)?;
        kept.reserved_bytes += bytes;
        drop(kept);
        Ok(Reservation { depths: self.clone(), bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut kept = self.depths.lock();
        kept.reserved_bytes = kept.reserved_bytes.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests;
