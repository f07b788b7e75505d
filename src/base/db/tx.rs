//! Statements inside a transaction: parameters in, columns out, prepared once.

use super::Error;
use super::condition::Condition;
use sqlite::{Connection, State, Statement};
use std::cell::RefCell;
use std::collections::HashMap;

/// A value bound to a `?` of a statement.
#[derive(Debug, Clone, Copy)]
pub enum Param<'a> {
    /// SQL NULL.
    Null,
    /// An integer.
    Int(i64),
    /// Text without NUL: SQLite would stop reading there.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

impl<'a> From<&'a str> for Param<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Param<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Param<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Blob(bytes)
    }
}

impl From<i64> for Param<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Param<'_> {
    fn from(flag: bool) -> Self {
        Self::Int(i64::from(flag))
    }
}

impl<'a, T: Into<Param<'a>>> From<Option<T>> for Param<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The statements of one connection, inside whatever transaction is open on it.
///
/// Each distinct SQL text is prepared once per connection. SQL is `&'static str` so that it can
/// only be a constant: nothing a peer sent is ever part of a statement.
pub struct Tx<'c> {
    connection: &'c Connection,
    prepared: RefCell<HashMap<&'static str, Statement<'c>>>,
    /// Hears of damage.
    condition: Option<Condition>,
}

impl<'c> Tx<'c> {
    /// A transaction's view of a connection that its caller alone uses.
    pub fn new(connection: &'c Connection) -> Self {
        Self { connection, prepared: RefCell::new(HashMap::new()), condition: None }
    }

    /// The same, for a database in use: what its statements find out about the file is remembered.
    pub(super) fn watched(connection: &'c Connection, condition: &Condition) -> Self {
        Self { condition: Some(condition.clone()), ..Self::new(connection) }
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
        if let Some(condition) = &self.condition {
            condition.found(&error);
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
        if let (Err(error), Some(condition)) = (&outcome, &self.condition)
            && error.is_damage()
        {
            condition.found(error);
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

/// The columns of the row a query stands on, by position from 0.
pub struct Columns<'s, 'c> {
    statement: &'s Statement<'c>,
}

impl Columns<'_, '_> {
    /// An integer column; NULL reads as 0.
    ///
    /// # Errors
    /// SQLite's.
    pub fn int(&self, column: usize) -> Result<i64, Error> {
        Ok(self.statement.read::<i64, _>(column)?)
    }

    /// An integer column that may be NULL.
    ///
    /// # Errors
    /// SQLite's.
    pub fn int_or_null(&self, column: usize) -> Result<Option<i64>, Error> {
        Ok(self.statement.read::<Option<i64>, _>(column)?)
    }

    /// A text column.
    ///
    /// # Errors
    /// When it is NULL or not UTF-8.
    pub fn text(&self, column: usize) -> Result<String, Error> {
        Ok(self.statement.read::<String, _>(column)?)
    }

    /// A text column that may be NULL.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text_or_null(&self, column: usize) -> Result<Option<String>, Error> {
        Ok(self.statement.read::<Option<String>, _>(column)?)
    }

    /// A blob column; NULL reads as empty.
    ///
    /// # Errors
    /// SQLite's.
    pub fn blob(&self, column: usize) -> Result<Vec<u8>, Error> {
        Ok(self.statement.read::<Option<Vec<u8>>, _>(column)?.unwrap_or_default())
    }

    /// A blob column that may be NULL.
    ///
    /// # Errors
    /// SQLite's.
    pub fn blob_or_null(&self, column: usize) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.statement.read::<Option<Vec<u8>>, _>(column)?)
    }
}
