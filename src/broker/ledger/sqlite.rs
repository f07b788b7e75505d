//! The ledger on SQLite: the only room of the broker that contains SQL.

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

use super::*;
use claudemesh_base::db::{Db, Driver, Durability, Error, Tx};
use std::path::Path;

/// The ledger's file in the broker's data directory.
const FILE_NAME: &str = "ledger.db";

/// A ledger in a file of SQLite's. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SqliteLedger {
    db: Db,
}

impl Ledger for SqliteLedger {}

impl SqliteLedger {
    /// Opens or creates the ledger in `dir`.
    pub(crate) fn open(dir: &Path) -> Result<Self, LedgerError> {
        let db = Db::open(&dir.join(FILE_NAME), &schema::MIGRATIONS, Driver::Threaded)?;
        Ok(Self { db })
    }

    /// Whether `dir` holds a ledger.
    pub(crate) fn exists_in(dir: &Path) -> bool {
        dir.join(FILE_NAME).exists()
    }

    fn read<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T, E>
    where
        T: Send + 'static,
        E: From<Error>,
    {
        let db = self.db.clone();
        Box::pin(async move { Ok(db.read(job).await?) })
    }

    /// A query that may also refuse what it was asked.
    fn read_or_refuse<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Answer<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let db = self.db.clone();
        Box::pin(async move { db.read(job).await })
    }

    /// One synced transaction.
    fn synced<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        self.write(Durability::Synced, job)
    }

    /// One synced transaction that may also refuse what it was asked.
    fn synced_or_refuse<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Answer<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let db = self.db.clone();
        Box::pin(async move { db.write(Durability::Synced, job, |_| ()).await })
    }

    /// One transaction that a power cut may forget.
    fn relaxed<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        self.write(Durability::Relaxed, job)
    }

    fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        job: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Answer<T> {
        let db = self.db.clone();
        Box::pin(async move { Ok(db.write(durability, job, |_| ()).await?) })
    }
}

/// Free space inside the file, in bytes: the file does not become smaller, and SQLite uses what was
/// freed in it before it grows.
fn reusable_bytes(tx: &Tx<'_>) -> u64 {
    let one = |sql| tx.query_row(sql, &[], |row| row.int(0)).ok().flatten();
    let bytes = one("PRAGMA freelist_count").zip(one("PRAGMA page_size"));
    bytes.and_then(|(pages, size)| u64::try_from(pages * size).ok()).unwrap_or(0)
}

impl From<Error> for LedgerError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// The errors of the seam, made of a database's.
macro_rules! from_database {
    ($($error:ty),*) => {
        $(impl From<Error> for $error {
            fn from(error: Error) -> Self {
                Self::Failed(error.into())
            }
        })*
    };
}

from_database!(AcceptError, GroupError, TopicError);

#[cfg(test)]
mod tests;
