//! The writer thread: gather what waits, one transaction, one commit, then every answer.

use super::condition::Condition;
use super::{BATCH_MAX, Durability, Error, Faults, Kind, Tx, open};
use futures_channel::oneshot;
use smol::channel::{Receiver, TryRecvError};
use sqlite::Connection;
use std::path::Path;
use std::time::Duration;

/// How long a writer that cannot reopen its file waits before it tries again. Jobs that arrive
/// meanwhile are answered with the error.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

/// How often the writer looks for another job before it sleeps: about 150 µs.
const YIELDS_BEFORE_SLEEP: usize = 300;

/// A queued change, its result type erased.
pub(super) trait Job: Send {
    fn durability(&self) -> Durability;
    fn undo(&self) -> Undo;
    /// Runs the statements. An error means they are to be rolled back.
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), Failed>;
    /// The commit is decided: runs what hangs on it, then answers.
    fn answer(self: Box<Self>, commit: Result<(), Error>);
}

/// What a failing job may leave behind inside the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Undo {
    /// Its statements so far: they are rolled back to a savepoint.
    Savepoint,
    /// Nothing: its one change is its one statement, and SQLite undoes a failing statement itself.
    Nothing,
}

/// Why a job's statements are to be rolled back.
pub(super) enum Failed {
    /// The job refused or failed; its own error waits inside it.
    Job,
    /// The savepoint around it failed, and with it the whole batch.
    Database(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

pub(super) struct WriteRequest<T, E, F, A> {
    durability: Durability,
    undo: Undo,
    job: Option<F>,
    after: A,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F, A> WriteRequest<T, E, F, A>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    A: FnOnce(&Result<T, E>) + Send + 'static,
{
    pub(super) fn boxed(
        durability: Durability,
        undo: Undo,
        job: F,
        after: A,
        reply: oneshot::Sender<Result<T, E>>,
    ) -> Box<dyn Job> {
        Box::new(Self { durability, undo, job: Some(job), after, result: None, reply })
    }
}

impl<T, E, F, A> Job for WriteRequest<T, E, F, A>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
    F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    A: FnOnce(&Result<T, E>) + Send + 'static,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn undo(&self) -> Undo {
        self.undo
    }

    fn run(&mut self, tx: &Tx<'_>) -> Result<(), Failed> {
        let Some(job) = self.job.take() else { return Err(Failed::Job) };
        let result = job(tx);
        let failed = result.is_err();
        self.result = Some(result);
        if failed { Err(Failed::Job) } else { Ok(()) }
    }

    fn answer(self: Box<Self>, commit: Result<(), Error>) {
        let result = match (self.result, commit) {
            // A job's own refusal stands whatever became of the commit it was rolled back from.
            (Some(Err(own)), _) => Err(own),
            (Some(Ok(value)), Ok(())) => Ok(value),
            (_, Err(error)) => Err(error.into()),
            (None, Ok(())) => Err(Error::closed().into()),
        };
        (self.after)(&result);
        // Nobody waiting is fine: the caller went away, the change stands.
        let _ = self.reply.send(result);
    }
}

/// A file that cannot be written: said once, then counted until it can be again (§10).
struct Trouble<'p> {
    path: &'p Path,
    failures: u64,
}

impl Trouble<'_> {
    fn failed(&mut self, error: &Error) {
        self.failures += 1;
        if self.failures == 1 {
            let path = self.path.display();
            tracing::error!(%error, %path, "a commit failed; reopening the database until one stands");
        }
    }

    fn over(&mut self) {
        if self.failures > 0 {
            let (path, failures) = (self.path.display(), self.failures);
            tracing::info!(%path, failures, "the database can be written again");
            self.failures = 0;
        }
    }
}

/// Serves `queue` until it is closed and empty.
pub(super) fn run(
    path: &Path,
    queue: &Receiver<Box<dyn Job>>,
    condition: &Condition,
    faults: Option<&dyn Faults>,
) {
    let faults = faults.map(|faults| (path, faults));
    let mut trouble = Trouble { path, failures: 0 };
    loop {
        match open::connect(path) {
            Ok(connection) => {
                if serve(&connection, queue, condition, faults, &mut trouble).is_closed() {
                    // Leaves an empty WAL behind, so that a copy of the file alone is whole.
                    if let Err(error) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)") {
                        tracing::warn!(%error, path = %path.display(), "the last checkpoint failed");
                    }
                    return;
                }
            }
            Err(error) => {
                trouble.failed(&error);
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

enum Ended {
    Closed,
    WantsReopening,
}

impl Ended {
    const fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

fn serve(
    connection: &Connection,
    queue: &Receiver<Box<dyn Job>>,
    condition: &Condition,
    faults: Option<(&Path, &dyn Faults)>,
    trouble: &mut Trouble<'_>,
) -> Ended {
    let tx = Tx::watched(connection, condition);
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
        let commit = condition.usable().and_then(|()| {
            commit(connection, &tx, &mut synchronous, &mut batch, condition, faults)
        });
        for job in batch.drain(..) {
            job.answer(commit.clone());
        }
        match commit {
            // A commit of nothing writes nothing, and proves nothing.
            Ok(()) if connection.total_change_count() == changes_before => {}
            Ok(()) => trouble.over(),
            Err(error) if error.wants_reopening() && condition.usable().is_ok() => {
                trouble.failed(&error);
                return Ended::WantsReopening;
            }
            // Its jobs were told; the next commit may stand.
            Err(_) => {}
        }
    }
    Ended::Closed
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
    condition: &Condition,
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
        .and_then(|()| condition.usable())
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
            Err(Failed::Job) if job.undo() == Undo::Nothing => prove_in_transaction(tx)?,
            Err(Failed::Job) => {}
            Err(Failed::Database(error)) => return Err(error),
        }
    }
    Ok(())
}
