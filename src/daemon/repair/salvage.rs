//! Saving what can still be read of a damaged database (§4.11), into a new one of the same schema.
//!
//! Knows no table: rows are copied value by value, and whoever knows them judges each one. The
//! damaged file is only read. A page that cannot be read takes its own rows with it and no others:
//! a scan that fails goes on behind the damage, row by row, and at the end every row that a scan
//! did not meet is looked up by its number.

mod copy;
mod source;
mod target;

use claudemesh_base::db::{Error, Migrations, open};
use copy::TableCopy;
use source::Source;
use sqlite::Value;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use target::Target;

/// One row on its way.
pub(super) struct SavedRow {
    names: Arc<[String]>,
    values: Vec<Value>,
}

impl SavedRow {
    /// A column that holds text.
    #[must_use]
    pub(super) fn text(&self, column: &str) -> Option<&str> {
        match self.value(column) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A column that holds an integer.
    #[must_use]
    pub(super) fn int(&self, column: &str) -> Option<i64> {
        match self.value(column) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// A column that holds bytes.
    #[must_use]
    pub(super) fn blob(&self, column: &str) -> Option<&[u8]> {
        match self.value(column) {
            Some(Value::Binary(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// Whether a column is NULL, or not there.
    #[must_use]
    pub(super) fn is_null(&self, column: &str) -> bool {
        matches!(self.value(column), None | Some(Value::Null))
    }

    /// Puts another value in a column.
    pub(super) fn set(&mut self, column: &str, value: impl Into<Value>) {
        if let Some(at) = self.names.iter().position(|name| name == column) {
            self.values[at] = value.into();
        }
    }

    fn value(&self, column: &str) -> Option<&Value> {
        self.names.iter().position(|name| name == column).map(|at| &self.values[at])
    }
}

/// What becomes of a row that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is kept as it was read.
    Sound,
    /// It is kept as it was changed; why.
    Repaired(String),
    /// It makes no sense and is left out; why.
    Refused(String),
}

/// What its owner knows of a schema.
pub(super) struct Rules {
    /// Tables that follow from the others.
    pub derived: &'static [&'static str],
    /// Judges a row of a table, and may change it.
    pub judge: fn(&str, &mut SavedRow) -> Judgement,
    /// Statements for the new database, once every row is in it.
    pub finish: &'static str,
}

/// A row that was not kept as it was, by its number, or numbers between which rows were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The first row's number.
    pub first: i64,
    /// The last row's number.
    pub last: i64,
    /// What happened.
    pub why: String,
}

/// What became of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub table: String,
    /// How many rows are in the new database.
    pub rows: u64,
    /// Rows that could not be read.
    pub lost: Vec<Note>,
    /// Rows that were changed.
    pub mended: Vec<Note>,
    /// Rows that were read, and left out.
    pub refused: Vec<Note>,
}

/// Copies every readable row of the damaged `from` into `to`, which must not exist yet. When this
/// returns, `to` is whole and on stable storage, one file without companions.
///
/// # Errors
/// When `to` cannot be written, or `from` is of a newer version. That `from` cannot be read is no
/// error: then nothing is saved, and the report says so.
pub(super) fn salvage(
    from: &Path,
    to: &Path,
    migrations: &Migrations,
    rules: &Rules,
) -> Result<Vec<Saved>, Error> {
    open::prepare(to, migrations)?;
    let target = Target::open(to)?;
    let mut report = Vec::new();
    let source = Source::open(from, migrations)?;
    for table in target.tables()?.iter().filter(|t| !rules.derived.contains(&t.name.as_str())) {
        let mut copy = TableCopy {
            rules,
            into: target.table(table)?,
            numbers: HashSet::new(),
            saved: Saved { table: table.name.clone(), ..Saved::default() },
        };
        match &source {
            Ok(source) if table.has_numbers => copy.by_number(source, table)?,
            Ok(source) => copy.by_key(source, table)?,
            Err(error) => copy.note_lost(0, 0, error),
        }
        copy.into.commit()?;
        report.push(copy.saved);
    }
    if let Ok(source) = &source {
        target.continue_sequences(&source.sequences())?;
    }
    target.finish(rules.finish, to)?;
    Ok(report)
}
