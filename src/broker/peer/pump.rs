//! The pump of a connection: acknowledgements into the ledger, waiting messages out of it.

use super::Peer;
use crate::broker::keeper;
use crate::broker::route::ConnectionId;
use crate::db;
use smol::channel::Receiver;
use std::time::Duration;

/// How long a pump waits after the ledger failed.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

impl Peer {
    /// Moves acknowledgements into the ledger and waiting messages out of it.
    pub(super) async fn pump(&self, session: &Receiver<ConnectionId>, woken: &Receiver<()>) {
        let Ok(id) = session.recv().await else { return };
        let Some(identity) = self.broker.hub.identity(id) else { return };
        let (hub, ledger) = (&self.broker.hub, &self.broker.ledger);
        loop {
            let acks = hub.take_acks(id);
            if !acks.is_empty() {
                let done = ledger.acknowledge(identity.member, acks.clone()).await;
                hub.settle_acks(identity.member, &acks, done.is_ok());
                match done {
                    Ok(told) => hub.tell_receipts(told),
                    Err(error) => self.pause_after(error).await,
                }
            } else if let Some(read) = hub.next_read(id) {
                let found = ledger.waiting(read.mailbox.clone(), read.after_seq, read.limit).await;
                match found {
                    Ok(found) => hub.deliver(id, &read, found, self.clock().monotonic()),
                    Err(error) => {
                        hub.read_failed(id);
                        self.pause_after(error).await;
                    }
                }
            } else if woken.recv().await.is_err() {
                return;
            }
        }
    }

    async fn pause_after(&self, error: db::Error) {
        tracing::warn!(%error, "the ledger does not answer a connection; trying again");
        self.clock().sleep(LEDGER_PAUSE).await;
    }

    /// The end: leases are free at once, what was acknowledged is still stored.
    pub(super) async fn depart(&self) {
        let Some(id) = self.session() else { return };
        let Some(departed) = self.broker.hub.depart(id, self.clock().monotonic()) else { return };
        keeper::announce_left(&self.broker, departed.crowded_out.into_iter().collect());
        let ledger = &self.broker.ledger;
        let stored = ledger.acknowledge(departed.member, departed.acks).await;
        let stored = stored.map(|told| self.broker.hub.tell_receipts(told));
        let touched = ledger.touch_member(departed.member, self.clock().now()).await;
        if let Err(error) = stored.and(touched) {
            tracing::debug!(%error, "the last words of a connection were not stored");
        }
    }
}
