//! The ledger: what the broker remembers, and the only room of it that contains SQL (design: a
//! narrow seam, on SQLite today).
//!
//! Each method is one transaction that either commits whole or leaves nothing. The ledger knows no
//! connection and no clock; it is told the time.

mod accept;
mod audit;
mod check;
mod delivery;
mod fan_out;
mod members;
mod membership_status;
mod meshes;
mod receipts;
mod retention;
mod schema;
mod session_keys;
mod topics;
mod trusted_time;

pub(crate) use accept::{Accepted, IncomingMessage, NotAccepted, Refusal, Sender, Target};
pub(crate) use audit::{BY_BROKER, Entry};
pub use check::Check;
pub(crate) use delivery::{QueueFilter, QueuedMessage};
pub(crate) use members::{GROUPS_MAX, GroupError, Joined, Member, MemberState};
pub(crate) use meshes::{Invite, Mesh};
pub(crate) use receipts::ReceiptNotice;
pub(crate) use retention::Retention;
pub(crate) use topics::{TOPICS_MAX, TopicError, TopicKey, TopicRow};

use claudemesh_base::db::{Db, Driver, Durability, Error, Tx};
use std::path::Path;

/// The ledger's file in the broker's data directory.
const FILE_NAME: &str = "ledger.db";

/// A handle on the ledger. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ledger {
    db: Db,
}

impl Ledger {
    /// Opens or creates the ledger in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let db = Db::open(&dir.join(FILE_NAME), &schema::MIGRATIONS, Driver::Threaded)?;
        Ok(Self { db })
    }

    /// Whether `dir` holds a ledger.
    pub(crate) fn is_in(dir: &Path) -> bool {
        dir.join(FILE_NAME).exists()
    }

    /// Finishes what is queued and closes the file. Blocks.
    pub(crate) fn close(&self) {
        self.db.close();
    }

    /// Completes when a thread of the ledger panicked: nothing works any more then.
    pub(crate) async fn lost(&self) {
        self.db.lost().await;
    }

    /// What the file has room for without growing, in bytes.
    pub(crate) async fn reusable_bytes(&self) -> u64 {
        self.db.read::<_, Error, _>(|tx| Ok(reusable_bytes(tx))).await.unwrap_or(0)
    }

    /// Whether the database can be written (`GET /health/ready`).
    pub(crate) async fn is_writable(&self) -> bool {
        self.relaxed::<_, Error>(|_| Ok(())).await.is_ok()
    }

    /// Whether the database answers at all (`GET /health`).
    pub(crate) async fn is_up(&self) -> bool {
        self.db
            .read::<_, Error, _>(|tx| tx.query_row("SELECT 1", &[], |row| row.int(0)))
            .await
            .is_ok()
    }

    /// One synced transaction.
    async fn synced<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.db.write(Durability::Synced, job, |_| ()).await
    }

    /// One transaction that a power cut may forget.
    async fn relaxed<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.db.write(Durability::Relaxed, job, |_| ()).await
    }
}

/// What the file has room for without growing, in bytes: it does not become smaller, and what was
/// freed in it is used again first.
pub(crate) fn reusable_bytes(tx: &Tx<'_>) -> u64 {
    let one = |sql| tx.query_row(sql, &[], |row| row.int(0)).ok().flatten();
    let bytes = one("PRAGMA freelist_count").zip(one("PRAGMA page_size"));
    bytes.and_then(|(pages, size)| u64::try_from(pages * size).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
