//! Statements inside a transaction, each prepared once.

use super::Error;
use super::integrity::IntegrityMonitor;
use super::values::{Columns, Param};
use sqlite::{Connection, State, Statement};
use std::cell::RefCell;
use std::collections::HashMap;

/// The statements of one connection, inside whatever transaction is open on it.
///
/// Each distinct SQL text is prepared once per connection. SQL is `&'static str` so that it can
/// only be a constant: nothing a peer sent is ever part of a statement.
pub struct Tx<'c> {
    connection: &'c Connection,
    prepared: RefCell<HashMap<&'static str, Statement<'c>>>,
    /// Hears of damage.
    integrity: Option<IntegrityMonitor>,
}

impl<'c> Tx<'c> {
    /// A transaction's view of a connection that its caller alone uses.
    pub fn new(connection: &'c Connection) -> Self {
        Self { connection, prepared: RefCell::new(HashMap::new()), integrity: None }
    }

    /// The same, for a database in use: what its statements find out about the file is remembered.
    pub(super) fn monitored(connection: &'c Connection, integrity: &IntegrityMonitor) -> Self {
        Self { integrity: Some(integrity.clone()), ..Self::new(connection) }
    }

    /// Runs a statement to its end and says how many rows it changed.
    ///
    /// # Errors
    /// SQLite's.
    pub fn execute(&self, sql: &'static str, params: &[Param<'_>]) -> Result<usize, Error> {
        self.run(sql, params, |_| Ok(()))?;
        Ok(self.connection.change_count())
    }

    /// Every row of a query, each read by `read`.
    ///
    /// # Errors
    /// SQLite's, or `read`'s.
    pub fn query<T>(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
        mut read: impl FnMut(&Columns<'_, 'c>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut rows = Vec::new();
        self.run(sql, params, |columns| {
            rows.push(read(columns)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The only row of a query, or `None`.
    ///
    /// # Errors
    /// SQLite's, or `read`'s.
    pub fn query_row<T>(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
        read: impl FnMut(&Columns<'_, 'c>) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        self.query(sql, params, read).map(|rows| rows.into_iter().next())
    }

    /// The rows contradict each other: the file is damaged, and that is remembered like SQLite's own
    /// finding. The caller fails with what this gives.
    #[must_use]
    pub fn damage(&self, found: &str) -> Error {
        let error = Error::damaged(found);
        if let Some(integrity) = &self.integrity {
            integrity.record_damage(&error);
        }
        error
    }

    /// Runs `part` so that its failure undoes its own statements alone.
    ///
    /// # Errors
    /// `part`'s, after the rollback; or SQLite's, when even that fails.
    pub fn nested<T, E: From<Error>>(
        &self,
        part: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.execute("SAVEPOINT nested", &[])?;
        let result = part(self);
        if result.is_err() {
            self.execute("ROLLBACK TO nested", &[])?;
        }
        self.execute("RELEASE nested", &[])?;
        result
    }

    fn run(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
        on_row: impl FnMut(&Columns<'_, 'c>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let outcome = self.run_prepared(sql, params, on_row);
        if let (Err(error), Some(integrity)) = (&outcome, &self.integrity)
            && error.is_damage()
        {
            integrity.record_damage(error);
        }
        outcome
    }

    fn run_prepared(
        &self,
        sql: &'static str,
        params: &[Param<'_>],
        mut on_row: impl FnMut(&Columns<'_, 'c>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Taken out while it runs, so that a row's reader may run statements of its own.
        let cached = self.prepared.borrow_mut().remove(sql);
        let mut statement = match cached {
            Some(statement) => statement,
            None => self.connection.prepare(sql)?,
        };
        let outcome = step_through(&mut statement, params, &mut on_row);
        // A statement left unreset would hold the transaction open past its COMMIT.
        let reset = statement.reset();
        if outcome.is_ok() {
            self.prepared.borrow_mut().insert(sql, statement);
            reset?;
        }
        outcome
    }
}

fn step_through<'c>(
    statement: &mut Statement<'c>,
    params: &[Param<'_>],
    on_row: &mut impl FnMut(&Columns<'_, 'c>) -> Result<(), Error>,
) -> Result<(), Error> {
    for (position, param) in params.iter().enumerate() {
        let index = position + 1;
        match *param {
            Param::Null => statement.bind((index, ()))?,
            Param::Int(number) => statement.bind((index, number))?,
            Param::Text(text) => statement.bind((index, text))?,
            Param::Blob(bytes) => statement.bind((index, bytes))?,
        }
    }
    while statement.next()? == State::Row {
        on_row(&Columns { statement })?;
    }
    Ok(())
}
