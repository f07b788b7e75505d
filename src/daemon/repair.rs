//! `daemon recover` (§4.11): looks at the two databases while no daemon runs, and puts a sound one
//! in the place of a damaged one. Nothing is deleted, and a sound database is left alone.

pub mod files;
mod rules;
mod salvage;

use crate::error::DaemonError;
use crate::lock::Lock;
use claudemesh_base::db::Check;
use claudemesh_base::db::files::companion;
use claudemesh_base::paths::Paths;
use claudemesh_base::runtime::Runtime;
use files::{adopt_salvaged, rename, salvaged, set_aside};
pub use rules::{Store, check};
pub use salvage::{Note, Saved};
use std::path::{Path, PathBuf};

/// What is to be done with a damaged database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Nothing: look.
    Check,
    /// Copy what can be read into a new one.
    Salvage,
    /// Begin an empty one.
    Fresh,
}

/// How a database was found, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairReport {
    /// Its file's name.
    pub name: &'static str,
    /// How it was found.
    pub found: DatabaseState,
    /// Where the damaged one went.
    pub aside: Option<PathBuf>,
    /// What was saved of it, table by table.
    pub saved: Vec<Saved>,
}

/// How a database was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseState {
    /// There is none.
    Missing,
    /// Every page and index agrees.
    Whole,
    /// SQLite's findings, one a line.
    Damaged(String),
}

/// A repair that did not come to its end.
#[derive(Debug)]
pub struct RepairFailure {
    /// The databases before the one that it ended at: what became of them stands.
    pub examined: Vec<RepairReport>,
    /// Why it ended.
    pub error: DaemonError,
}

impl From<DaemonError> for RepairFailure {
    fn from(error: DaemonError) -> Self {
        Self { examined: Vec::new(), error }
    }
}

/// Examines both databases and repairs the damaged ones. Blocks.
///
/// # Errors
/// [`DaemonError::AlreadyRunning`] while a daemon runs; otherwise when a file cannot be read or
/// written.
pub fn run(
    paths: &Paths,
    repair: Repair,
    runtime: &Runtime,
) -> Result<Vec<RepairReport>, RepairFailure> {
    let files = [
        (Store::Outbox, "outbox.db", paths.outbox_db()),
        (Store::Inbox, "inbox.db", paths.inbox_db()),
    ];
    if !paths.daemon_dir.exists() {
        let missing = |(_, name, _)| RepairReport::of(name, DatabaseState::Missing);
        return Ok(files.into_iter().map(missing).collect());
    }
    let lock = Lock::take(paths)?;
    let examine = |(store, name, path): (Store, _, PathBuf)| -> Result<RepairReport, DaemonError> {
        let absent = absent_companions(&path);
        let mut examined = RepairReport::of(name, look(&path, repair, runtime)?);
        remove_all(&absent);
        if let DatabaseState::Damaged(_) = examined.found {
            match repair {
                Repair::Check => {}
                Repair::Fresh => examined.aside = Some(set_aside(&path, "damaged", runtime)?),
                Repair::Salvage => {
                    examined.saved = salvage(store, &path)?;
                    remove_all(&absent);
                    examined.aside = adopt_salvaged(&path, runtime)?;
                }
            }
        }
        Ok(examined)
    };
    let examined = each(files.into_iter().map(examine));
    lock.release_and_restore_pid();
    examined
}

fn each(
    all: impl Iterator<Item = Result<RepairReport, DaemonError>>,
) -> Result<Vec<RepairReport>, RepairFailure> {
    let mut examined = Vec::new();
    for one in all {
        match one {
            Ok(one) => examined.push(one),
            Err(error) => return Err(RepairFailure { examined, error }),
        }
    }
    Ok(examined)
}

impl RepairReport {
    const fn of(name: &'static str, found: DatabaseState) -> Self {
        Self { name, found, aside: None, saved: Vec::new() }
    }
}

/// The files beside a database that are not there: reading it makes them, empty.
fn absent_companions(path: &Path) -> Vec<PathBuf> {
    let companions = ["-wal", "-shm"].map(|suffix| companion(path, suffix));
    // A log that is there belongs to the database, and its index with it.
    let has_log = companions[0].exists();
    companions.into_iter().filter(|file| !has_log && !file.exists()).collect()
}

/// Removes what reading made. The lock is held: nobody else has the database open.
fn remove_all(files: &[PathBuf]) {
    files.iter().for_each(|file| drop(std::fs::remove_file(file)));
}

fn look(path: &Path, repair: Repair, runtime: &Runtime) -> Result<DatabaseState, DaemonError> {
    if repair != Repair::Check {
        // One that was cut short is finished first; what it put in place is looked at.
        adopt_salvaged(path, runtime)?;
    }
    if !path.exists() {
        return Ok(DatabaseState::Missing);
    }
    Ok(match check(path)? {
        Check::Whole => DatabaseState::Whole,
        Check::Damaged(findings) => DatabaseState::Damaged(findings),
    })
}

/// Makes the new database under a name that says it is not finished; then gives it the one that
/// says it is.
fn salvage(store: Store, path: &Path) -> Result<Vec<Saved>, DaemonError> {
    let unfinished = salvaged(path).with_extension("unfinished");
    for suffix in ["", "-wal", "-shm", "-journal"] {
        // What an attempt that was cut short left behind holds nothing that is not in the original.
        let _ = std::fs::remove_file(companion(&unfinished, suffix));
    }
    let saved = store.salvage(path, &unfinished)?;
    rename(&unfinished, &salvaged(path))?;
    Ok(saved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_the_first_store_is_told_when_the_second_fails() {
        let first = RepairReport::of("outbox.db", DatabaseState::Whole);
        let failed = DaemonError::Failed("no room".to_owned());
        let all = [Ok(first.clone()), Err(failed)];
        let unfinished = each(all.into_iter()).expect_err("fails");
        assert_eq!((unfinished.examined, unfinished.error.exit_code()), (vec![first], 1));
    }
}
