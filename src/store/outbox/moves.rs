//! Guarded moves inside their transaction, one `UPDATE` each (§4.5.2), and claims, which are many.

use super::depth::ROW_OVERHEAD_BYTES;
use super::{Moved, query};
use crate::db::{Error, Tx};
use claudemesh_fsm::id::{ClientMessageId, Millis, RowId};
use claudemesh_fsm::outbox::{Change, Guard, Inflight, Pending, Row, Unsettled, Verdict};
use std::convert::Infallible;

/// What a claim found.
#[derive(Debug)]
pub struct Claimed {
    /// Rows to send, in claim order.
    pub rows: Vec<Row<Inflight>>,
    /// Rows too old to send.
    pub expired: Vec<Row<Pending>>,
    /// Whether more rows may be due already.
    pub more: bool,
    /// When the next row is due, if none is now.
    pub next_due_at: Option<Millis>,
}

/// A claim whose commit is not decided yet.
pub(super) struct UnsettledClaim {
    pub(super) claims: Vec<(Unsettled<Pending, Inflight>, Applied)>,
    expired: Vec<Row<Pending>>,
    more: bool,
    next_due_at: Option<Millis>,
}

impl UnsettledClaim {
    pub(super) fn settle(self) -> Claimed {
        let settled = self.claims.into_iter().map(|(row, applied)| {
            // Another writer that was first has the row; it is not ours to send.
            row.settle(Ok::<_, Infallible>(applied.verdict)).ok().flatten()
        });
        Claimed {
            rows: settled.flatten().collect(),
            expired: self.expired,
            more: self.more,
            next_due_at: self.next_due_at,
        }
    }
}

pub(super) fn claim_due_in(
    tx: &Tx<'_>,
    mesh: &str,
    now: Millis,
    expired_before: Millis,
    limit: usize,
) -> Result<UnsettledClaim, Error> {
    let due = query::due(tx, mesh, now, limit)?;
    let more = due.len() == limit;
    let (expired, fresh): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|row| row.identity().enqueued_at < expired_before);
    let claim = |row: Row<Pending>| {
        let (guard, unsettled) = row.claim().split();
        Ok((unsettled, apply(tx, guard)?))
    };
    let claims = fresh.into_iter().map(claim).collect::<Result<Vec<_>, Error>>()?;
    let next_due_at = if more { None } else { query::next_due_at(tx, mesh)? };
    Ok(UnsettledClaim { claims, expired, more, next_due_at })
}

/// A guarded move inside its transaction: what the mover needs, and what listeners are told.
pub(super) struct Applied {
    pub(super) verdict: Verdict,
    pub(super) moved: Option<Moved>,
}

/// Spends a guard on its one `UPDATE` (§4.5.2).
pub(super) fn apply(tx: &Tx<'_>, guard: Guard) -> Result<Applied, Error> {
    let changed = update(tx, &guard)?;
    let moved = if changed > 0 { Some(moved_by(tx, &guard)?) } else { None };
    Ok(Applied { verdict: guard.applied(changed), moved })
}

fn update(tx: &Tx<'_>, guard: &Guard) -> Result<usize, Error> {
    let id = guard.id().as_str();
    let leaves = guard.leaves().as_str();
    let attempts = i64::from(guard.attempts());
    let attempts_after = i64::from(guard.attempts_after());
    match guard.change() {
        Change::Claimed => tx.execute(
            "UPDATE outbox SET status = 'inflight', attempts = ? \
             WHERE id = ? AND status = ? AND attempts = ?",
            &[attempts_after.into(), id.into(), leaves.into(), attempts.into()],
        ),
        Change::Done { broker_message_id, history_id, delivered_at } => tx.execute(
            "UPDATE outbox SET status = 'done', broker_message_id = ?, history_id = ?, \
             delivered_at = ?, may_have_been_sent = 0 WHERE id = ? AND status = ? AND attempts = ?",
            &[
                broker_message_id.as_str().into(),
                history_id.as_deref().into(),
                delivered_at.0.into(),
                id.into(),
                leaves.into(),
                attempts.into(),
            ],
        ),
        Change::Returned { next_attempt_at, last_error, may_have_been_sent, counts: _ } => tx
            .execute(
                "UPDATE outbox SET status = 'pending', next_attempt_at = ?, \
             last_error = coalesce(?, last_error), may_have_been_sent = ?, attempts = ? \
             WHERE id = ? AND status = ? AND attempts = ?",
                &[
                    next_attempt_at.0.into(),
                    last_error.as_deref().into(),
                    (*may_have_been_sent).into(),
                    attempts_after.into(),
                    id.into(),
                    leaves.into(),
                    attempts.into(),
                ],
            ),
        Change::Dead { last_error, may_have_been_sent } => tx.execute(
            "UPDATE outbox SET status = 'dead', last_error = ?, may_have_been_sent = ? \
             WHERE id = ? AND status = ? AND attempts = ?",
            &[
                last_error.as_str().into(),
                (*may_have_been_sent).into(),
                id.into(),
                leaves.into(),
                attempts.into(),
            ],
        ),
        Change::Aborted { aborted_at, aborted_by, superseded_by } => tx.execute(
            "UPDATE outbox SET status = 'aborted', aborted_at = ?, aborted_by = ?, \
             superseded_by = ? WHERE id = ? AND status = ? AND attempts = ?",
            &[
                aborted_at.0.into(),
                aborted_by.as_str().into(),
                superseded_by.as_ref().map(RowId::as_str).into(),
                id.into(),
                leaves.into(),
                attempts.into(),
            ],
        ),
    }
}

/// What listeners are told of a move that happened.
fn moved_by(tx: &Tx<'_>, guard: &Guard) -> Result<Moved, Error> {
    let sql = "SELECT mesh, client_message_id, broker_message_id, last_error, \
               octet_length(payload) + coalesce(octet_length(meta), 0) FROM outbox WHERE id = ?";
    let row = tx.query_row(sql, &[guard.id().as_str().into()], |row| {
        Ok(Moved {
            from: Some(guard.leaves()),
            mesh: row.text(0)?,
            client_message_id: ClientMessageId::trusted(row.text(1)?),
            status: guard.change().enters(),
            broker_message_id: row.text_or_null(2)?,
            last_error: row.text_or_null(3)?,
            bytes: ROW_OVERHEAD_BYTES + u64::try_from(row.int(4)?).unwrap_or(0),
        })
    })?;
    row.ok_or_else(|| Error::corrupt("a row vanished inside its own transaction"))
}
