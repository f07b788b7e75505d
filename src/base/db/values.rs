//! What goes into a statement and what comes out of it.

use super::Error;
use sqlite::Statement;

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

/// The columns of the row a query stands on, by position from 0.
pub struct Columns<'s, 'c> {
    pub(super) statement: &'s Statement<'c>,
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
