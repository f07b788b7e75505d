//! Finished rows grow small: first the body goes, later everything that no retry is answered from
//! (§4.5.2).
//!
//! What stays for ever is id, `client_message_id`, fingerprint, mesh, destination, status, broker
//! ids, and who aborted it when and for which successor. Done and aborted rows alone shrink; nothing
//! here makes a move, and nothing touches a row that may still make one.
//!
//! No index finds the rows: the hot path would pay for it with every message. Two walks go through
//! the table in the order of insertion, each remembering where it got to. A row that is not finished
//! when a walk comes by is left behind on a list, and a row that an operator retires is put there
//! too; the list is gone through each time.

use super::Outbox;
use crate::store::{batch, trusted_time};
use claudemesh_base::db::{Columns, Durability, Error, Tx};
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::outbox::Status;

/// The age at which the body of a finished row is emptied, in milliseconds.
pub const EMPTIED_AFTER_MS: i64 = 7 * trusted_time::DAY_MS;
/// The age at which a finished row shrinks, in milliseconds.
pub const SHRUNK_AFTER_MS: i64 = 30 * trusted_time::DAY_MS;
/// Where the retention of the outbox stands within one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ShrinkPhase {
    /// Emptying bodies, from where the last pass ended.
    #[default]
    Bodies,
    /// Shrinking rows, from where the last pass ended.
    Rows,
    /// Going through what was left behind, after this place.
    LeftBehind(i64),
}

/// What one small step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShrinkStep {
    /// Rows that are smaller now.
    pub rows: usize,
    /// What comes next, if this pass is not over.
    pub next: Option<ShrinkPhase>,
}

/// A row, as far as its age matters.
struct AgedRow {
    seq: i64,
    status: Status,
    aborted_at: Option<i64>,
    payload_bytes: i64,
}

/// Places up to which rows are old enough.
struct AgeLimits {
    emptied: i64,
    shrunk: i64,
}

/// What is to be done with a row now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ShrinkAction {
    /// It may be finished later, or is too young.
    Waits,
    /// Only an operator can finish it, and that puts it on the list.
    Passed,
    Emptied,
    Shrunk,
}

impl AgedRow {
    fn action(&self, limits: &AgeLimits, now: Millis) -> ShrinkAction {
        // An old row may have been aborted just now.
        let is_old = |limit: i64, after_ms: i64| {
            self.seq <= limit && self.aborted_at.is_none_or(|at| at <= now.0 - after_ms)
        };
        match self.status {
            Status::Pending | Status::Inflight => ShrinkAction::Waits,
            Status::Dead => ShrinkAction::Passed,
            Status::Done | Status::Aborted => {
                if is_old(limits.shrunk, SHRUNK_AFTER_MS) {
                    ShrinkAction::Shrunk
                } else if is_old(limits.emptied, EMPTIED_AFTER_MS) {
                    ShrinkAction::Emptied
                } else {
                    ShrinkAction::Waits
                }
            }
        }
    }
}

impl ShrinkPhase {
    const fn name(self) -> &'static str {
        match self {
            Self::Bodies => "bodies",
            Self::Rows => "rows",
            Self::LeftBehind(_) => "left behind",
        }
    }

    const fn after(self) -> Option<Self> {
        match self {
            Self::Bodies => Some(Self::Rows),
            Self::Rows => Some(Self::LeftBehind(0)),
            Self::LeftBehind(_) => None,
        }
    }

    /// Whether a row is to be looked at again once this walk has passed it.
    const fn is_revisited(self, action: ShrinkAction) -> bool {
        match (self, action) {
            // The walk over rows comes by later.
            (Self::Bodies, ShrinkAction::Emptied)
            | (_, ShrinkAction::Passed | ShrinkAction::Shrunk) => false,
            (_, ShrinkAction::Waits | ShrinkAction::Emptied) => true,
        }
    }
}

impl Outbox {
    /// The retention flow looks at the clock: what makes rows older.
    pub async fn observe_clock(&self, now: Millis) -> Result<(), Error> {
        let job = move |tx: &Tx<'_>| {
            let newest = tx.query_row("SELECT max(seq) FROM outbox", &[], |row| row.int(0))?;
            trusted_time::observe_clock(tx, now, newest.unwrap_or(0), SHRUNK_AFTER_MS)
        };
        self.db.write(Durability::Relaxed, job, |_: &Result<(), Error>| ()).await
    }

    /// One small transaction of a pass: makes some finished rows smaller.
    ///
    /// # Errors
    /// When the commit fails: then this step changed nothing.
    pub async fn shrink(&self, phase: ShrinkPhase, now: Millis) -> Result<ShrinkStep, Error> {
        // Looked for on a reader first: what is not cached is fetched where nobody waits for it.
        let (found, is_last, limits) = self.db.read(move |tx| find(tx, phase)).await?;
        let is_list = matches!(phase, ShrinkPhase::LeftBehind(_));
        if found.iter().all(|row| is_list && row.action(&limits, now) == ShrinkAction::Waits) {
            let same = found.last().map_or(phase, |row| ShrinkPhase::LeftBehind(row.seq));
            return Ok(ShrinkStep {
                rows: 0,
                next: if is_last { phase.after() } else { Some(same) },
            });
        }
        let job = move |tx: &Tx<'_>| shrink_in(tx, phase, now);
        self.db.write(Durability::Relaxed, job, |_: &Result<ShrinkStep, Error>| ()).await
    }
}

/// The next rows of a walk, as many as fit one transaction, and whether there are no more.
fn find(tx: &Tx<'_>, phase: ShrinkPhase) -> Result<(Vec<AgedRow>, bool, AgeLimits), Error> {
    let limits = AgeLimits {
        emptied: trusted_time::older_than(tx, EMPTIED_AFTER_MS)?,
        shrunk: trusted_time::older_than(tx, SHRUNK_AFTER_MS)?,
    };
    let rows_max = batch::ROWS_MAX as i64;
    let mut rows = match phase {
        ShrinkPhase::Bodies | ShrinkPhase::Rows => {
            let until = if phase == ShrinkPhase::Bodies { limits.emptied } else { limits.shrunk };
            let sql = "SELECT seq FROM shrink_walk WHERE name = ?";
            let after = tx.query_row(sql, &[phase.name().into()], |row| row.int(0))?.unwrap_or(0);
            let sql = "SELECT seq, status, aborted_at, length(payload) FROM outbox \
                       WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?";
            tx.query(sql, &[after.into(), until.into(), rows_max.into()], aged_row)?
        }
        ShrinkPhase::LeftBehind(after) => {
            let sql = "SELECT outbox.seq, status, aborted_at, length(payload) \
                       FROM left_behind CROSS JOIN outbox ON outbox.seq = left_behind.seq \
                       WHERE left_behind.seq > ? ORDER BY left_behind.seq LIMIT ?";
            tx.query(sql, &[after.into(), rows_max.into()], aged_row)?
        }
    };
    let fits = batch::fitting(rows.iter().map(|row| row.payload_bytes));
    let is_last = rows.len() < batch::ROWS_MAX && fits >= rows.len();
    rows.truncate(fits);
    Ok((rows, is_last, limits))
}

fn aged_row(row: &Columns<'_, '_>) -> Result<AgedRow, Error> {
    let status = row.text(1)?;
    Ok(AgedRow {
        seq: row.int(0)?,
        status: Status::parse(&status)
            .ok_or_else(|| Error::corrupt(format_args!("status `{status}`")))?,
        aborted_at: row.int_or_null(2)?,
        payload_bytes: row.int(3)?,
    })
}

fn shrink_in(tx: &Tx<'_>, phase: ShrinkPhase, now: Millis) -> Result<ShrinkStep, Error> {
    let (found, is_last, limits) = find(tx, phase)?;
    let mut rows = 0;
    for row in &found {
        let action = row.action(&limits, now);
        rows += match action {
            ShrinkAction::Waits | ShrinkAction::Passed => 0,
            ShrinkAction::Emptied => empty_body(tx, row.seq)?,
            ShrinkAction::Shrunk => shrink_row(tx, row.seq)?,
        };
        if phase.is_revisited(action) {
            tx.execute("INSERT OR IGNORE INTO left_behind (seq) VALUES (?)", &[row.seq.into()])?;
        } else if matches!(phase, ShrinkPhase::LeftBehind(_)) {
            tx.execute("DELETE FROM left_behind WHERE seq = ?", &[row.seq.into()])?;
        }
    }
    let last = found.last().map(|row| row.seq);
    let same = match (phase, last) {
        (ShrinkPhase::LeftBehind(after), last) => ShrinkPhase::LeftBehind(last.unwrap_or(after)),
        (phase, None) => phase,
        (phase, Some(seq)) => {
            let sql = "INSERT INTO shrink_walk (name, seq) VALUES (?1, ?2) \
                       ON CONFLICT (name) DO UPDATE SET seq = ?2";
            tx.execute(sql, &[phase.name().into(), seq.into()])?;
            phase
        }
    };
    Ok(ShrinkStep { rows, next: if is_last { phase.after() } else { Some(same) } })
}

/// A message is never empty, so an empty payload says that it was emptied.
fn empty_body(tx: &Tx<'_>, seq: i64) -> Result<usize, Error> {
    let sql = "UPDATE outbox SET payload = x'' \
               WHERE seq = ? AND status IN ('done', 'aborted') AND length(payload) > 0";
    tx.execute(sql, &[seq.into()])
}

/// A finished row is never due, so a due time of 0 says that it shrank.
pub(super) fn shrink_row(tx: &Tx<'_>, seq: i64) -> Result<usize, Error> {
    let sql = "UPDATE outbox SET payload = x'', recipient = NULL, recipient_member = NULL, \
               meta = NULL, reply_to_id = NULL, mentions = NULL, last_error = NULL, \
               next_attempt_at = 0 \
               WHERE seq = ? AND status IN ('done', 'aborted') AND next_attempt_at <> 0";
    tx.execute(sql, &[seq.into()])
}
