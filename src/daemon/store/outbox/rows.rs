//! Reading `outbox.db` as the rows of `fsm`: one by its id, and those that are due.

use claudemesh_base::db::{Columns, Error, Tx};
use claudemesh_fsm::envelope::Priority;
use claudemesh_fsm::id::{ClientMessageId, Millis, RowId};
use claudemesh_fsm::outbox::{AnyRow, Pending, Row, RowRecord};

const CLAIM_ORDER: [Priority; 3] = [Priority::Now, Priority::Next, Priority::Low];

macro_rules! all_columns {
    ($tail:literal) => {
        concat!(
            "SELECT id, client_message_id, request_fingerprint, payload, mesh, destination_kind, \
             destination_ref, recipient, recipient_member, priority, meta, reply_to_id, \
             mentions, enqueued_at, attempts, next_attempt_at, status, last_error, ",
            may_have_been_sent!(),
            ", delivered_at, broker_message_id, history_id, aborted_at, aborted_by, superseded_by \
             FROM outbox ",
            $tail
        )
    };
}

/// SQL: the due rows of a mesh and a priority, in the order of `outbox_due`: a million may be due
/// since the same moment, and a claim that sorts them would hold the writer for a second.
macro_rules! due_of_a_priority {
    () => {
        all_columns!(
            "WHERE mesh = ? AND status = 'pending' AND priority = ? AND next_attempt_at <= ? \
             ORDER BY next_attempt_at, enqueued_at, seq LIMIT ?"
        )
    };
}

fn record(row: &Columns<'_, '_>) -> Result<RowRecord, Error> {
    Ok(RowRecord {
        id: row.text(0)?,
        client_message_id: row.text(1)?,
        request_fingerprint: row.blob(2)?,
        payload: row.blob(3)?,
        mesh: row.text(4)?,
        destination_kind: row.text(5)?,
        destination_ref: row.text(6)?,
        recipient: row.text_or_null(7)?,
        recipient_member: row.text_or_null(8)?,
        priority: row.text(9)?,
        meta: row.text_or_null(10)?,
        reply_to_id: row.text_or_null(11)?,
        mentions: row.text_or_null(12)?,
        enqueued_at: row.int(13)?,
        attempts: row.int(14)?,
        next_attempt_at: row.int(15)?,
        status: row.text(16)?,
        last_error: row.text_or_null(17)?,
        may_have_been_sent: row.int(18)? != 0,
        delivered_at: row.int_or_null(19)?,
        broker_message_id: row.text_or_null(20)?,
        history_id: row.text_or_null(21)?,
        aborted_at: row.int_or_null(22)?,
        aborted_by: row.text_or_null(23)?,
        superseded_by: row.text_or_null(24)?,
    })
}

fn restore(row: &Columns<'_, '_>) -> Result<AnyRow, Error> {
    AnyRow::restore(record(row)?).map_err(Error::corrupt)
}

/// The row of a `client_message_id`, in whichever state it is.
pub(super) fn row(tx: &Tx<'_>, id: &ClientMessageId) -> Result<Option<AnyRow>, Error> {
    tx.query_row(all_columns!("WHERE client_message_id = ?"), &[id.as_str().into()], restore)
}

/// The row of a row id.
pub(super) fn row_by_row_id(tx: &Tx<'_>, id: &RowId) -> Result<Option<AnyRow>, Error> {
    tx.query_row(all_columns!("WHERE id = ?"), &[id.as_str().into()], restore)
}

/// Rows that are due.
#[derive(Default)]
pub(super) struct Due {
    /// In claim order: `now`, `next`, `low`, then the time they became due, then insertion.
    pub(super) rows: Vec<Row<Pending>>,
    /// Rows that make no sense any more, though SQLite finds the file whole: their `id`s, and why.
    pub(super) corrupt: Vec<(String, String)>,
}

impl Due {
    pub(super) fn len(&self) -> usize {
        self.rows.len() + self.corrupt.len()
    }
}

/// Rows that are due, up to `limit`. Whether each still waits, as `outbox_due` has it, only its own
/// row can say: SQLite takes a column that a partial index fixes from the index.
pub(super) fn due(tx: &Tx<'_>, mesh: &str, now: Millis, limit: usize) -> Result<Due, Error> {
    let mut due = Due::default();
    for priority in CLAIM_ORDER {
        let room = i64::try_from(limit - due.len()).unwrap_or(i64::MAX);
        if room == 0 {
            break;
        }
        let params = [mesh.into(), priority.as_str().into(), now.0.into(), room.into()];
        tx.query(due_of_a_priority!(), &params, |row| {
            let stored = record(row)?;
            let id = stored.id.clone();
            match AnyRow::restore(stored) {
                Ok(AnyRow::Pending(row)) => due.rows.push(row),
                Ok(_) => return Err(damaged_due_index(tx)),
                Err(why) => due.corrupt.push((id, why.to_string())),
            }
            Ok(())
        })?;
    }
    Ok(due)
}

/// The index has a row as one that waits, and the row has not. Nobody else writes in the transaction
/// that found it; passed over, it would be found at once again.
pub(super) fn damaged_due_index(tx: &Tx<'_>) -> Error {
    tx.damage("the index outbox_due lists a row that does not wait")
}

/// Whether a row waits, as the row has it.
pub(super) fn waits(tx: &Tx<'_>, id: &RowId) -> Result<bool, Error> {
    let sql = "SELECT status = 'pending' FROM outbox WHERE id = ?";
    let waits = tx.query_row(sql, &[id.as_str().into()], |row| row.int(0))?;
    Ok(waits == Some(1))
}

pub(super) fn next_due_at(tx: &Tx<'_>, mesh: &str) -> Result<Option<Millis>, Error> {
    let sql = "SELECT min(next_attempt_at) FROM outbox \
               WHERE mesh = ? AND status = 'pending' AND priority = ?";
    let mut earliest: Option<i64> = None;
    for priority in CLAIM_ORDER {
        let params = [mesh.into(), priority.as_str().into()];
        let found = tx.query_row(sql, &params, |row| row.int_or_null(0))?.flatten();
        earliest = earliest.into_iter().chain(found).min();
    }
    Ok(earliest.map(Millis))
}

#[cfg(test)]
mod tests {
    use super::super::Outbox;
    use super::*;
    use claudemesh_base::db::Driver;
    use std::sync::Arc;

    #[test]
    fn a_claim_sorts_nothing() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let path = dir.path().join("outbox.db");
        let outbox = Outbox::open(&path, Driver::Threaded, Arc::new(|_| ())).expect("opens");
        let explain = |tx: &Tx<'_>| {
            let sql = concat!("EXPLAIN QUERY PLAN ", due_of_a_priority!());
            let params = ["demo".into(), "next".into(), 1.into(), 64.into()];
            tx.query(sql, &params, |row| row.text(3))
        };
        let plan: Vec<String> = smol::block_on(outbox.db().read(explain)).expect("explains");
        assert!(plan[0].contains("USING INDEX outbox_due"), "{plan:?}");
        assert!(!plan.iter().any(|step| step.contains("B-TREE")), "{plan:?}");
    }
}
