//! Reader threads: each with a read-only connection and its prepared statements.

use super::integrity::{IntegrityMonitor, PanicMonitor};
use super::{Error, Kind, Tx, files};
use futures_channel::oneshot;
use smol::channel::{Receiver, Sender};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// How many queries of one database run at once.
const THREADS: usize = 2;

type Query = Box<dyn FnOnce(Result<&Tx<'_>, Error>) + Send>;

pub(super) struct Readers {
    queries: Sender<Query>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Readers {
    pub(super) fn start(
        path: &Path,
        name: &str,
        integrity: &IntegrityMonitor,
        panics: &PanicMonitor,
    ) -> Result<Self, Error> {
        let (queries, queue) = smol::channel::bounded(super::QUEUE_MAX);
        let start = |_| {
            let (path, queue, watch) = (path.to_path_buf(), queue.clone(), panics.watch_reader());
            let integrity = integrity.clone();
            std::thread::Builder::new()
                .name(format!("{name}-reader"))
                .spawn(move || {
                    let _watch = watch;
                    run(&path, &queue, &integrity);
                })
                .map_err(|e| Error::new(Kind::Io, format!("cannot start a reader thread: {e}")))
        };
        let threads = (0..THREADS).map(start).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { queries, threads: Mutex::new(threads) })
    }

    pub(super) async fn run<T, E>(
        &self,
        query: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, E>>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let query: Query = Box::new(move |tx| {
            let result = tx.map_err(E::from).and_then(|tx| in_read_transaction(tx, query));
            // Nobody waiting is fine: the caller went away.
            let _ = reply.send(result);
        });
        // Closed: the dropped reply says so.
        let _ = self.queries.send(query).await;
        answer
    }

    /// Ends the threads once they have answered what is queued. Blocks.
    pub(super) fn close(&self) {
        self.queries.close();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a database reader panicked");
            }
        }
    }
}

/// Runs a query in one read transaction, so that its statements see one moment.
fn in_read_transaction<T, E: From<Error>>(
    tx: &Tx<'_>,
    query: impl FnOnce(&Tx<'_>) -> Result<T, E>,
) -> Result<T, E> {
    tx.execute("BEGIN", &[])?;
    let result = query(tx);
    tx.execute("ROLLBACK", &[])?;
    result
}

fn run(path: &Path, queue: &Receiver<Query>, integrity: &IntegrityMonitor) {
    // Opened by the first query: most databases of an idle daemon are never read.
    while let Ok(first) = queue.recv_blocking() {
        match files::connect_read_only(path) {
            // The next query tries again.
            Err(error) => first(Err(error)),
            Ok(connection) => {
                let tx = Tx::monitored(&connection, integrity);
                first(integrity.require_undamaged().map(|()| &tx));
                while let Ok(query) = queue.recv_blocking() {
                    query(integrity.require_undamaged().map(|()| &tx));
                }
            }
        }
    }
}
