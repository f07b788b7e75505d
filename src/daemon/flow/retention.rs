//! The retention flow: once an hour both stores are made as small as §1.2 and §4.5.2 say.
//!
//! It runs beside everything else, in transactions of a millisecond or so with pauses between them:
//! nobody who sends or receives waits for it. It decides nothing by a time that stands in a row: how
//! old a row is, the stores know from the times this flow looked at the clock. Nothing here touches
//! a row that may still be sent.

use crate::store::Error;
use crate::store::inbox::{Inbox, InboxLimits};
use crate::store::outbox::{Outbox, ShrinkPhase};
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
pub struct RetentionFlow {
    outbox: Outbox,
    inbox: Inbox,
    bounds: InboxLimits,
    runtime: Runtime,
    failing: Repeated,
}

/// What one pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Outbox rows that are smaller now.
    pub shrunk: usize,
    /// Messages that left the inbox.
    pub pruned: usize,
    /// Messages that are no longer known.
    pub forgotten: usize,
}

impl RetentionFlow {
    /// Retention of both stores, which does nothing until it runs.
    #[must_use]
    pub fn new(outbox: Outbox, inbox: Inbox, bounds: InboxLimits, runtime: Runtime) -> Self {
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
    pub async fn pass(&self) -> Result<RetentionReport, Error> {
        let now = self.runtime.now();
        // A store that fails is no reason to let the other grow.
        let shrunk = self.shrink(now).await;
        self.inbox.observe_clock(now, self.bounds).await?;
        let pruned = self.repeat(|| self.inbox.prune(self.bounds)).await?;
        let forgotten = self.repeat(|| self.inbox.forget(self.bounds)).await?;
        Ok(RetentionReport { shrunk: shrunk?, pruned, forgotten })
    }

    async fn shrink(&self, now: Millis) -> Result<usize, Error> {
        self.outbox.observe_clock(now).await?;
        let (mut phase, mut rows) = (Some(ShrinkPhase::default()), 0);
        while let Some(here) = phase {
            let step = self.outbox.shrink(here, now).await?;
            rows += step.rows;
            phase = step.next;
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

    fn report(&self, pass: Result<RetentionReport, Error>) {
        match pass {
            Ok(done) => {
                if let Some(failures) = self.failing.ended() {
                    tracing::info!(failures, "the stores can be kept small again");
                }
                let RetentionReport { shrunk, pruned, forgotten } = done;
                if done != RetentionReport::default() {
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
