//! Prune (§4.5.2): an operator makes finished rows small at once, whatever their age.

use super::Outbox;
use super::shrink::shrink_row;
use crate::store::batch;
use claudemesh_base::db::{Durability, Error, Tx};
use claudemesh_fsm::id::Millis;

/// How many rows one call of [`Outbox::prune`] looks at: a caller waits for as many syncs as it
/// takes to shrink them.
const SCANNED_MAX: usize = 16 * batch::SCANNED_MAX;

/// Which rows an operator wants to be small at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneQuery {
    /// Those that were done or aborted before this instant.
    pub before: Millis,
    /// From this place on.
    pub after_seq: i64,
    /// Shrink them; else only count.
    pub confirm: bool,
}

/// What one call of [`Outbox::prune`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneProgress {
    /// Rows that shrank, or would.
    pub rows: usize,
    /// Where to go on, if rows are left to look at.
    pub next_after_seq: Option<i64>,
}

impl Outbox {
    /// Shrinks, or counts, rows that were finished before an instant, without waiting for their
    /// age. Looks at a bounded number of rows.
    ///
    /// # Errors
    /// When a commit fails: what was committed before stays.
    pub async fn prune(&self, query: PruneQuery) -> Result<PruneProgress, Error> {
        let PruneQuery { before, mut after_seq, confirm } = query;
        let (mut rows, mut looked) = (0, 0);
        while looked < SCANNED_MAX {
            let page = self.db.read(move |tx| prunable(tx, before, after_seq)).await?;
            let Some(last) = page.last() else {
                return Ok(PruneProgress { rows, next_after_seq: None });
            };
            (after_seq, looked) = (last.seq, looked + page.len());
            let old: Vec<_> = page.into_iter().filter(|row| row.is_prunable).collect();
            rows += if confirm { self.shrink_all(&old).await? } else { old.len() };
        }
        Ok(PruneProgress { rows, next_after_seq: Some(after_seq) })
    }

    async fn shrink_all(&self, mut rows: &[Prunable]) -> Result<usize, Error> {
        let mut shrunk = 0;
        while !rows.is_empty() {
            let (now, later) = rows.split_at(batch::fitting(rows.iter().map(|r| r.payload_bytes)));
            let seqs: Vec<i64> = now.iter().map(|row| row.seq).collect();
            let job = move |tx: &Tx<'_>| {
                seqs.iter().try_fold(0, |sum, seq| Ok(sum + shrink_row(tx, *seq)?))
            };
            // Synced: an operator was promised it.
            let done = self.db.write(Durability::Synced, job, |_: &Result<usize, Error>| ());
            shrunk += done.await?;
            rows = later;
        }
        Ok(shrunk)
    }
}

/// A row a prune looks at.
struct Prunable {
    seq: i64,
    payload_bytes: i64,
    is_prunable: bool,
}

fn prunable(tx: &Tx<'_>, before: Millis, after_seq: i64) -> Result<Vec<Prunable>, Error> {
    let sql = "SELECT seq, length(payload), next_attempt_at <> 0 AND \
               (status = 'done' AND delivered_at < ?1 OR status = 'aborted' AND aborted_at < ?1) \
               FROM outbox WHERE seq > ?2 ORDER BY seq LIMIT ?3";
    let params = [before.0.into(), after_seq.into(), (batch::SCANNED_MAX as i64).into()];
    tx.query(sql, &params, |row| {
        Ok(Prunable { seq: row.int(0)?, payload_bytes: row.int(1)?, is_prunable: row.int(2)? != 0 })
    })
}
