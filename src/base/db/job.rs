//! A queued change: what it promises, the statements it runs, and what hangs on its commit.

use super::{Durability, Error, Tx};
use futures_channel::oneshot;

/// A queued change, its result type erased.
pub(super) trait Job: Send {
    fn durability(&self) -> Durability;
    fn undo(&self) -> Undo;
    /// Runs the statements. An error means they are to be rolled back.
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), JobFailure>;
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
pub(super) enum JobFailure {
    /// The job refused or failed; its own error waits inside it.
    Job,
    /// The savepoint around it failed, and with it the whole batch.
    Database(Error),
}

impl From<Error> for JobFailure {
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

    fn run(&mut self, tx: &Tx<'_>) -> Result<(), JobFailure> {
        let Some(job) = self.job.take() else { return Err(JobFailure::Job) };
        let result = job(tx);
        let failed = result.is_err();
        self.result = Some(result);
        if failed { Err(JobFailure::Job) } else { Ok(()) }
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
