//! `inbox.db`: what arrived, once each (§4.10).

macro_rules! columns {
    ($($tail:tt)+) => {
        concat!(
            "SELECT seq, id, client_message_id, broker_message_id, mesh, topic, sender_pubkey, \
             sender_member_pubkey, sender_name, recipient_pubkey, recipient_kind, body, meta, \
             priority, subtype, encryption, created_at, received_at, seen_at, reply_to_id \
             FROM inbox ",
            $($tail)+
        )
    };
}

mod page;
mod prune;

pub use page::{InboxFilter, InboxPage};
pub use prune::{ClearFilter, InboxLimits, SEEN_OUTLIVES_MS};

use super::quota::Quota;
use super::schema;
use claudemesh_base::db::{Columns, Db, Driver, Durability, Error, Integrity, Kind, Param, Tx};
use claudemesh_fsm::envelope::Encryption;
use claudemesh_fsm::id::Millis;
use std::path::Path;

/// A message to be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the column of the same name")]
pub struct NewMessage {
    pub id: String,
    pub client_message_id: Option<String>,
    pub broker_message_id: String,
    pub mesh: String,
    pub topic: Option<String>,
    pub sender_pubkey: String,
    pub sender_member_pubkey: Option<String>,
    pub sender_name: Option<String>,
    pub recipient_pubkey: Option<String>,
    pub recipient_kind: Option<String>,
    /// `None` when no key opened it, or when it is no text.
    pub body: Option<String>,
    /// Canonical JSON.
    pub meta: Option<String>,
    pub priority: String,
    pub subtype: Option<String>,
    pub encryption: Encryption,
    pub created_at: Option<String>,
    pub received_at: Millis,
    pub reply_to_id: Option<String>,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its place in the inbox: never reused, the sequence half of an event id.
    pub seq: i64,
    /// What was stored.
    pub content: NewMessage,
    /// When it was marked as seen.
    pub seen_at: Option<Millis>,
}

/// Whether a message was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is in the inbox now, at this place.
    New {
        /// The place.
        seq: i64,
    },
    /// A copy was stored before; nothing changed.
    Duplicate,
}

/// A handle on `inbox.db`. Cheap to clone.
#[derive(Clone)]
pub struct Inbox {
    db: Db,
    epoch: String,
    quota: Quota,
}

impl Inbox {
    /// Opens or creates the database.
    pub fn open(path: &Path, driver: Driver) -> Result<Self, Error> {
        let db = Db::open(path, &schema::INBOX, driver)?;
        let epoch = |tx: &Tx<'_>| {
            let epoch = tx.query_row("SELECT value FROM epoch", &[], |row| row.text(0))?;
            epoch.ok_or_else(|| Error::corrupt("the inbox has no epoch"))
        };
        // Whoever sets the file aside and opens another must be alone with it.
        let epoch = smol::block_on(db.read(epoch)).inspect_err(|_| db.close())?;
        Ok(Self { db, epoch, quota: Quota::unlimited() })
    }

    /// The same inbox, which stores nothing while the disk has no room (§1.2).
    #[must_use]
    pub fn within(self, quota: Quota) -> Self {
        Self { quota, ..self }
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

    /// Names this database: event ids of another one mean nothing here (§3.5).
    #[must_use]
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Stores messages in order, each unless a copy is known, and commits to stable storage once.
    /// Only after this may they be acknowledged. A message no table will ever take fails alone.
    ///
    /// # Errors
    /// When there is no room or the commit fails: none is stored, and none may be acknowledged.
    pub async fn store(
        &self,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<(NewMessage, Result<Stored, Error>)>, Error> {
        let job = move |tx: &Tx<'_>| {
            let store = |message: NewMessage| match tx.nested(|tx| store_in(tx, &message)) {
                // Only what this message itself is at fault for is its own failure.
                Err(error) if error.kind() != Kind::Constraint => Err(error),
                stored => Ok((message, stored)),
            };
            messages.into_iter().map(store).collect()
        };
        self.quota.admit_inbound()?;
        let stored = self.db.write(Durability::Synced, job, |_| ()).await;
        self.quota.record_outcome(&stored, |stored: &Vec<_>| {
            stored.iter().any(|(_, stored)| matches!(stored, Ok(Stored::New { .. })))
        });
        stored
    }

    /// The newest place that was ever given to a message, also one that has left; 0 if none was.
    pub async fn newest_seq(&self) -> Result<i64, Error> {
        self.db.read(newest_seq).await
    }

    /// Messages after a place, oldest first: what a listener missed.
    pub async fn after(&self, seq: i64, limit: usize) -> Result<Vec<StoredMessage>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = columns!("WHERE seq > ? ORDER BY seq LIMIT ?");
        self.db.read(move |tx| tx.query(sql, &[seq.into(), limit.into()], read)).await
    }

    /// Marks messages as seen; says how many were unread.
    pub async fn mark_seen(&self, seqs: Vec<i64>, now: Millis) -> Result<usize, Error> {
        let job = move |tx: &Tx<'_>| {
            let sql = "UPDATE inbox SET seen_at = ? WHERE seq = ? AND seen_at IS NULL";
            let mut marked = 0;
            for seq in seqs {
                marked += tx.execute(sql, &[now.0.into(), seq.into()])?;
            }
            Ok(marked)
        };
        self.db.write(Durability::Relaxed, job, |_: &Result<usize, Error>| ()).await
    }

    /// As [`mark_seen`](Self::mark_seen), by the messages' ids; unknown ones are passed over.
    pub async fn mark_ids_seen(&self, ids: Vec<String>, now: Millis) -> Result<usize, Error> {
        let job = move |tx: &Tx<'_>| {
            let sql = "UPDATE inbox SET seen_at = ? WHERE id = ? AND seen_at IS NULL";
            let mut marked = 0;
            for id in ids {
                marked += tx.execute(sql, &[now.0.into(), id.as_str().into()])?;
            }
            Ok(marked)
        };
        self.db.write(Durability::Relaxed, job, |_: &Result<usize, Error>| ()).await
    }

    /// Finishes what was queued and closes the file. Blocks.
    pub fn close(&self) {
        self.db.close();
    }
}

fn store_in(tx: &Tx<'_>, message: &NewMessage) -> Result<Stored, Error> {
    let sender = message.sender_member_pubkey.as_deref().unwrap_or(&message.sender_pubkey);
    // Either unique key may say that a copy is known; both are left untouched then. The place is
    // the one that the message gets below.
    let is_new = tx.execute(
        "INSERT INTO seen (mesh, broker_message_id, sender, client_message_id, first_seen_at, \
         inbox_seq) VALUES (?, ?, ?, ?, ?, \
         1 + coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'inbox'), 0)) \
         ON CONFLICT DO NOTHING",
        &[
            message.mesh.as_str().into(),
            message.broker_message_id.as_str().into(),
            sender.into(),
            message.client_message_id.as_deref().into(),
            message.received_at.0.into(),
        ],
    )? > 0;
    if !is_new {
        return Ok(Stored::Duplicate);
    }
    let seq = tx.query_row(
        "INSERT INTO inbox (id, client_message_id, broker_message_id, mesh, topic, sender_pubkey, \
         sender_member_pubkey, sender_name, recipient_pubkey, recipient_kind, body, meta, \
         priority, subtype, encryption, created_at, received_at, reply_to_id, undecryptable) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
        &[
            message.id.as_str().into(),
            message.client_message_id.as_deref().into(),
            message.broker_message_id.as_str().into(),
            message.mesh.as_str().into(),
            message.topic.as_deref().into(),
            message.sender_pubkey.as_str().into(),
            message.sender_member_pubkey.as_deref().into(),
            message.sender_name.as_deref().into(),
            message.recipient_pubkey.as_deref().into(),
            message.recipient_kind.as_deref().into(),
            message.body.as_ref().map(|body| Param::Blob(body.as_bytes())).into(),
            message.meta.as_deref().into(),
            message.priority.as_str().into(),
            message.subtype.as_deref().into(),
            message.encryption.as_str().into(),
            message.created_at.as_deref().into(),
            message.received_at.0.into(),
            message.reply_to_id.as_deref().into(),
            message.body.is_none().into(),
        ],
        |row| row.int(0),
    )?;
    let seq = seq.ok_or_else(|| Error::corrupt("an insert returned no row"))?;
    Ok(Stored::New { seq })
}

/// Not the place of the newest message that is there: the inbox may have been cleared.
fn newest_seq(tx: &Tx<'_>) -> Result<i64, Error> {
    let sql = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'inbox'";
    Ok(tx.query_row(sql, &[], |row| row.int(0))?.unwrap_or(0))
}

fn read(row: &Columns<'_, '_>) -> Result<StoredMessage, Error> {
    let body = row.blob_or_null(11)?.map(String::from_utf8).transpose();
    let content = NewMessage {
        id: row.text(1)?,
        client_message_id: row.text_or_null(2)?,
        broker_message_id: row.text(3)?,
        mesh: row.text(4)?,
        topic: row.text_or_null(5)?,
        sender_pubkey: row.text(6)?,
        sender_member_pubkey: row.text_or_null(7)?,
        sender_name: row.text_or_null(8)?,
        recipient_pubkey: row.text_or_null(9)?,
        recipient_kind: row.text_or_null(10)?,
        body: body.map_err(|_| Error::corrupt("an inbox body is not UTF-8"))?,
        meta: row.text_or_null(12)?,
        priority: row.text(13)?,
        subtype: row.text_or_null(14)?,
        encryption: Encryption::parse(&row.text(15)?).unwrap_or(Encryption::None),
        created_at: row.text_or_null(16)?,
        received_at: Millis(row.int(17)?),
        reply_to_id: row.text_or_null(19)?,
    };
    Ok(StoredMessage { seq: row.int(0)?, content, seen_at: row.int_or_null(18)?.map(Millis) })
}
