//! The receipts flow: what the broker tells of messages after it took them is stored, then announced
//! (§4.13).
//!
//! The broker tells while the link is open, and is asked about the rest when a link opens, when too
//! much came at once, and once a day: whatever was lost on the way is only late. Nothing here
//! changes a row: a message that is done stays done, whoever stores it or does not.

use crate::api::OutboxEvent;
use crate::clock::{Clock, iso};
use crate::courier::Courier;
use crate::events::{Bus, Event, Kind};
use crate::http::Shutdown;
use crate::log::Repeated;
use crate::meshes::Mesh;
use crate::store::Error;
use crate::store::outbox::{Learned, Outbox};
use crate::wire::{RECEIPT_IDS_MAX, Receipt, to_text};
use futures_lite::FutureExt;
use std::sync::Arc;
use std::time::Duration;

/// How long the broker may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How often it is asked about what it did not tell, while the link stays open.
const ASK_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// The least time between two rounds of questions to one broker.
const ASK_PAUSE: Duration = Duration::from_secs(60);

/// The receipts flow of one mesh.
pub struct Receipts {
    mesh: Mesh,
    outbox: Outbox,
    bus: Bus,
    clock: Clock,
    store_failing: Repeated,
}

impl Receipts {
    /// A flow that does nothing until it runs.
    #[must_use]
    pub fn new(mesh: Mesh, outbox: Outbox, bus: Bus, clock: Clock) -> Self {
        Self { mesh, outbox, bus, clock, store_failing: Repeated::default() }
    }

    /// Stores what is told, and asks, until `stop`.
    pub async fn run(self, stop: Shutdown) {
        self.listen().or(self.ask()).or(stop.wait()).await;
    }

    async fn listen(&self) {
        loop {
            let told = self.mesh.next_receipts().await;
            self.store(told).await;
        }
    }

    async fn ask(&self) {
        let mut spent = None;
        loop {
            let courier = self.mesh.courier(spent.as_ref()).await;
            let mut is_open = true;
            while is_open {
                let dropped = self.mesh.receipts_dropped();
                self.ask_for_all(&courier).await;
                let closed = async {
                    courier.closed().await;
                    false
                };
                let again = async {
                    self.clock.sleep(ASK_PAUSE).await;
                    self.clock.timeout(ASK_EVERY, dropped).await;
                    true
                };
                is_open = closed.or(again).await;
            }
            spent = Some(courier);
        }
    }

    /// Asks about every message of which more may be learned, page by page.
    async fn ask_for_all(&self, courier: &Arc<dyn Courier>) {
        let mut page_from = Some(0);
        while let Some(after_seq) = page_from {
            let slug = self.mesh.slug();
            let open = match self.outbox.open_receipts(slug, after_seq, RECEIPT_IDS_MAX).await {
                Ok(open) => open,
                Err(error) => return self.note_store_failed(&error),
            };
            if open.ids.is_empty() {
                return;
            }
            let answer = self.clock.timeout(ANSWER_MAX, courier.receipts(open.ids)).await;
            // A broker that does not tell, or does not answer, will not tell the rest either.
            let Some(Some(receipts)) = answer else { return };
            self.store(receipts).await;
            page_from = open.next_after_seq;
        }
    }

    async fn store(&self, told: Vec<Receipt>) {
        let (slug, now) = (self.mesh.slug(), self.clock.now());
        match self.outbox.store_receipts(slug, told, now).await {
            Ok(learned) => {
                if let Some(failures) = self.store_failing.ended() {
                    tracing::info!(mesh = slug, failures, "receipts can be stored again");
                }
                learned.into_iter().for_each(|learned| self.announce(learned));
            }
            Err(error) => self.note_store_failed(&error),
        }
    }

    fn announce(&self, learned: Learned) {
        let data = || {
            to_text(&OutboxEvent {
                ts: iso(self.clock.now()),
                mesh: self.mesh.slug().to_owned(),
                client_message_id: learned.client_message_id.clone(),
                status: learned.status.as_str().to_owned(),
                broker_message_id: learned.broker_message_id.clone(),
                last_error: None,
                receipt: Some(learned.receipt.into()),
            })
        };
        self.bus.publish_with(|| Event { kind: Kind::Outbox, seq: None, data: data() });
    }

    /// What is not stored now is asked for later.
    fn note_store_failed(&self, error: &Error) {
        if self.store_failing.happened() {
            let mesh = self.mesh.slug();
            tracing::warn!(mesh, %error, "receipts cannot be stored; they are asked for again");
        }
    }
}
