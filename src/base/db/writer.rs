//! The writer thread: gather what waits, one transaction, one commit, then every answer.

use super::files::connect;
use super::integrity::IntegrityMonitor;
use super::job::{Job, JobFailure, Undo};
use super::{BATCH_MAX, Durability, Error, Faults, Kind, Tx};
use crate::log::Repeated;
use smol::channel::{Receiver, TryRecvError};
use sqlite::Connection;
use std::path::Path;
use std::time::Duration;

/// How long a writer that cannot reopen its file waits before it tries again. Jobs that arrive
/// meanwhile are answered with the error.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// How often the writer looks for another job before it sleeps: about 150 µs.
const YIELDS_BEFORE_SLEEP: usize = 300;

/// Serves `queue` until it is closed and empty.
pub(super) fn run(
    path: &Path,
    queue: &Receiver<Box<dyn Job>>,
    integrity: &IntegrityMonitor,
    faults: Option<&dyn Faults>,
) {
    let faults = faults.map(|faults| (path, faults));
    let failures = Repeated::default();
    loop {
        match connect(path) {
            Ok(connection) => {
                if serve(path, &connection, queue, integrity, faults, &failures).is_closed() {
                    // Leaves an empty WAL behind, so that a copy of the file alone is whole.
                    if let Err(error) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)") {
                        tracing::warn!(%error, path = %path.display(), "the last checkpoint failed");
                    }
                    return;
                }
            }
            Err(error) => {
                log_failure(&failures, path, &error);
                std::thread::sleep(REOPEN_PAUSE);
                while let Ok(job) = queue.try_recv() {
                    job.answer(Err(error.clone()));
                }
                if queue.is_closed() {
                    return;
                }
            }
        }
    }
}

/// A file that cannot be written is logged once, then counted until it can be again (§10).
fn log_failure(failures: &Repeated, path: &Path, error: &Error) {
    if failures.happened() {
        let path = path.display();
        tracing::error!(%error, %path, "a commit failed; reopening the database until one stands");
    }
}

fn log_recovery(failures: &Repeated, path: &Path) {
    if let Some(failures) = failures.ended() {
        tracing::info!(path = %path.display(), failures, "the database can be written again");
    }
}

enum ServeEnd {
    Closed,
    WantsReopening,
}

impl ServeEnd {
    const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

fn serve(
    path: &Path,
    connection: &Connection,
    queue: &Receiver<Box<dyn Job>>,
    integrity: &IntegrityMonitor,
    faults: Option<(&Path, &dyn Faults)>,
    failures: &Repeated,
) -> ServeEnd {
    let tx = Tx::monitored(connection, integrity);
    let mut synchronous = Durability::Synced;
    let mut batch: Vec<Box<dyn Job>> = Vec::with_capacity(BATCH_MAX);
    while let Some(first) = next(queue) {
        batch.push(first);
        while batch.len() < BATCH_MAX
            && let Ok(job) = queue.try_recv()
        {
            batch.push(job);
        }
        let changes_before = connection.total_change_count();
        // A damaged file is not written to: nothing runs, and everybody is told.
        let commit = integrity.require_undamaged().and_then(|()| {
            commit(connection, &tx, &mut synchronous, &mut batch, integrity, faults)
        });
        for job in batch.drain(..) {
            job.answer(commit.clone());
        }
        match commit {
            // A commit of nothing writes nothing, and proves nothing.
            Ok(()) if connection.total_change_count() == changes_before => {}
            Ok(()) => log_recovery(failures, path),
            Err(error) if error.wants_reopening() && integrity.require_undamaged().is_ok() => {
                log_failure(failures, path, &error);
                return ServeEnd::WantsReopening;
            }
            // Its jobs were told; the next commit may stand.
            Err(_) => {}
        }
    }
    ServeEnd::Closed
}

/// The next job, or `None` once the queue is closed and empty.
///
/// A caller that sends one message after another comes back within a fraction of a millisecond, and
/// waking a sleeping thread costs a third of a synced commit: so the writer looks a little longer
/// before it sleeps, giving way to whoever wants the processor. An idle writer sleeps.
fn next(queue: &Receiver<Box<dyn Job>>) -> Option<Box<dyn Job>> {
    for _ in 0..YIELDS_BEFORE_SLEEP {
        match queue.try_recv() {
            Ok(job) => return Some(job),
            Err(TryRecvError::Closed) => return None,
            Err(TryRecvError::Empty) => std::thread::yield_now(),
        }
    }
    queue.recv_blocking().ok()
}

fn commit(
    connection: &Connection,
    tx: &Tx<'_>,
    synchronous: &mut Durability,
    batch: &mut [Box<dyn Job>],
    integrity: &IntegrityMonitor,
    faults: Option<(&Path, &dyn Faults)>,
) -> Result<(), Error> {
    let wanted = if batch.iter().any(|job| job.durability() == Durability::Synced) {
        Durability::Synced
    } else {
        Durability::Relaxed
    };
    if *synchronous != wanted {
        // Takes effect between transactions only, which is where we are.
        connection.execute(match wanted {
            Durability::Synced => "PRAGMA synchronous=FULL",
            Durability::Relaxed => "PRAGMA synchronous=NORMAL",
        })?;
        *synchronous = wanted;
    }
    tx.execute("BEGIN IMMEDIATE", &[])?;
    let done = run_all(tx, batch)
        // One job found damage: what the others changed is not committed either.
        .and_then(|()| integrity.require_undamaged())
        .and_then(|()| faults.map_or(Ok(()), |(path, faults)| faults.before_commit(path, wanted)))
        .and_then(|()| tx.execute("COMMIT", &[]).map(drop));
    match (&done, faults) {
        (Ok(()), Some((path, faults))) => faults.after_commit(path, wanted),
        (Ok(()), None) => {}
        // Some failures roll back by themselves; then this one has nothing left to do.
        (Err(_), _) => drop(tx.execute("ROLLBACK", &[])),
    }
    done
}

/// Fails if no transaction is open any more: only then is a second `BEGIN` allowed.
fn prove_in_transaction(tx: &Tx<'_>) -> Result<(), Error> {
    match tx.execute("BEGIN", &[]) {
        Err(_) => Ok(()),
        Ok(_) => Err(Error::new(Kind::Io, "a failing job ended the transaction of its batch")),
    }
}

fn run_all(tx: &Tx<'_>, batch: &mut [Box<dyn Job>]) -> Result<(), Error> {
    for job in batch {
        let ran = match job.undo() {
            Undo::Savepoint => tx.nested(|tx| job.run(tx)),
            Undo::Nothing => job.run(tx),
        };
        match ran {
            // The job keeps its own error; the others go on.
            Ok(()) => {}
            // Some failures end the whole transaction by themselves. What follows would then commit
            // on its own and be told that nothing was: the savepoint of a job proves that it did
            // not happen, and without one nothing does.
            Err(JobFailure::Job) if job.undo() == Undo::Nothing => prove_in_transaction(tx)?,
            Err(JobFailure::Job) => {}
            Err(JobFailure::Database(error)) => return Err(error),
        }
    }
    Ok(())
}
