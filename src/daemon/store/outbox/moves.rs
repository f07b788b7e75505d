//! Guarded moves inside their transaction, one `UPDATE` each (§4.5.2).

use super::depth::ROW_OVERHEAD_BYTES;
use super::{Moved, Outbox, receipt, rows};
use claudemesh_base::db::{Columns, Durability, Error, Param, Tx};
use claudemesh_fsm::id::{ClientMessageId, RowId};
use claudemesh_fsm::outbox::{Ack, AnyRow, Change, Guard, Row, State, Status, Step, Verdict};

impl Outbox {
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

    /// The broker acknowledged an attempt that had been given up: a pending row becomes done, any
    /// other is left as it is (§4.5.2). Says whether a row moved.
    pub async fn late_ack(
        &self,
        mesh: &str,
        id: &ClientMessageId,
        ack: Ack,
    ) -> Result<bool, Error> {
        let (mesh, id) = (mesh.to_owned(), id.clone());
        let outbox = self.clone();
        let job = move |tx: &Tx<'_>| match rows::row(tx, &id)? {
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
}

/// A guarded move inside its transaction: what the mover needs, and what listeners are told.
pub(super) struct Applied {
    pub(super) verdict: Verdict,
    pub(super) moved: Option<Moved>,
}

/// Spends a guard on its one `UPDATE` (§4.5.2).
pub(super) fn apply(tx: &Tx<'_>, guard: Guard) -> Result<Applied, Error> {
    let moved = update(tx, &guard)?;
    if moved.is_some() {
        follow(tx, &guard)?;
    }
    Ok(Applied { verdict: guard.applied(usize::from(moved.is_some())), moved })
}

/// What goes with a move that happened, beside its row.
fn follow(tx: &Tx<'_>, guard: &Guard) -> Result<(), Error> {
    match guard.change() {
        Change::Done { recipients: Some(recipients), delivered_at, .. } => {
            receipt::begin(tx, guard.id(), *recipients, *delivered_at)
        }
        // The walks that make finished rows small may have passed it already.
        Change::Aborted { .. } => {
            let sql = "INSERT OR IGNORE INTO left_behind (seq) SELECT seq FROM outbox WHERE id = ?";
            tx.execute(sql, &[guard.id().as_str().into()]).map(drop)
        }
        _ => Ok(()),
    }
}

/// The `UPDATE` of a move: what to set, and the guard; it gives what listeners are told.
macro_rules! guarded {
    ($($set:expr),+) => {
        concat!(
            "UPDATE outbox SET ",
            $($set,)+
            " WHERE id = ? AND status = ? AND attempts = ? \
             RETURNING mesh, client_message_id, broker_message_id, last_error, \
             ",
            row_bytes_sql!()
        )
    };
}

pub(super) fn read_moved(
    row: &Columns<'_, '_>,
    from: Status,
    status: Status,
) -> Result<Moved, Error> {
    Ok(Moved {
        from: Some(from),
        mesh: row.text(0)?,
        client_message_id: ClientMessageId::trusted(row.text(1)?),
        status,
        broker_message_id: row.text_or_null(2)?,
        last_error: row.text_or_null(3)?,
        bytes: row_bytes(row.int(4)?),
    })
}

/// What a row weighs, from what its own columns do (`row_bytes_sql`), in bytes.
pub(super) fn row_bytes(columns_bytes: i64) -> u64 {
    ROW_OVERHEAD_BYTES + u64::try_from(columns_bytes).unwrap_or(0)
}

/// What listeners are told of the move, if it happened.
fn update(tx: &Tx<'_>, guard: &Guard) -> Result<Option<Moved>, Error> {
    let attempts_after = i64::from(guard.attempts_after());
    let [id, leaves, attempts] = [
        guard.id().as_str().into(),
        guard.leaves().as_str().into(),
        i64::from(guard.attempts()).into(),
    ];
    let run = |sql: &'static str, params: &[Param<'_>]| {
        tx.query_row(sql, params, |row| read_moved(row, guard.leaves(), guard.change().enters()))
    };
    match guard.change() {
        Change::Claimed => run(
            guarded!("status = 'inflight', attempts = ?"),
            &[attempts_after.into(), id, leaves, attempts],
        ),
        Change::Done { broker_message_id, history_id, delivered_at, recipients: _ } => run(
            guarded!(
                "status = 'done', broker_message_id = ?, history_id = ?, delivered_at = ?, \
                 may_have_been_sent = 0"
            ),
            &[
                broker_message_id.as_str().into(),
                history_id.as_deref().into(),
                delivered_at.0.into(),
                id,
                leaves,
                attempts,
            ],
        ),
        Change::Returned { next_attempt_at, last_error, may_have_been_sent, counts: _ } => run(
            guarded!(
                "status = 'pending', next_attempt_at = ?, last_error = coalesce(?, last_error), \
                 may_have_been_sent = ?, attempts = ?"
            ),
            &[
                next_attempt_at.0.into(),
                last_error.as_deref().into(),
                (*may_have_been_sent).into(),
                attempts_after.into(),
                id,
                leaves,
                attempts,
            ],
        ),
        Change::Dead { last_error, may_have_been_sent } => run(
            guarded!("status = 'dead', last_error = ?, may_have_been_sent = ?"),
            &[last_error.as_str().into(), (*may_have_been_sent).into(), id, leaves, attempts],
        ),
        Change::Aborted { aborted_at, aborted_by, superseded_by } => run(
            guarded!(
                "status = 'aborted', aborted_at = ?, aborted_by = ?, superseded_by = ?, \
                 may_have_been_sent = ",
                may_have_been_sent!()
            ),
            &[
                aborted_at.0.into(),
                aborted_by.as_str().into(),
                superseded_by.as_ref().map(RowId::as_str).into(),
                id,
                leaves,
                attempts,
            ],
        ),
    }
}
