//! The databases of the existing TypeScript daemon, taken over in place (§4.5.2,
//! `specs/legacy.md`): every shape its versions left behind, every row.
//!
//! Refuses to guess. What that daemon did not record stays unrecorded, and a message whose mesh or
//! destination is not known is not sent anywhere: it becomes `dead`, with the reason. A table with a
//! column that is not known here is somebody else's.

mod inbox;
mod outbox;

use claudemesh_base::db::{Adoption, Error, Kind, Tx};

/// Whose databases these are, in messages.
const LEGACY_DAEMON: &str = "the TypeScript daemon";

pub(super) static OUTBOX: Adoption = Adoption {
    from: LEGACY_DAEMON,
    recognises: |tx| outbox::LEGACY_TABLE.is_whole(tx),
    set_aside: |tx| outbox::LEGACY_TABLE.set_aside(tx),
    version: 1,
    carry_over: outbox::carry_over,
};

pub(super) static INBOX: Adoption = Adoption {
    from: LEGACY_DAEMON,
    recognises: |tx| inbox::LEGACY_TABLE.is_whole(tx),
    set_aside: |tx| inbox::LEGACY_TABLE.set_aside(tx),
    version: 1,
    carry_over: inbox::carry_over,
};

/// The one table of a file of theirs, in every version of it.
struct LegacyTable {
    name: &'static str,
    /// What the first version had.
    columns: &'static [&'static str],
    /// What later versions added, each with the statement that adds it to the table set aside.
    later: &'static [(&'static str, &'static str)],
    /// Puts the table aside as `theirs` and drops its indexes, whose names ours may want.
    set_aside: &'static [&'static str],
}

impl LegacyTable {
    /// Whether the file has this table, in one of its versions, and nothing else.
    fn is_whole(&self, tx: &Tx<'_>) -> Result<bool, Error> {
        let sql = "SELECT name FROM sqlite_schema WHERE type <> 'index' \
                   AND name NOT GLOB 'sqlite_*'";
        if tx.query(sql, &[], |row| row.text(0))? != [self.name] {
            return Ok(false);
        }
        let present = self.present(tx, self.name)?;
        let has = |name: &str| present.iter().any(|column| column == name);
        let knows = |name: &String| {
            self.columns.contains(&name.as_str())
                || self.later.iter().any(|(later, _)| later == name)
        };
        Ok(self.columns.iter().all(|name| has(name)) && present.iter().all(knows))
    }

    /// Puts the table aside, with the columns of the newest version.
    fn set_aside(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let present = self.present(tx, self.name)?;
        for statement in self.set_aside {
            tx.execute(statement, &[])?;
        }
        for (name, statement) in self.later {
            if !present.iter().any(|column| column == name) {
                tx.execute(statement, &[])?;
            }
        }
        Ok(())
    }

    fn present(&self, tx: &Tx<'_>, table: &str) -> Result<Vec<String>, Error> {
        tx.query("SELECT name FROM pragma_table_info(?)", &[table.into()], |row| row.text(0))
    }
}

/// The count of rows carried over, which is the count there was.
fn none_lost(carried: usize, there_were: i64) -> Result<usize, Error> {
    if i64::try_from(carried) == Ok(there_were) {
        return Ok(carried);
    }
    let text = format!("{there_were} rows were there and {carried} were carried over");
    Err(Error::new(Kind::Other, text))
}
