//! Opening a database: file mode, pragmas, schema version, and whether it is whole (§4.5.2, §4.11).

use super::adopt::{Adoption, adopt};
use super::{Columns, Error, Integrity, Kind, Tx};
use sqlite::{Connection, OpenFlags};
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file up to this size is checked whole before it is used; a larger one only by its header and
/// schema (§4.11).
const CHECKED_AT_OPEN_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Compile-time options without which this room's assumptions do not hold.
const REQUIRED_COMPILE_OPTIONS: [&str; 2] = ["THREADSAFE=2", "DQS=0"];
/// The mode of a database and its companions (§1.1).
const PRIVATE: u32 = 0o600;
/// How long a connection waits for others: a reader that is just opening holds the file for a
/// moment. Set before anything else.
const PATIENCE: &str = "PRAGMA busy_timeout=5000";
/// How long one that must be alone waits: who has the file open for longer is at work in it.
const PATIENCE_ALONE: &str = "PRAGMA busy_timeout=1000";
/// What a connection that writes is set to.
///
/// `fullfsync` matters on macOS alone, where a plain fsync does not reach the platter (§4.7).
/// 8 MiB of cache: with the default of 2 MiB, reading index pages again was a tenth of the writer's
/// time under load.
const WRITER_PRAGMAS: &str = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; \
     PRAGMA fullfsync=ON; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY; \
     PRAGMA cache_size=-8192;";

/// A database's schema: step `n` takes it from version `n` to `n + 1`.
#[derive(Debug)]
pub struct Migrations {
    /// What the database holds, for messages and the thread's name.
    pub name: &'static str,
    /// Forward steps, each run in one transaction.
    pub steps: &'static [&'static str],
    /// Another program's database that may be found in this one's place, if any may.
    pub adoption: Option<&'static Adoption>,
}

/// What a file that may be used is.
enum Found {
    /// Ours, of this schema version; 0 is an empty file.
    Ours(usize),
    /// Another program's, to be taken over.
    Theirs(&'static Adoption),
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Nothing was found.
    Whole,
    /// What was found, one finding a line.
    Damaged(String),
}

/// Opens the read-write connection with the pragmas of the writer.
pub(super) fn connect(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.execute(PATIENCE)?;
    connection.execute(WRITER_PRAGMAS)?;
    Ok(connection)
}

/// The same, for one that works only while nobody else has the file open.
pub(super) fn connect_alone(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.execute(PATIENCE_ALONE)?;
    // Before the file is first looked at: a WAL that was opened to be shared stays shared.
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")?;
    connection.execute(WRITER_PRAGMAS)?;
    Ok(connection)
}

/// Opens a connection that can only read.
pub fn connect_read_only(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open_with_flags(path, OpenFlags::new().with_read_only())?;
    connection.execute("PRAGMA busy_timeout=5000; PRAGMA query_only=ON;")?;
    Ok(connection)
}

/// Creates the file if need be, checks it, and runs the migrations it lacks. A file that is refused
/// is not changed: it is judged before the pragmas that write to it. Says how much was looked at.
pub fn prepare(path: &Path, migrations: &Migrations) -> Result<Integrity, Error> {
    create_private(path)?;
    let (found, integrity) = judge(path, migrations)?;
    let version = match found {
        Found::Ours(version) => version,
        Found::Theirs(adoption) => {
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
fn judge(path: &Path, migrations: &Migrations) -> Result<(Found, Integrity), Error> {
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
            return Ok((Found::Theirs(adoption), integrity));
        }
        let text = format!(
            "{} has tables but not this program's schema: move it away, or name another daemon directory. The file was not touched",
            path.display(),
        );
        return Err(Error::new(Kind::Foreign, text));
    }
    Ok((Found::Ours(version), integrity))
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

fn create_private(path: &Path) -> Result<(), Error> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(PRIVATE)
        .open(path)
        .map(drop)
        .map_err(|e| Error::new(Kind::Io, format!("cannot open {}: {e}", path.display())))
}

/// The file that SQLite keeps beside a database, by its suffix.
pub fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Takes from everybody else what another program, or a restored backup, let them read (§1.1).
fn make_private(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        let file = companion(path, suffix);
        let Ok(metadata) = std::fs::metadata(&file) else { continue };
        if metadata.permissions().mode() & 0o077 == 0 {
            continue;
        }
        std::fs::set_permissions(&file, Permissions::from_mode(PRIVATE)).map_err(|e| {
            Error::new(Kind::Io, format!("cannot make {} private: {e}", file.display()))
        })?;
    }
    Ok(())
}

/// How large a file is; 0 when there is none.
#[must_use]
pub fn size_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
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

/// What `PRAGMA quick_check` finds.
///
/// # Errors
/// When the file cannot be read at all.
pub fn quick_check(connection: &Connection) -> Result<Check, Error> {
    findings(connection, "PRAGMA quick_check(10)")
}

fn findings(connection: &Connection, check: &'static str) -> Result<Check, Error> {
    let findings = Tx::new(connection).query(check, &[], |row| row.text(0))?;
    if findings == ["ok"] { Ok(Check::Whole) } else { Ok(Check::Damaged(findings.join("\n"))) }
}

fn migrate(connection: &Connection, migrations: &Migrations, version: usize) -> Result<(), Error> {
    let name = migrations.name;
    for (step, sql) in migrations.steps.iter().enumerate().skip(version) {
        let to = step + 1;
        let whole = format!("BEGIN IMMEDIATE; {sql}; PRAGMA user_version = {to}; COMMIT;");
        if let Err(error) = connection.execute(whole) {
            // Fails only where the step already rolled back by itself.
            let _ = connection.execute("ROLLBACK");
            let error = Error::from(error);
            let text = format!("cannot bring the {name} to schema {to}: {error}");
            return Err(Error::new(error.kind(), text));
        }
    }
    Ok(())
}

fn read_one(connection: &Connection, sql: &'static str) -> Result<i64, Error> {
    let found = Tx::new(connection).query_row(sql, &[], |row| row.int(0))?;
    found.ok_or_else(|| Error::new(Kind::Corrupt, format!("`{sql}` gave nothing")))
}
