//! Receipts: what the broker tells of a message after it took it (§4.13). Beside the rows, which are
//! final by then; a receipt only ever grows.

use super::Outbox;
use claudemesh_base::db::{Columns, Durability, Error, Tx};
use claudemesh_fsm::id::{Millis, RowId};
use claudemesh_fsm::outbox::Status;

/// What the broker told of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedReceipt {
    /// The caller's id.
    pub client_message_id: String,
    /// How many members it is for.
    pub recipients: u32,
    /// How many of them have stored it.
    pub stored: u32,
    /// How many will never get it.
    pub expired: u32,
}

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredReceipt {
    /// How many members it is for.
    pub recipients: u32,
    /// How many of them have stored it.
    pub stored: u32,
    /// How many will never get it.
    pub expired: u32,
    /// When the broker last told something new.
    pub updated_at: Millis,
}

impl StoredReceipt {
    /// Whether everybody it is for has stored it.
    #[must_use]
    pub const fn is_delivered(&self) -> bool {
        self.recipients > 0 && self.stored >= self.recipients
    }
}

/// Something new about a message: what listeners are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptUpdate {
    /// The caller's id.
    pub client_message_id: String,
    /// Where its row is.
    pub status: Status,
    /// The broker's id, once the row is done.
    pub broker_message_id: Option<String>,
    /// All that is known now.
    pub receipt: StoredReceipt,
}

/// Messages of which more may be learned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReceipts {
    /// Their `client_message_id`s.
    pub ids: Vec<String>,
    /// Where the next page begins; `None` after the last.
    pub next_after_seq: Option<i64>,
}

impl Outbox {
    /// Stores what the broker of `mesh` told, and says what of it is new. Receipts of messages that
    /// are not ours, not of that mesh, or given up are passed over.
    ///
    /// # Errors
    /// When the commit fails: nothing was stored, and the broker can be asked again.
    pub async fn store_receipts(
        &self,
        mesh: &str,
        reported: Vec<ReportedReceipt>,
        now: Millis,
    ) -> Result<Vec<ReceiptUpdate>, Error> {
        let mesh = mesh.to_owned();
        let job = move |tx: &Tx<'_>| {
            let mut updates = Vec::new();
            for receipt in &reported {
                updates.extend(store_in(tx, &mesh, receipt, now)?);
            }
            Ok(updates)
        };
        self.db.write(Durability::Relaxed, job, |_: &Result<_, Error>| ()).await
    }

    /// The messages of `mesh` whose receipts may still grow, oldest first, beyond `after_seq`.
    pub async fn open_receipts(
        &self,
        mesh: &str,
        after_seq: i64,
        limit: usize,
    ) -> Result<OpenReceipts, Error> {
        let mesh = mesh.to_owned();
        self.db.read(move |tx| open_in(tx, &mesh, after_seq, limit)).await
    }
}

/// A message is done: from now on its receipt is open. One that came first stays.
pub(super) fn begin(
    tx: &Tx<'_>,
    id: &RowId,
    recipients: u32,
    delivered_at: Millis,
) -> Result<(), Error> {
    let sql = "INSERT INTO receipt (seq, recipients, updated_at) \
               SELECT seq, ?, ? FROM outbox WHERE id = ? ON CONFLICT DO NOTHING";
    let params = [i64::from(recipients).into(), delivered_at.0.into(), id.as_str().into()];
    tx.execute(sql, &params).map(drop)
}

fn store_in(
    tx: &Tx<'_>,
    mesh: &str,
    reported: &ReportedReceipt,
    now: Millis,
) -> Result<Option<ReceiptUpdate>, Error> {
    let sql = "SELECT seq, status, broker_message_id FROM outbox \
               WHERE client_message_id = ? AND mesh = ? AND status <> 'aborted'";
    let id = &reported.client_message_id;
    let found = tx.query_row(sql, &[id.into(), mesh.into()], |row| {
        Ok((row.int(0)?, row.text(1)?, row.text_or_null(2)?))
    })?;
    let Some((seq, status, broker_message_id)) = found else { return Ok(None) };
    let status =
        Status::parse(&status).ok_or_else(|| Error::corrupt(format_args!("status `{status}`")))?;
    // What was told before may come again later: only what is more is new.
    let sql = "INSERT INTO receipt (seq, recipients, stored, expired, updated_at) \
               VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (seq) DO UPDATE \
               SET stored = max(stored, ?3), expired = max(expired, ?4), updated_at = ?5 \
               WHERE stored < ?3 OR expired < ?4 \
               RETURNING recipients, stored, expired, updated_at";
    let params = [
        seq.into(),
        i64::from(reported.recipients).into(),
        i64::from(reported.stored).into(),
        i64::from(reported.expired).into(),
        now.0.into(),
    ];
    let receipt = tx.query_row(sql, &params, |row| read(row, 0))?;
    Ok(receipt.flatten().map(|receipt| ReceiptUpdate {
        client_message_id: id.clone(),
        status,
        broker_message_id,
        receipt,
    }))
}

fn open_in(tx: &Tx<'_>, mesh: &str, after_seq: i64, limit: usize) -> Result<OpenReceipts, Error> {
    let params = [after_seq.into(), mesh.into(), i64::try_from(limit).unwrap_or(i64::MAX).into()];
    let found = tx.query(open_receipts!(), &params, |row| Ok((row.int(0)?, row.text(1)?)))?;
    let is_full = found.len() == limit;
    let next_after_seq = found.last().filter(|_| is_full).map(|(seq, _)| *seq);
    Ok(OpenReceipts { ids: found.into_iter().map(|(_, id)| id).collect(), next_after_seq })
}

/// Reads a receipt from four columns, the first at `at`; all are NULL where there is none.
pub(super) fn read(row: &Columns<'_, '_>, at: usize) -> Result<Option<StoredReceipt>, Error> {
    let count =
        |at| Ok::<_, Error>(row.int_or_null(at)?.and_then(|count| u32::try_from(count).ok()));
    let (Some(recipients), Some(stored), Some(expired), Some(updated_at)) =
        (count(at)?, count(at + 1)?, count(at + 2)?, row.int_or_null(at + 3)?)
    else {
        return Ok(None);
    };
    Ok(Some(StoredReceipt { recipients, stored, expired, updated_at: Millis(updated_at) }))
}
