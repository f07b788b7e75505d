//! A database's files and the connections to them: modes, companions, pragmas.

use super::{Error, Kind};
use sqlite::{Connection, OpenFlags};
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The mode of a database and its companions (§1.1).
const PRIVATE: u32 = 0o600;
/// How long a connection waits for others: a reader that is just opening holds the file for a
/// moment. Set before anything else.
const PATIENCE: &str = "PRAGMA busy_timeout=5000";
/// How long one that must be alone waits: who has the file open for longer is at work in it.
const BUSY_TIMEOUT_EXCLUSIVE: &str = "PRAGMA busy_timeout=1000";
/// What a connection that writes is set to.
///
/// `fullfsync` matters on macOS alone, where a plain fsync does not reach the platter (§4.7).
/// 8 MiB of cache: with the default of 2 MiB, reading index pages again was a tenth of the writer's
/// time under load.
const WRITER_PRAGMAS: &str = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; \
     PRAGMA fullfsync=ON; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY; \
     PRAGMA cache_size=-8192;";

/// Opens the read-write connection with the pragmas of the writer.
pub(super) fn connect(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.execute(PATIENCE)?;
    connection.execute(WRITER_PRAGMAS)?;
    Ok(connection)
}

/// The same, for one that works only while nobody else has the file open.
pub(super) fn connect_exclusive(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.execute(BUSY_TIMEOUT_EXCLUSIVE)?;
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

/// The file that SQLite keeps beside a database, by its suffix.
pub fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// How large a file is; 0 when there is none.
#[must_use]
pub fn size_bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

pub(super) fn create_private(path: &Path) -> Result<(), Error> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(PRIVATE)
        .open(path)
        .map(drop)
        .map_err(|e| Error::new(Kind::Io, format!("cannot open {}: {e}", path.display())))
}

/// Takes from everybody else what another program, or a restored backup, let them read (§1.1).
pub(super) fn make_private(path: &Path) -> Result<(), Error> {
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
