//! Whose rows become due when a roster changes.

use super::*;
use claudemesh_base::wire::RosterEntry;

fn pinned_recipient(key: char, name: &str) -> PinnedRecipient {
    let key = key.to_string().repeat(64);
    (Recipient { routing_key: key.clone(), member_key: key }, Destination::Member(name.into()))
}

fn roster(version: u64, keys: &[char]) -> Roster {
    let peers = keys.iter().map(|key| {
        let key = key.to_string().repeat(64);
        RosterEntry { pubkey: key.clone(), member_pubkey: key, ..RosterEntry::default() }
    });
    Roster { peers: peers.collect(), version, is_live: true, ..Roster::default() }
}

#[test]
fn the_coming_of_one_does_not_make_another_forgotten() {
    let offline_recipients = OfflineRecipients::default();
    let before = roster(1, &[]);
    for (key, name) in [('b', "bob"), ('c', "carol")] {
        offline_recipients.add(pinned_recipient(key, name), before.version, &before);
    }
    assert_eq!(offline_recipients.take_reachable(&roster(2, &['d'])), []);
    assert_eq!(
        offline_recipients.take_reachable(&roster(3, &['d', 'b'])),
        [pinned_recipient('b', "bob")]
    );
    assert_eq!(offline_recipients.take_reachable(&roster(4, &['d', 'b'])), []);
    assert_eq!(
        offline_recipients.take_reachable(&roster(5, &['c'])),
        [pinned_recipient('c', "carol")]
    );
}

#[test]
fn a_roster_that_was_known_at_the_try_does_not_contradict_it() {
    let offline_recipients = OfflineRecipients::default();
    let stale = roster(1, &['b']);
    offline_recipients.add(pinned_recipient('b', "bob"), stale.version, &stale);
    assert_eq!(offline_recipients.take_reachable(&stale), []);
    assert_eq!(offline_recipients.take_reachable(&roster(2, &['b'])).len(), 1);
}

#[test]
fn who_came_while_the_refusal_was_stored_is_not_missed() {
    let offline_recipients = OfflineRecipients::default();
    let missed = offline_recipients.missed();
    let now = roster(2, &['b']);
    offline_recipients.add(pinned_recipient('b', "bob"), 1, &now);
    smol::block_on(missed);
    assert_eq!(offline_recipients.take_reachable(&now).len(), 1);
}

#[test]
fn a_roster_that_lists_who_is_refused_makes_rows_due_once() {
    let offline_recipients = OfflineRecipients::default();
    offline_recipients.add(pinned_recipient('b', "bob"), 1, &roster(1, &['b']));
    assert_eq!(offline_recipients.take_reachable(&roster(2, &['b'])).len(), 1);
    // The answer to a send from before that roster: it says nothing against it.
    offline_recipients.add(pinned_recipient('b', "bob"), 1, &roster(2, &['b']));
    assert_eq!(offline_recipients.take_reachable(&roster(2, &['b'])).len(), 1);
    // Refused again: others come and go, and the broker goes on to list bob.
    offline_recipients.add(pinned_recipient('b', "bob"), 2, &roster(2, &['b']));
    assert_eq!(offline_recipients.take_reachable(&roster(3, &['b', 'c'])), []);
    assert_eq!(offline_recipients.take_reachable(&roster(4, &['b'])), []);
    // He was away, and has come.
    assert_eq!(offline_recipients.take_reachable(&roster(5, &[])), []);
    assert_eq!(offline_recipients.take_reachable(&roster(6, &['b'])).len(), 1);
}
