//! What is known of a database while it is in use: whether its file is whole (§4.11), and whether
//! one of its threads was lost.
//!
//! Damage is remembered for as long as the database is open. Nothing is written to a damaged file,
//! which could only make it worse, and nothing is read from it, which could not be trusted.

use super::Error;
use super::job::Job;
use smol::channel::{Receiver, Sender};
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether a database's file is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Integrity {
    /// Its header and schema are; the rest was not looked at yet.
    Unchecked,
    /// It is being looked at.
    Checking,
    /// Every page was in order when it was looked at, and nothing was found since.
    Whole,
    /// What was found, in words.
    Damaged(String),
}

impl Integrity {
    /// The word of `GET /v1/health`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unchecked | Self::Checking => "checking",
            Self::Whole => "whole",
            Self::Damaged(_) => "damaged",
        }
    }
}

/// Shared by everything that works on one database.
#[derive(Clone)]
pub(super) struct IntegrityMonitor {
    path: Arc<Path>,
    known: Arc<Mutex<Integrity>>,
}

impl IntegrityMonitor {
    pub(super) fn new(path: &Path, integrity: Integrity) -> Self {
        Self { path: path.into(), known: Arc::new(Mutex::new(integrity)) }
    }

    pub(super) fn current(&self) -> Integrity {
        self.lock().clone()
    }

    /// A check came to its end, or begins. Damage stays damage.
    pub(super) fn record_check(&self, integrity: Integrity) {
        let mut known = self.lock();
        if !matches!(*known, Integrity::Damaged(_)) {
            *known = integrity;
        }
    }

    /// Damage was found. Logged once.
    pub(super) fn record_damage(&self, error: &Error) {
        let mut known = self.lock();
        if !matches!(*known, Integrity::Damaged(_)) {
            let path = self.path.display();
            tracing::error!(%error, %path, "a database is damaged and is not used any more: stop the daemon and see `claudemesh daemon recover`");
            *known = Integrity::Damaged(error.to_string());
        }
    }

    /// What every request is answered once damage was found.
    ///
    /// # Errors
    /// [`Kind::Corrupt`](super::Kind::Corrupt).
    pub(super) fn require_undamaged(&self) -> Result<(), Error> {
        match &*self.lock() {
            Integrity::Damaged(why) => Err(Error::damaged(why.clone())),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Integrity> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether a thread of a database panicked. Such a database is lost: its queue is closed, and
/// whoever waits is answered.
#[derive(Clone)]
pub(super) struct PanicMonitor {
    // Never sent on; it is closed when a thread is lost.
    lost: Sender<Infallible>,
    closed: Receiver<Infallible>,
}

impl PanicMonitor {
    pub(super) fn new() -> Self {
        let (lost, closed) = smol::channel::bounded(1);
        Self { lost, closed }
    }

    /// Completes when a thread panicked.
    pub(super) async fn wait(&self) {
        let _ = self.closed.recv().await;
    }

    /// Watches the thread that holds this.
    pub(super) fn watch_writer(&self, queue: Receiver<Box<dyn Job>>) -> impl Drop + Send + use<> {
        let panics = self.clone();
        OnPanic(Some(move || {
            queue.close();
            while let Ok(job) = queue.try_recv() {
                job.answer(Err(Error::closed()));
            }
            panics.lost.close();
        }))
    }

    /// Watches the thread that holds this.
    pub(super) fn watch_reader(&self) -> impl Drop + Send + use<> {
        let panics = self.clone();
        OnPanic(Some(move || {
            panics.lost.close();
        }))
    }
}

/// Runs its work when it is dropped by a panic.
struct OnPanic<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if let Some(work) = self.0.take().filter(|_| std::thread::panicking()) {
            work();
        }
    }
}
