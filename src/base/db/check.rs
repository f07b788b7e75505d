//! Whether a database file is whole (§4.11). Nothing here changes a file.

use super::files::connect_read_only;
use super::{Columns, Error, Tx};
use sqlite::Connection;
use std::path::Path;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Nothing was found.
    Whole,
    /// What was found, one finding a line.
    Damaged(String),
}

/// Looks at every page of a file without changing it (§4.11).
///
/// # Errors
/// When it cannot be read at all.
pub(super) fn check(path: &Path) -> Result<Check, Error> {
    quick_check(&connect_read_only(path)?)
}

/// The same, and compares each index with its table: several times the work (§4.11).
///
/// # Errors
/// When it cannot be read at all.
pub fn check_thoroughly(path: &Path) -> Result<Check, Error> {
    let connection = connect_read_only(path)?;
    match findings(&connection, "PRAGMA integrity_check(10)")? {
        Check::Whole => check_partial_indices(&connection),
        damaged => Ok(damaged),
    }
}

/// What `PRAGMA quick_check` finds.
///
/// # Errors
/// When the file cannot be read at all.
pub fn quick_check(connection: &Connection) -> Result<Check, Error> {
    findings(connection, "PRAGMA quick_check(10)")
}

/// `integrity_check` sees what a partial index lacks, and not what it has too much. An index whose
/// entries SQLite cannot count by its own condition is left out.
fn check_partial_indices(connection: &Connection) -> Result<Check, Error> {
    let sql = "SELECT i.name, i.tbl_name, substr(i.sql, instr(i.sql, 'WHERE')) \
               FROM sqlite_schema i JOIN pragma_index_list(i.tbl_name) l ON l.name = i.name \
               WHERE i.type = 'index' AND l.partial";
    let read = |row: &Columns<'_, '_>| Ok((row.text(0)?, row.text(1)?, row.text(2)?));
    let mut wrong = Vec::new();
    for (index, table, condition) in Tx::new(connection).query(sql, &[], read)? {
        let count = |which: &str| {
            let sql = format!("SELECT count(*) FROM \"{table}\" {which} {condition}");
            let Ok(mut statement) = connection.prepare(sql) else { return Ok(None) };
            statement.next()?;
            statement.read::<i64, _>(0).map(Some)
        };
        let listed = count(&format!("INDEXED BY \"{index}\""))?;
        if listed.is_some() && listed != count("NOT INDEXED")? {
            wrong.push(format!("wrong # of entries in index {index}"));
        }
    }
    if wrong.is_empty() { Ok(Check::Whole) } else { Ok(Check::Damaged(wrong.join("\n"))) }
}

fn findings(connection: &Connection, check: &'static str) -> Result<Check, Error> {
    let findings = Tx::new(connection).query(check, &[], |row| row.text(0))?;
    if findings == ["ok"] { Ok(Check::Whole) } else { Ok(Check::Damaged(findings.join("\n"))) }
}
