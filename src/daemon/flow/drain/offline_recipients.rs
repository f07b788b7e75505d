//! Whom the drain waits for: recipients of whom the broker said that they are not there (§4.6).

use super::{DrainFlow, STORE_RETRY};
use crate::mesh::roster::{self, Roster};
use crate::store::Error as StoreError;
use claudemesh_fsm::envelope::{Destination, Recipient};
use claudemesh_fsm::outbox::{Inflight, Row};
use event_listener::{Event, EventListener};
use futures_lite::FutureExt;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A recipient, and what the caller wrote for it.
pub(super) type PinnedRecipient = (Recipient, Destination);

/// No roster has this version.
const NO_VERSION: u64 = u64::MAX;

/// The recipients that rows of one mesh wait for. Rows of an earlier life are not among them: a
/// start makes every row due (§4.11).
#[derive(Default)]
pub(super) struct OfflineRecipients {
    absent: Mutex<BTreeMap<PinnedRecipient, RecipientStatus>>,
    missed: Event,
}

/// What is known of somebody who was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RecipientStatus {
    /// Rows wait. They were tried when the roster of this version was known: only another one says
    /// anything about it.
    Absent { tried_at_version: u64 },
    /// The roster of this version listed it, and its rows were made due.
    Expedited { by: u64 },
    /// A send was refused all the same. As long as rosters go on to list it, they say nothing.
    Contradicted,
}

impl OfflineRecipients {
    /// A row waits for `pinned_recipient`, and is stored as waiting. It was tried when the roster of
    /// version `tried_at_version` was known.
    pub(super) fn add(
        &self,
        pinned_recipient: PinnedRecipient,
        tried_at_version: u64,
        roster: &Roster,
    ) {
        let mut absent = self.lock();
        let status =
            absent.entry(pinned_recipient).or_insert(RecipientStatus::Absent { tried_at_version });
        *status = match status {
            RecipientStatus::Expedited { by } if tried_at_version >= *by => {
                RecipientStatus::Contradicted
            }
            RecipientStatus::Contradicted => RecipientStatus::Contradicted,
            RecipientStatus::Absent { .. } | RecipientStatus::Expedited { .. } => {
                RecipientStatus::Absent { tried_at_version }
            }
        };
        if roster.version != tried_at_version {
            self.missed.notify(usize::MAX);
        }
    }

    /// Completes when somebody is added who may have come before that.
    pub(super) fn missed(&self) -> EventListener {
        self.missed.listen()
    }

    /// Who can be reached, by a roster that is newer than the last try: their rows are to be made
    /// due.
    pub(super) fn take_reachable(&self, roster: &Roster) -> Vec<PinnedRecipient> {
        let online = roster.peers.iter().filter(|peer| roster::is_online(peer));
        let here: HashSet<&str> =
            online.flat_map(|peer| [peer.pubkey.as_str(), peer.member_pubkey.as_str()]).collect();
        let is_reachable = |(recipient, destination): &PinnedRecipient| {
            [&recipient.routing_key, &recipient.member_key].iter().any(|key| here.contains(&***key))
                && here.contains(&*roster::routing_key(roster, recipient, destination))
        };
        let mut reachable = Vec::new();
        self.lock().retain(|pinned_recipient, status| {
            match (*status, is_reachable(pinned_recipient)) {
                (RecipientStatus::Absent { tried_at_version }, true)
                    if tried_at_version != roster.version =>
                {
                    reachable.push(pinned_recipient.clone());
                    *status = RecipientStatus::Expedited { by: roster.version };
                }
                // Nothing waits any more, as far as is known.
                (RecipientStatus::Expedited { .. }, false) => return false,
                (RecipientStatus::Contradicted, false) => {
                    *status = RecipientStatus::Absent { tried_at_version: roster.version };
                }
                _ => {}
            }
            true
        });
        reachable
    }

    /// Nothing could be done for them: they are looked at again.
    pub(super) fn put_back(&self, pinned_recipients: Vec<PinnedRecipient>) {
        let again = RecipientStatus::Absent { tried_at_version: NO_VERSION };
        self.lock().extend(
            pinned_recipients.into_iter().map(|pinned_recipient| (pinned_recipient, again)),
        );
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PinnedRecipient, RecipientStatus>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a row is for, if it is sealed to somebody.
pub(super) fn pinned_recipient(row: &Row<Inflight>) -> Option<PinnedRecipient> {
    let envelope = row.envelope();
    Some((envelope.recipient.clone()?, envelope.destination.clone()))
}

impl DrainFlow {
    /// Rows that wait for a recipient who is there now need not wait for the cap (§4.6).
    pub(super) async fn expedite_reachable(&self) {
        loop {
            // Listening before looking: what changes meanwhile is looked at, too.
            let (changed, missed) = (self.mesh.roster_changed(), self.offline_recipients.missed());
            let here =
                self.mesh.with_roster(|roster| self.offline_recipients.take_reachable(roster));
            match self.expedite(&here).await {
                Ok(()) => changed.or(missed).await,
                Err(error) => {
                    self.offline_recipients.put_back(here);
                    self.note_store_failed(&error);
                    self.runtime.sleep(STORE_RETRY).await;
                }
            }
        }
    }

    async fn expedite(&self, pinned_recipients: &[PinnedRecipient]) -> Result<(), StoreError> {
        if pinned_recipients.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> =
            pinned_recipients.iter().map(|(pinned, _)| &*pinned.routing_key).collect();
        let expedited =
            self.outbox.expedite_recipients(self.mesh.slug(), &keys, self.runtime.now()).await?;
        if expedited > 0 {
            self.mesh.wake_drain();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
