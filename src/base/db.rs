//! The durable writer: one SQLite database, one thread that writes it, and readers beside it.
//!
//! Every change is a job on one queue. The writer thread takes whatever waits, runs it in a single
//! `BEGIN IMMEDIATE`, commits once, and only then answers every job in it: *group commit* (§4.7).
//! An answer therefore means the change is where its [`Durability`] says. A job that fails is rolled
//! back alone; a commit that fails fails every job in it, and nothing of it is visible.
//!
//! This room knows no table. It refuses to write or checkpoint from more than one connection: the
//! bundled SQLite has a bug that corrupts the WAL otherwise.

mod adopt;
pub mod check;
mod error;
pub mod files;
mod integrity;
mod job;
mod migrations;
pub mod open;
mod reader;
mod space;
mod tx;
mod values;
mod writer;

pub use adopt::Adoption;
pub use check::Check;
pub use error::{Error, Kind};
pub use integrity::Integrity;
pub use migrations::Migrations;
pub use space::Space;
pub use tx::Tx;
pub use values::{Columns, Param};

use futures_channel::oneshot;
use integrity::{IntegrityMonitor, PanicMonitor};
use job::{Job, Undo, WriteRequest};
use reader::Readers;
use smol::channel::{Sender, TrySendError};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How many jobs may wait for the writer (§1.2).
pub const QUEUE_MAX: usize = 1024;
/// How many jobs share one commit at the most.
pub const BATCH_MAX: usize = 256;

/// What a commit promises (§4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On stable storage before the answer: it survives a power cut.
    Synced,
    /// Visible at once, and it survives a crash of this process; a power cut may forget it.
    Relaxed,
}

/// How jobs reach the writer thread.
#[derive(Clone)]
pub enum Driver {
    /// Callers await; jobs that wait together share a commit.
    Threaded,
    /// Callers block until their own commit is done, so that a simulation is repeatable, and every
    /// commit passes by `Faults`.
    Inline(Arc<dyn Faults>),
}

/// Fault injection, for simulations only: what happens around each commit. Runs on the writer
/// thread; a database that was opened [`Driver::Threaded`] has none.
pub trait Faults: Send + Sync {
    /// The statements of a transaction have run and its `COMMIT` is next.
    ///
    /// # Errors
    /// An error takes the place of the commit, and the transaction is rolled back.
    fn before_commit(&self, path: &Path, durability: Durability) -> Result<(), Error>;

    /// The commit stands and nobody was told yet.
    fn after_commit(&self, path: &Path, durability: Durability);
}

/// A handle on one open database. Cheap to clone; [`Db::close`] ends it for every clone.
#[derive(Clone)]
pub struct Db {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    driver: Driver,
    jobs: Sender<Box<dyn Job>>,
    readers: Readers,
    integrity: IntegrityMonitor,
    panics: PanicMonitor,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Db {
    /// Opens or creates the database at `path` (mode 0600), takes it over if it is one that
    /// `migrations` knows how to adopt, brings its schema up to date, and starts its writer thread.
    ///
    /// # Errors
    /// When the file cannot be opened, is damaged, is newer than `migrations`, is not ours, or the
    /// library was compiled without the options this room relies on.
    pub fn open(
        path: &Path,
        migrations: &'static Migrations,
        driver: Driver,
    ) -> Result<Self, Error> {
        let integrity = IntegrityMonitor::new(path, open::prepare(path, migrations)?);
        let panics = PanicMonitor::new();
        // Before the writer: they open nothing until they are asked, and it opens the file at once.
        let readers = Readers::start(path, migrations.name, &integrity, &panics)?;
        let (jobs, queue) = smol::channel::bounded(QUEUE_MAX);
        let writer_path = path.to_path_buf();
        let faults = match &driver {
            Driver::Threaded => None,
            Driver::Inline(faults) => Some(faults.clone()),
        };
        let (watch, writer_integrity) = (panics.watch_writer(queue.clone()), integrity.clone());
        let thread = std::thread::Builder::new()
            .name(format!("{}-writer", migrations.name))
            .spawn(move || {
                let _watch = watch;
                writer::run(&writer_path, &queue, &writer_integrity, faults.as_deref());
            })
            .map_err(|e| Error::new(Kind::Io, format!("cannot start the writer thread: {e}")))?;
        let shared = Shared {
            path: path.to_path_buf(),
            driver,
            jobs,
            readers,
            integrity,
            panics,
            thread: Mutex::new(Some(thread)),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Whether the file is known to be whole (§4.11).
    #[must_use]
    pub fn integrity(&self) -> Integrity {
        self.shared.integrity.current()
    }

    /// Checks the whole file, on a connection of its own that can only read. Blocks, for minutes if
    /// the file is large. Once it found damage, every request is answered with
    /// [`Kind::Corrupt`].
    pub fn check_whole(&self) {
        let integrity = &self.shared.integrity;
        integrity.record_check(Integrity::Checking);
        match check::check(self.path()) {
            Ok(Check::Whole) => integrity.record_check(Integrity::Whole),
            Ok(Check::Damaged(findings)) => integrity.record_damage(&Error::damaged(findings)),
            Err(error) if error.is_damage() => integrity.record_damage(&error),
            Err(error) => {
                tracing::warn!(%error, path = %self.path().display(), "a check could not be made");
                integrity.record_check(Integrity::Unchecked);
            }
        }
    }

    /// Completes when a thread of this database panicked. Nothing works any more then, and only a
    /// new process can help.
    pub async fn lost(&self) {
        self.shared.panics.wait().await;
    }

    /// Runs `job` in the writer's next transaction, waiting for room in its queue.
    ///
    /// `after` runs on the writer thread once the commit is decided, whether or not anybody still
    /// awaits the answer: what must follow a commit hangs on it, because a caller that goes away
    /// cancels the await.
    ///
    /// # Errors
    /// The job's own, or the commit's.
    pub async fn write<T, E, F, A>(&self, durability: Durability, job: F, after: A) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        A: FnOnce(&Result<T, E>) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = WriteRequest::boxed(durability, Undo::Savepoint, job, after, reply);
        if self.shared.jobs.send(request).await.is_err() {
            return Err(Error::closed().into());
        }
        self.answer(answer).await
    }

    /// Runs a job that makes at most one change, in its last statement, synced: the hot path, which
    /// saves the savepoint. Queues the job before it returns and refuses when the queue is full, so
    /// that the caller is told at once; `after` as in [`write`](Self::write).
    ///
    /// # Errors
    /// [`Kind::Busy`] when [`QUEUE_MAX`] jobs already wait; otherwise the job's own or the commit's.
    pub fn try_write_one<T, E, F, A>(
        &self,
        job: F,
        after: A,
    ) -> impl Future<Output = Result<T, E>> + Send + use<T, E, F, A>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        A: FnOnce(&Result<T, E>) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let request = WriteRequest::boxed(Durability::Synced, Undo::Nothing, job, after, reply);
        let sent = self.shared.jobs.try_send(request);
        let db = self.clone();
        async move {
            match sent {
                Ok(()) => db.answer(answer).await,
                Err(TrySendError::Full(_)) => Err(Error::busy().into()),
                Err(TrySendError::Closed(_)) => Err(Error::closed().into()),
            }
        }
    }

    async fn answer<T, E: From<Error>>(
        &self,
        answer: oneshot::Receiver<Result<T, E>>,
    ) -> Result<T, E> {
        let answer = match &self.shared.driver {
            Driver::Threaded => answer.await,
            Driver::Inline(_) => smol::future::block_on(answer),
        };
        answer.unwrap_or_else(|_| Err(Error::closed().into()))
    }

    /// Runs `query` on a read-only connection, off the executor. It sees every commit that was
    /// answered before it began.
    ///
    /// # Errors
    /// The query's own.
    pub async fn read<T, E, F>(&self, query: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let answer = self.shared.readers.run(query).await;
        self.answer(answer).await
    }

    /// Finishes the queued jobs, closes the readers, then checkpoints and closes the writer. Blocks;
    /// every later call on any clone fails with [`Kind::Closed`].
    pub fn close(&self) {
        self.shared.readers.close();
        self.shared.jobs.close();
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(path = %self.shared.path.display(), "the database writer panicked");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Ends the threads; the writer checkpoints on its own.
        self.jobs.close();
    }
}

#[cfg(test)]
mod tests;
