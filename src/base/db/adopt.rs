//! Taking over a database that another program left (§4.5.2): every row moves into this program's
//! schema in one transaction, or the file stays what it was.
//!
//! Refuses a file that anybody else has open: two programs would send the same rows.

use super::files::connect_exclusive;
use super::{Error, Kind, Migrations, Tx};
use sqlite::Connection;
use std::path::Path;

/// How the tables of another program become this program's.
#[derive(Debug)]
pub struct Adoption {
    /// Whose database it was, for messages.
    pub from: &'static str,
    /// Whether the tables are the ones meant here. Only reads.
    pub recognises: fn(&Tx<'_>) -> Result<bool, Error>,
    /// Moves those tables out of the way of the steps.
    pub set_aside: fn(&Tx<'_>) -> Result<(), Error>,
    /// The schema that [`carry_over`](Self::carry_over) writes to: how many steps run before it.
    /// Those after it run as on any database of that schema.
    pub version: usize,
    /// Carries every row over, drops the tables that were set aside, and says how many rows there
    /// were.
    pub carry_over: fn(&Tx<'_>) -> Result<usize, Error>,
}

/// Takes the database at `path` over; says how many rows it has.
///
/// # Errors
/// [`Kind::InUse`] when another program has it open; otherwise what went wrong. The file is what it
/// was then.
pub(super) fn adopt(
    path: &Path,
    migrations: &Migrations,
    adoption: &Adoption,
) -> Result<usize, Error> {
    let adopted = connect_exclusive(path).and_then(|connection| {
        let result = run_import(&connection, migrations, adoption);
        if result.is_err() {
            // Fails only where SQLite already rolled back by itself.
            let _ = connection.execute("ROLLBACK");
        }
        result
    });
    adopted.map_err(|error| {
        let (path, from) = (path.display(), adoption.from);
        let text = match error.kind() {
            Kind::InUse => format!(
                "{path} is open in another program, most likely {from}: stop that one first. Nothing was changed"
            ),
            _ => format!("cannot take over {path} from {from}: {error}. Nothing was changed"),
        };
        Error::new(error.kind(), text)
    })
}

fn run_import(
    connection: &Connection,
    migrations: &Migrations,
    adoption: &Adoption,
) -> Result<usize, Error> {
    connection.execute("BEGIN IMMEDIATE")?;
    let tx = Tx::new(connection);
    (adoption.set_aside)(&tx)?;
    for step in migrations.steps.iter().take(adoption.version) {
        connection.execute(step)?;
    }
    let rows = (adoption.carry_over)(&tx)?;
    connection.execute(format!("PRAGMA user_version = {}; COMMIT;", adoption.version))?;
    Ok(rows)
}
