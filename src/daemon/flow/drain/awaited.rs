//! Whom the drain waits for: recipients of whom the broker said that they are not there (§4.6).

use super::{Drain, STORE_RETRY};
use crate::mesh::roster::{self, Roster};
use crate::store::Error as StoreError;
use claudemesh_fsm::envelope::{Destination, Recipient};
use claudemesh_fsm::outbox::{Inflight, Row};
use event_listener::{Event, EventListener};
use futures_lite::FutureExt;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A recipient, and what the caller wrote for it.
pub(super) type Addressee = (Recipient, Destination);

/// No roster has this version.
const NO_VERSION: u64 = u64::MAX;

/// The recipients that rows of one mesh wait for. Rows of an earlier life are not among them: a
/// start makes every row due (§4.11).
#[derive(Default)]
pub(super) struct Awaited {
    absent: Mutex<BTreeMap<Addressee, Standing>>,
    missed: Event,
}

/// What is known of somebody who was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Rows wait. They were tried when the roster of this version was known: only another one says
    /// anything about it.
    Absent { tried_under: u64 },
    /// The roster of this version listed it, and its rows were made due.
    Hastened { by: u64 },
    /// A send was refused all the same. As long as rosters go on to list it, they say nothing.
    Contradicted,
}

impl Awaited {
    /// A row waits for `addressee`, and is stored as waiting. It was tried when the roster of
    /// version `tried_under` was known.
    pub(super) fn add(&self, addressee: Addressee, tried_under: u64, roster: &Roster) {
        let mut absent = self.lock();
        let standing = absent.entry(addressee).or_insert(Standing::Absent { tried_under });
        *standing = match standing {
            Standing::Hastened { by } if tried_under >= *by => Standing::Contradicted,
            Standing::Contradicted => Standing::Contradicted,
            Standing::Absent { .. } | Standing::Hastened { .. } => Standing::Absent { tried_under },
        };
        if roster.version != tried_under {
            self.missed.notify(usize::MAX);
        }
    }

    /// Completes when somebody is added who may have come before that.
    pub(super) fn missed(&self) -> EventListener {
        self.missed.listen()
    }

    /// Who can be reached, by a roster that is newer than the last try: their rows are to be made
    /// due.
    pub(super) fn take_reachable(&self, roster: &Roster) -> Vec<Addressee> {
        let online = roster.peers.iter().filter(|peer| roster::is_online(peer));
        let here: HashSet<&str> =
            online.flat_map(|peer| [peer.pubkey.as_str(), peer.member_pubkey.as_str()]).collect();
        let is_reachable = |(recipient, destination): &Addressee| {
            [&recipient.routing_key, &recipient.member_key].iter().any(|key| here.contains(&***key))
                && here.contains(&*roster::routing_key(roster, recipient, destination))
        };
        let mut reachable = Vec::new();
        self.lock().retain(|addressee, standing| {
            match (*standing, is_reachable(addressee)) {
                (Standing::Absent { tried_under }, true) if tried_under != roster.version => {
                    reachable.push(addressee.clone());
                    *standing = Standing::Hastened { by: roster.version };
                }
                // Nothing waits any more, as far as is known.
                (Standing::Hastened { .. }, false) => return false,
                (Standing::Contradicted, false) => {
                    *standing = Standing::Absent { tried_under: roster.version };
                }
                _ => {}
            }
            true
        });
        reachable
    }

    /// Nothing could be done for them: they are looked at again.
    pub(super) fn put_back(&self, addressees: Vec<Addressee>) {
        let again = Standing::Absent { tried_under: NO_VERSION };
        self.lock().extend(addressees.into_iter().map(|addressee| (addressee, again)));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Addressee, Standing>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a row is for, if it is sealed to somebody.
pub(super) fn addressee(row: &Row<Inflight>) -> Option<Addressee> {
    let envelope = row.envelope();
    Some((envelope.recipient.clone()?, envelope.destination.clone()))
}

impl Drain {
    /// Rows that wait for a recipient who is there now need not wait for the cap (§4.6).
    pub(super) async fn hasten_who_comes(&self) {
        loop {
            // Listening before looking: what changes meanwhile is looked at, too.
            let (changed, missed) = (self.mesh.roster_changed(), self.awaited.missed());
            let here = self.mesh.with_roster(|roster| self.awaited.take_reachable(roster));
            match self.hasten(&here).await {
                Ok(()) => changed.or(missed).await,
                Err(error) => {
                    self.awaited.put_back(here);
                    self.note_store_failed(&error);
                    self.runtime.sleep(STORE_RETRY).await;
                }
            }
        }
    }

    async fn hasten(&self, addressees: &[Addressee]) -> Result<(), StoreError> {
        if addressees.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = addressees.iter().map(|(pinned, _)| &*pinned.routing_key).collect();
        let hastened =
            self.outbox.hasten_recipients(self.mesh.slug(), &keys, self.runtime.now()).await?;
        if hastened > 0 {
            self.mesh.wake_drain();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claudemesh_base::wire::Peer;

    fn addressee(key: char, name: &str) -> Addressee {
        let key = key.to_string().repeat(64);
        (Recipient { routing_key: key.clone(), member_key: key }, Destination::Member(name.into()))
    }

    fn roster(version: u64, keys: &[char]) -> Roster {
        let peers = keys.iter().map(|key| {
            let key = key.to_string().repeat(64);
            Peer { pubkey: key.clone(), member_pubkey: key, ..Peer::default() }
        });
        Roster { peers: peers.collect(), version, is_live: true, ..Roster::default() }
    }

    #[test]
    fn the_coming_of_one_does_not_make_another_forgotten() {
        let awaited = Awaited::default();
        let before = roster(1, &[]);
        for (key, name) in [('b', "bob"), ('c', "carol")] {
            awaited.add(addressee(key, name), before.version, &before);
        }
        assert_eq!(awaited.take_reachable(&roster(2, &['d'])), []);
        assert_eq!(awaited.take_reachable(&roster(3, &['d', 'b'])), [addressee('b', "bob")]);
        assert_eq!(awaited.take_reachable(&roster(4, &['d', 'b'])), []);
        assert_eq!(awaited.take_reachable(&roster(5, &['c'])), [addressee('c', "carol")]);
    }

    #[test]
    fn a_roster_that_was_known_at_the_try_does_not_contradict_it() {
        let awaited = Awaited::default();
        let stale = roster(1, &['b']);
        awaited.add(addressee('b', "bob"), stale.version, &stale);
        assert_eq!(awaited.take_reachable(&stale), []);
        assert_eq!(awaited.take_reachable(&roster(2, &['b'])).len(), 1);
    }

    #[test]
    fn who_came_while_the_refusal_was_stored_is_not_missed() {
        let awaited = Awaited::default();
        let missed = awaited.missed();
        let now = roster(2, &['b']);
        awaited.add(addressee('b', "bob"), 1, &now);
        smol::block_on(missed);
        assert_eq!(awaited.take_reachable(&now).len(), 1);
    }

    #[test]
    fn a_roster_that_lists_who_is_refused_makes_rows_due_once() {
        let awaited = Awaited::default();
        awaited.add(addressee('b', "bob"), 1, &roster(1, &['b']));
        assert_eq!(awaited.take_reachable(&roster(2, &['b'])).len(), 1);
        // The answer to a send from before that roster: it says nothing against it.
        awaited.add(addressee('b', "bob"), 1, &roster(2, &['b']));
        assert_eq!(awaited.take_reachable(&roster(2, &['b'])).len(), 1);
        // Refused again: others come and go, and the broker goes on to list bob.
        awaited.add(addressee('b', "bob"), 2, &roster(2, &['b']));
        assert_eq!(awaited.take_reachable(&roster(3, &['b', 'c'])), []);
        assert_eq!(awaited.take_reachable(&roster(4, &['b'])), []);
        // He was away, and has come.
        assert_eq!(awaited.take_reachable(&roster(5, &[])), []);
        assert_eq!(awaited.take_reachable(&roster(6, &['b'])).len(), 1);
    }
}
