//! Opening a database: file mode, pragmas, schema version, and whether it is whole (§4.5.2, §4.11).

use super::adopt::{Adoption, adopt};
use super::check::{Check, quick_check};
use super::files::{connect, create_private, make_private, size_bytes};
use super::migrations::{Migrations, migrate};
use super::{Error, Integrity, Kind, Tx};
use sqlite::Connection;
use std::path::Path;

/// A file up to this size is checked whole before it is used; a larger one only by its header and
/// schema (§4.11).
const CHECKED_AT_OPEN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Compile-time options without which this room's assumptions do not hold.
const REQUIRED_COMPILE_OPTIONS: [&str; 2] = ["THREADSAFE=2", "DQS=0"];
/// What a file that may be used is.
enum Identity {
    /// Ours, of this schema version; 0 is an empty file.
    Ours(usize),
    /// Another program's, to be taken over.
    Theirs(&'static Adoption),
}

/// Creates the file if need be, checks it, and runs the migrations it lacks. A file that is refused
/// is not changed: it is judged before the pragmas that write to it. Says how much was looked at.
pub fn prepare(path: &Path, migrations: &Migrations) -> Result<Integrity, Error> {
    create_private(path)?;
    let (found, integrity) = identify(path, migrations)?;
    let version = match found {
        Identity::Ours(version) => version,
        Identity::Theirs(adoption) => {
            let (file, from) = (path.display(), adoption.from);
            // Said before as well: a large one takes longer than `daemon up` waits.
            tracing::info!(%file, from, "taking over a database");
            let rows = adopt(path, migrations, adoption)?;
            tracing::info!(%file, from, rows, "the database was taken over");
            adoption.version
        }
    };
    make_private(path)?;
    let connection = connect(path)?;
    migrate(&connection, migrations, version)?;
    // A crash may leave commits that were written and never synced. They are visible now and will
    // be answered for, so they reach stable storage first (§4.7).
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(integrity)
}

/// What the file is and how much of it was looked at, if it is whole and ours or may become ours.
fn identify(path: &Path, migrations: &Migrations) -> Result<(Identity, Integrity), Error> {
    let connection = Connection::open(path)?;
    require_compile_options(&connection)?;
    let mut integrity = Integrity::Unchecked;
    if size_bytes(path) <= CHECKED_AT_OPEN_BYTES_MAX {
        if let Check::Damaged(findings) = quick_check(&connection)? {
            return Err(Error::damaged(findings));
        }
        integrity = Integrity::Whole;
    }
    let (name, newest) = (migrations.name, migrations.steps.len());
    let version = read_one(&connection, "PRAGMA user_version")?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if version > newest {
        let text = format!(
            "{} is an {name} of schema {version}, and this program knows schemas up to {newest}: upgrade claudemesh. The file was not touched",
            path.display(),
        );
        return Err(Error::new(Kind::Newer, text));
    }
    let tables = read_one(&connection, "SELECT count(*) FROM sqlite_schema WHERE type = 'table'")?;
    if version == 0 && tables > 0 {
        if let Some(adoption) = migrations.adoption
            && (adoption.recognises)(&Tx::new(&connection))?
        {
            return Ok((Identity::Theirs(adoption), integrity));
        }
        let text = format!(
            "{} has tables but not this program's schema: move it away, or name another daemon directory. The file was not touched",
            path.display(),
        );
        return Err(Error::new(Kind::Foreign, text));
    }
    Ok((Identity::Ours(version), integrity))
}

fn require_compile_options(connection: &Connection) -> Result<(), Error> {
    let compiled = Tx::new(connection).query("PRAGMA compile_options", &[], |row| row.text(0))?;
    for option in REQUIRED_COMPILE_OPTIONS {
        if !compiled.iter().any(|present| present == option) {
            return Err(Error::new(
                Kind::Other,
                format!(
                    "SQLite was compiled without {option}: build from the workspace's top folder, where .cargo/config.toml sets it"
                ),
            ));
        }
    }
    Ok(())
}

fn read_one(connection: &Connection, sql: &'static str) -> Result<i64, Error> {
    let found = Tx::new(connection).query_row(sql, &[], |row| row.int(0))?;
    found.ok_or_else(|| Error::new(Kind::Corrupt, format!("`{sql}` gave nothing")))
}
