//! The receipts flow: what the broker tells of messages after it took them is stored, then announced
//! (§4.13).
//!
//! The broker tells while the link is open, and is asked about the rest when a link opens, when
//! something it told was lost, and once a day: whatever was lost on the way is only late. Nothing
//! here changes a row: a message that is done stays done, whoever stores it or does not.

use crate::events::{Event, EventBus, EventContent};
use crate::mesh::Mesh;
use crate::port::LinkTransport;
use crate::store::Error;
use crate::store::outbox::{Outbox, ReportedReceipt};
use claudemesh_base::log::Repeated;
use claudemesh_base::runtime::{Runtime, Shutdown};
use claudemesh_base::wire::{RECEIPT_IDS_MAX, Receipt};
use claudemesh_fsm::retry::doubling;
use futures_lite::FutureExt;
use std::sync::Arc;
use std::time::Duration;

/// How long the broker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How often it is asked about what it did not tell, while the link stays open.
const ASK_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The least time between two rounds of questions to one broker. After a round that failed it is
/// twice as long as before, up to [`ASK_EVERY`].
const ASK_PAUSE: Duration = Duration::from_secs(60);

/// The receipts flow of one mesh.
pub struct ReceiptFlow {
    mesh: Mesh,
    outbox: Outbox,
    bus: EventBus,
    runtime: Runtime,
    store_failing: Repeated,
}

impl ReceiptFlow {
    /// A flow that does nothing until it runs.
    #[must_use]
    pub fn new(mesh: Mesh, outbox: Outbox, bus: EventBus, runtime: Runtime) -> Self {
        Self { mesh, outbox, bus, runtime, store_failing: Repeated::default() }
    }

    /// Stores what is told, and asks, until `stop`.
    pub async fn run(self, stop: Shutdown) {
        self.listen().or(self.ask()).or(stop.wait()).await;
    }

    async fn listen(&self) {
        loop {
            let reported = self.mesh.next_receipts().await;
            if self.store(reported).await.is_err() {
                self.mesh.drop_receipts();
            }
        }
    }

    async fn ask(&self) {
        let mut previous = None;
        loop {
            let transport = self.mesh.transport(previous.as_ref()).await;
            let (mut is_open, mut failed) = (true, 0);
            while is_open {
                let dropped = self.mesh.receipts_dropped();
                let is_whole = self.ask_for_all(&transport).await.is_ok();
                failed = if is_whole { 0 } else { failed + 1 };
                let closed = async {
                    transport.closed().await;
                    false
                };
                let again = async {
                    self.runtime.sleep(pause_after(failed)).await;
                    if is_whole {
                        self.runtime.timeout(ASK_EVERY, dropped).await;
                    }
                    true
                };
                is_open = closed.or(again).await;
            }
            previous = Some(transport);
        }
    }

    /// Asks about every message of which more may be learned, page by page.
    async fn ask_for_all(&self, transport: &Arc<dyn LinkTransport>) -> Result<(), Incomplete> {
        let mut page_from = Some(0);
        while let Some(after_seq) = page_from {
            let open = self.outbox.open_receipts(self.mesh.slug(), after_seq, RECEIPT_IDS_MAX);
            let open = open.await.map_err(|error| self.note_store_failed(&error))?;
            if open.ids.is_empty() {
                break;
            }
            let answer = self.runtime.timeout(ANSWER_MAX, transport.receipts(open.ids)).await;
            // A broker that does not answer this will not answer the rest at once either.
            let answer = answer.ok_or(Incomplete)?;
            // It does not tell, or it is gone.
            let Some(receipts) = answer else { break };
            self.store(receipts).await?;
            page_from = open.next_after_seq;
        }
        Ok(())
    }

    async fn store(&self, reported: Vec<Receipt>) -> Result<(), Incomplete> {
        let (slug, now) = (self.mesh.slug(), self.runtime.now());
        let reported = reported.into_iter().map(as_reported).collect();
        let stored = self.outbox.store_receipts(slug, reported, now).await;
        let update = stored.map_err(|error| self.note_store_failed(&error))?;
        if let Some(failures) = self.store_failing.ended() {
            tracing::info!(mesh = slug, failures, "receipts can be stored again");
        }
        for update in update {
            let mesh = slug.to_owned();
            let content = EventContent::Receipt { mesh, update };
            self.bus.publish(|| Event { at: now, content });
        }
        Ok(())
    }

    /// What is not stored now is asked for later.
    fn note_store_failed(&self, error: &Error) -> Incomplete {
        if self.store_failing.happened() {
            let mesh = self.mesh.slug();
            tracing::warn!(mesh, %error, "receipts cannot be stored; they are asked for again");
        }
        Incomplete
    }
}

fn as_reported(receipt: Receipt) -> ReportedReceipt {
    let Receipt { client_message_id, recipients, stored, expired } = receipt;
    ReportedReceipt { client_message_id, recipients, stored, expired }
}

/// Between two rounds, the last so many of which failed.
fn pause_after(failed: u32) -> Duration {
    doubling(ASK_PAUSE, failed, ASK_EVERY)
}

/// Something is left to ask for.
struct Incomplete;

#[cfg(test)]
mod tests;
