//! Read-only connections, kept open between queries.

use super::{Error, Tx, open};
use sqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How many idle connections are kept.
const IDLE_MAX: usize = 4;

pub(super) struct Readers {
    path: PathBuf,
    /// `None` once closed.
    idle: Mutex<Option<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), idle: Mutex::new(Some(Vec::new())) }
    }

    pub(super) fn run<T, E: From<Error>>(
        &self,
        query: impl FnOnce(&Tx<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let connection = self.take()?;
        // One read transaction, so that a query of several statements sees one moment.
        connection.execute("BEGIN").map_err(Error::from)?;
        let result = query(&Tx::new(&connection));
        if connection.execute("ROLLBACK").is_ok() {
            self.put_back(connection);
        }
        result
    }

    fn take(&self) -> Result<Connection, Error> {
        let idle = match self.lock().as_mut() {
            None => return Err(Error::closed()),
            Some(idle) => idle.pop(),
        };
        idle.map_or_else(|| open::connect_read_only(&self.path), Ok)
    }

    fn put_back(&self, connection: Connection) {
        if let Some(idle) = self.lock().as_mut()
            && idle.len() < IDLE_MAX
        {
            idle.push(connection);
        }
    }

    pub(super) fn close(&self) {
        self.lock().take();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
