//! How a database file is put aside, and how a salvaged one takes its place. Nothing is deleted.

use crate::store::{Error, Kind};
use claudemesh_base::db::files::companion;
use claudemesh_base::runtime::Runtime;
use std::path::{Path, PathBuf};

/// Renames a database and its companions to `<name>.<word>-<time>`; nothing is deleted.
pub fn set_aside(path: &Path, word: &str, runtime: &Runtime) -> Result<PathBuf, Error> {
    let mark = format!(".{word}-{}", runtime.now().0);
    // What was written last goes first: a database without its log would look older than it is.
    for suffix in ["-wal", "-shm", ""] {
        rename(&companion(path, suffix), &companion(path, &format!("{mark}{suffix}")))?;
    }
    Ok(companion(path, &mark))
}

/// Where a salvaged database waits to take the place of the damaged one at `path`. A file of this
/// name is whole: it gets the name when it is.
#[must_use]
pub fn salvaged(path: &Path) -> PathBuf {
    companion(path, ".salvaged")
}

/// Puts a salvaged database in its place, if one waits; yields where the damaged one went. Whoever
/// opens a store calls this first, so that a salvage that was cut short is finished by the next
/// start, and never forgotten for a new and empty file.
pub fn adopt_salvaged(path: &Path, runtime: &Runtime) -> Result<Option<PathBuf>, Error> {
    let waiting = salvaged(path);
    if !waiting.exists() {
        return Ok(None);
    }
    let aside = set_aside(path, "damaged", runtime)?;
    rename(&waiting, path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let synced = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|error| io_error("sync", dir, &error))?;
    Ok(Some(aside))
}

/// Gives a file that may be there another name.
///
/// # Errors
/// When it is there and cannot be renamed.
pub fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("rename", from, &error))
        }
        _ => Ok(()),
    }
}

fn io_error(doing: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::Io, format!("cannot {doing} {}: {error}", path.display()))
}
