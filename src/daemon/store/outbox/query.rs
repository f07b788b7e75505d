//! Reading `outbox.db` for people: one row without its payload, and pages of them.

use super::receipt::{self, StoredReceipt};
use claudemesh_base::db::{Columns, Error, Param, Tx};
use claudemesh_fsm::envelope::{Destination, Encryption};
use claudemesh_fsm::id::{ClientMessageId, Millis, RowId};
use claudemesh_fsm::outbox::Status;
use std::collections::BTreeMap;

pub(super) fn oldest_waiting(tx: &Tx<'_>) -> Result<BTreeMap<String, Millis>, Error> {
    let pending =
        "SELECT mesh, min(enqueued_at) FROM outbox WHERE status = 'pending' GROUP BY mesh";
    let inflight =
        "SELECT mesh, min(enqueued_at) FROM outbox WHERE status = 'inflight' GROUP BY mesh";
    let mut oldest = BTreeMap::new();
    for sql in [pending, inflight] {
        for (mesh, at) in tx.query(sql, &[], |row| Ok((row.text(0)?, Millis(row.int(1)?))))? {
            oldest
                .entry(mesh)
                .and_modify(|known: &mut Millis| *known = at.min(*known))
                .or_insert(at);
        }
    }
    Ok(oldest)
}

/// A row as the API shows it: everything but the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the column of the same name")]
pub struct RowView {
    pub id: String,
    pub client_message_id: String,
    pub mesh: String,
    /// As the caller wrote it.
    pub to: String,
    /// How it travels.
    pub encryption: Encryption,
    pub status: Status,
    pub attempts: i64,
    pub enqueued_at: Millis,
    pub next_attempt_at: Millis,
    pub delivered_at: Option<Millis>,
    pub broker_message_id: Option<String>,
    pub history_id: Option<String>,
    pub last_error: Option<String>,
    pub aborted_at: Option<Millis>,
    pub aborted_by: Option<String>,
    pub superseded_by: Option<String>,
    pub may_have_been_sent: bool,
    pub payload_bytes: i64,
    /// Where the row stands in the order of insertion: the cursor of a page.
    pub seq: i64,
    /// What the broker told since it is done (§4.13).
    pub receipt: Option<StoredReceipt>,
}

macro_rules! view_columns {
    ($tail:literal) => {
        concat!(
            "SELECT id, client_message_id, mesh, destination_kind, destination_ref, status, \
             attempts, enqueued_at, next_attempt_at, delivered_at, broker_message_id, history_id, \
             last_error, aborted_at, aborted_by, superseded_by, ",
            may_have_been_sent!(),
            ", length(payload), outbox.seq, recipients, stored, expired, updated_at \
             FROM outbox LEFT JOIN receipt ON receipt.seq = outbox.seq ",
            $tail
        )
    };
}

fn read_view(row: &Columns<'_, '_>) -> Result<RowView, Error> {
    let (kind, reference, status) = (row.text(3)?, row.text(4)?, row.text(5)?);
    let destination = Destination::restore(&kind, &reference)
        .ok_or_else(|| Error::corrupt(format_args!("destination `{kind}` `{reference}`")))?;
    Ok(RowView {
        id: row.text(0)?,
        client_message_id: row.text(1)?,
        mesh: row.text(2)?,
        to: destination.to_text(),
        encryption: destination.encryption(),
        status: Status::parse(&status)
            .ok_or_else(|| Error::corrupt(format_args!("status `{status}`")))?,
        attempts: row.int(6)?,
        enqueued_at: Millis(row.int(7)?),
        next_attempt_at: Millis(row.int(8)?),
        delivered_at: row.int_or_null(9)?.map(Millis),
        broker_message_id: row.text_or_null(10)?,
        history_id: row.text_or_null(11)?,
        last_error: row.text_or_null(12)?,
        aborted_at: row.int_or_null(13)?.map(Millis),
        aborted_by: row.text_or_null(14)?,
        superseded_by: row.text_or_null(15)?,
        // An unanswered attempt counts while it is under way, too.
        may_have_been_sent: row.int(16)? != 0,
        payload_bytes: row.int(17)?,
        seq: row.int(18)?,
        receipt: receipt::read(row, 19)?,
    })
}

pub(super) fn view(tx: &Tx<'_>, id: &ClientMessageId) -> Result<Option<RowView>, Error> {
    tx.query_row(view_columns!("WHERE client_message_id = ?"), &[id.as_str().into()], read_view)
}

pub(super) fn view_by_row_id(tx: &Tx<'_>, id: &RowId) -> Result<Option<RowView>, Error> {
    tx.query_row(view_columns!("WHERE id = ?"), &[id.as_str().into()], read_view)
}

/// Which rows of the outbox to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Only rows in this state.
    pub status: Option<Status>,
    /// Only rows of this mesh.
    pub mesh: Option<String>,
    /// Only rows older than this place.
    pub before_seq: Option<i64>,
    /// At most this many.
    pub limit: usize,
}

/// A page of rows, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The rows.
    pub rows: Vec<RowView>,
    /// Where the next page begins, if there is more.
    pub next_before_seq: Option<i64>,
}

pub(super) fn list(tx: &Tx<'_>, query: &ListQuery) -> Result<ListPage, Error> {
    let before = query.before_seq.unwrap_or(i64::MAX);
    // One more than asked for tells whether there is a next page.
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX - 1) + 1;
    let mesh = query.mesh.as_deref().map(Param::from);
    let status = query.status.map(|status| Param::Text(status.as_str()));
    let sql = match (&status, &mesh) {
        (None, None) => view_columns!("WHERE outbox.seq < ? ORDER BY outbox.seq DESC LIMIT ?"),
        (Some(_), None) => {
            view_columns!("WHERE status = ? AND outbox.seq < ? ORDER BY outbox.seq DESC LIMIT ?")
        }
        (None, Some(_)) => {
            view_columns!("WHERE mesh = ? AND outbox.seq < ? ORDER BY outbox.seq DESC LIMIT ?")
        }
        (Some(_), Some(_)) => {
            view_columns!(
                "WHERE status = ? AND mesh = ? AND outbox.seq < ? ORDER BY outbox.seq DESC LIMIT ?"
            )
        }
    };
    let bounds = [before.into(), limit.into()];
    let params: Vec<Param<'_>> = status.into_iter().chain(mesh).chain(bounds).collect();
    let mut rows = tx.query(sql, &params, read_view)?;
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    let next_before_seq = if more { rows.last().map(|row| row.seq) } else { None };
    Ok(ListPage { rows, next_before_seq })
}
