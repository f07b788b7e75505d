//! The pump of a connection: acknowledgements into the ledger, waiting messages out of it.

use super::ClientConnection;
use crate::housekeeping::announce_departures;
use crate::hub::{ConnectionId, Hub};
use crate::ledger::LedgerHandle;
use futures_lite::future::or;
use smol::channel::Receiver;
use std::time::Duration;

/// How long a pump waits after the ledger failed.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);

impl ClientConnection {
    /// Moves acknowledgements into the ledger and waiting messages out of it. Those that the ledger
    /// does not take wait with their leases, and hold up no messages.
    pub(super) async fn pump(&self, session: &Receiver<ConnectionId>, woken: &Receiver<()>) {
        let Ok(id) = session.recv().await else { return };
        let Some(identity) = self.context.hub.identity(id) else { return };
        let (hub, ledger) = (&self.context.hub, &self.context.ledger);
        let mut retry_at: Option<Duration> = None;
        loop {
            retry_at = retry_at.filter(|at| self.runtime().monotonic() < *at);
            let acks = if retry_at.is_none() { hub.unstored_acks(id) } else { Vec::new() };
            if !acks.is_empty() {
                match ledger.acknowledge(identity.member, acks.clone()).await {
                    Ok(told) => {
                        hub.settle_acks(id, identity.member, &acks);
                        hub.notify_senders(told);
                    }
                    Err(error) => {
                        self.context.ledger.failed(&error);
                        retry_at = Some(self.runtime().monotonic() + LEDGER_PAUSE);
                    }
                }
            } else if let Some(read) = hub.next_read(id) {
                let found =
                    ledger.due_deliveries(read.filter.clone(), read.after_seq, read.limit).await;
                match found {
                    Ok(found) => hub.deliver(id, &read, found, self.runtime().monotonic()),
                    Err(error) => {
                        hub.read_failed(id);
                        self.context.ledger.failed(&error);
                        self.runtime().sleep(LEDGER_PAUSE).await;
                    }
                }
            } else if !self.wait(woken, retry_at).await {
                return;
            }
        }
    }

    /// Until there is something to do; `false` when there never will be.
    async fn wait(&self, woken: &Receiver<()>, retry_at: Option<Duration>) -> bool {
        let woken = async { woken.recv().await.is_ok() };
        let Some(retry_at) = retry_at else { return woken.await };
        let retry = async {
            self.runtime().sleep_until(retry_at).await;
            true
        };
        or(woken, retry).await
    }

    /// The end: leases are free at once, what was acknowledged is still stored.
    pub(super) async fn disconnect(&self) {
        let Some(id) = self.session() else { return };
        let (hub, ledger) = (&self.context.hub, &self.context.ledger);
        let Some(disconnected) = self.context.hub.disconnect(id, self.runtime().monotonic()) else {
            return;
        };
        store_last_acks(ledger, hub, disconnected.member, disconnected.acks).await;
        announce_departures(
            ledger,
            hub,
            self.runtime(),
            disconnected.evicted.into_iter().collect(),
        )
        .await;
        let touched =
            self.context.ledger.touch_member(disconnected.member, self.runtime().now()).await;
        if let Err(error) = touched {
            self.context.ledger.failed(&error);
        }
    }
}

/// Stores what a connection of a member had acknowledged when it ended.
pub(crate) async fn store_last_acks(ledger: &LedgerHandle, hub: &Hub, member: i64, acks: Vec<i64>) {
    if acks.is_empty() {
        return;
    }
    let stored = ledger.acknowledge(member, acks.clone()).await;
    hub.settle_last_acks(member, &acks, stored.is_ok());
    match stored {
        Ok(told) => hub.notify_senders(told),
        Err(error) => ledger.failed(&error),
    }
}
