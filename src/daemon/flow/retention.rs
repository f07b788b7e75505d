//! The upkeep flow: once an hour both stores are made as small as §1.2 and §4.5.2 say.
//!
//! It runs beside everything else, in transactions of a millisecond or so with pauses between them:
//! nobody who sends or receives waits for it. It decides nothing by a time that stands in a row: how
//! old a row is, the stores know from the times this flow looked at the clock. Nothing here touches
//! a row that may still be sent.

use crate::store::Error;
use crate::store::inbox::{Bounds, Inbox};
use crate::store::outbox::{Outbox, Walk};
use claudemesh_base::log::Repeated;
use claudemesh_base::runtime::{Runtime, Shutdown};
use claudemesh_fsm::id::Millis;
use futures_lite::FutureExt;
use std::time::Duration;

/// The time between two passes.
pub const EVERY: Duration = Duration::from_secs(60 * 60);
/// The time between two transactions of a pass.
const PAUSE: Duration = Duration::from_millis(10);

/// The flow and what it works on.
pub struct Upkeep {
    outbox: Outbox,
    inbox: Inbox,
    bounds: Bounds,
    runtime: Runtime,
    failing: Repeated,
}

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Outbox rows that are smaller now.
    pub shrunk: usize,
    /// Messages that left the inbox.
    pub pruned: usize,
    /// Messages that are no longer known.
    pub forgotten: usize,
}

impl Upkeep {
    /// Upkeep of both stores, which does nothing until it runs.
    #[must_use]
    pub fn new(outbox: Outbox, inbox: Inbox, bounds: Bounds, runtime: Runtime) -> Self {
        Self { outbox, inbox, bounds, runtime, failing: Repeated::default() }
    }

    /// A pass now, and one every hour, until `stop`.
    pub async fn run(self, stop: Shutdown) {
        let work = async {
            loop {
                self.report(self.pass().await);
                self.runtime.sleep(EVERY).await;
            }
        };
        work.or(stop.wait()).await;
    }

    /// One pass over both stores.
    ///
    /// # Errors
    /// When a store cannot be read or written: the next pass goes on where this one ended.
    pub async fn pass(&self) -> Result<Done, Error> {
        let now = self.runtime.now();
        // A store that fails is no reason to let the other grow.
        let shrunk = self.shrink(now).await;
        self.inbox.witness(now, self.bounds).await?;
        let pruned = self.repeat(|| self.inbox.prune(self.bounds)).await?;
        let forgotten = self.repeat(|| self.inbox.forget(self.bounds)).await?;
        Ok(Done { shrunk: shrunk?, pruned, forgotten })
    }

    async fn shrink(&self, now: Millis) -> Result<usize, Error> {
        self.outbox.witness(now).await?;
        let (mut walk, mut rows) = (Some(Walk::default()), 0);
        while let Some(here) = walk {
            let step = self.outbox.shrink(here, now).await?;
            rows += step.rows;
            walk = step.next;
            self.runtime.sleep(PAUSE).await;
        }
        Ok(rows)
    }

    /// Takes steps until one finds nothing to do.
    async fn repeat<F: Future<Output = Result<usize, Error>>>(
        &self,
        step: impl Fn() -> F,
    ) -> Result<usize, Error> {
        let mut sum = 0;
        loop {
            match step().await? {
                0 => return Ok(sum),
                some => sum += some,
            }
            self.runtime.sleep(PAUSE).await;
        }
    }

    fn report(&self, pass: Result<Done, Error>) {
        match pass {
            Ok(done) => {
                if let Some(failures) = self.failing.ended() {
                    tracing::info!(failures, "the stores can be kept small again");
                }
                let Done { shrunk, pruned, forgotten } = done;
                if done != Done::default() {
                    tracing::info!(shrunk, pruned, forgotten, "the stores were made smaller");
                }
            }
            Err(error) => {
                if self.failing.happened() {
                    tracing::warn!(%error, "the stores cannot be kept small; the next pass is in an hour");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
