//! What a name or a key stands for.

use super::*;

fn peer(name: &str, key: char, member: char, online: bool) -> RosterEntry {
    RosterEntry {
        pubkey: key.to_string().repeat(64),
        member_pubkey: member.to_string().repeat(64),
        display_name: name.to_owned(),
        online: (!online).then_some(false),
        ..RosterEntry::default()
    }
}

fn roster(peers: Vec<RosterEntry>) -> Roster {
    Roster { peers, as_of: Some(Millis(1)), is_live: true, version: 1 }
}

fn found(resolution: Resolution) -> (char, char) {
    let Resolution::Found(recipient) = resolution else { panic!("{resolution:?}") };
    let first = |key: &str| key.chars().next().expect("a key");
    (first(&recipient.routing_key), first(&recipient.member_key))
}

#[test]
fn a_key_needs_no_roster() {
    let key = "A".repeat(64);
    assert_eq!(found(resolve(&Roster::default(), &key)), ('a', 'a'));
    let known = roster(vec![peer("alice", 'a', 'b', true)]);
    assert_eq!(found(resolve(&known, &key)), ('a', 'b'));
}

#[test]
fn an_exact_name_wins_over_another_case_and_over_a_prefix() {
    let roster = roster(vec![peer("Alice", 'a', 'a', true), peer("alice", 'b', 'b', true)]);
    assert_eq!(found(resolve(&roster, "alice")), ('b', 'b'));
    assert!(matches!(resolve(&roster, "ALICE"), Resolution::Ambiguous(found) if found.len() == 2));
    assert_eq!(found(resolve(&roster, "aaaaaaaa")), ('a', 'a'));
    assert_eq!(resolve(&roster, "aaaaaaa"), Resolution::Unknown);
}

#[test]
fn one_members_connections_are_one_peer_and_a_live_one_is_preferred() {
    let roster = roster(vec![peer("bob", '1', 'b', false), peer("bob", '2', 'b', true)]);
    assert_eq!(found(resolve(&roster, "bob")), ('2', 'b'));
}

#[test]
fn a_newcomer_cannot_inherit_the_name_of_somebody_who_is_offline() {
    let roster = roster(vec![peer("carol", 'c', 'c', false), peer("carol", 'd', 'd', true)]);
    assert!(matches!(resolve(&roster, "carol"), Resolution::Ambiguous(_)));
}

#[test]
fn an_unknown_name_and_an_unknown_roster_are_told_apart() {
    assert_eq!(resolve(&roster(vec![]), "dave"), Resolution::Unknown);
    assert_eq!(resolve(&Roster::default(), "dave"), Resolution::NeverFetched);
}
/// Where a message for the session `1` of member `b` goes, which the caller wrote as `to`.
fn routed(roster: &Roster, to: &str) -> char {
    let [routing_key, member_key] = ['1', 'b'].map(|key| key.to_string().repeat(64));
    let destination = Destination::parse(to).expect("names somebody");
    let key = super::routing_key(roster, &Recipient { routing_key, member_key }, &destination);
    key.chars().next().expect("a key")
}

#[test]
fn a_session_that_is_there_keeps_its_messages() {
    let roster = roster(vec![peer("api", '1', 'b', true), peer("api", '2', 'b', true)]);
    assert_eq!(routed(&roster, "api"), '1');
}

#[test]
fn the_only_other_session_of_that_member_and_name_takes_over() {
    let others = vec![
        peer("api", '2', 'b', true),
        peer("web", '3', 'b', true),
        peer("api", '4', 'c', true),
        peer("api", '5', 'b', false),
        RosterEntry { peer_role: Some("control-plane".into()), ..peer("api", '6', 'b', true) },
    ];
    let whole = roster(others.clone());
    assert_eq!((routed(&whole, "api"), routed(&whole, "API")), ('2', '2'));
    let without_api = roster(others[1..].to_vec());
    assert_eq!(routed(&without_api, "api"), '1', "another name, member or role");
    let stale = Roster { is_live: false, ..whole };
    assert_eq!(routed(&stale, "api"), '1', "nobody knows whether it is gone");
}

#[test]
fn two_sessions_of_one_name_are_not_chosen_between() {
    let roster = roster(vec![peer("api", '2', 'b', true), peer("api", '3', 'b', true)]);
    assert_eq!(routed(&roster, "api"), '1');
}

#[test]
fn who_was_addressed_by_a_key_has_no_successor() {
    let roster = roster(vec![peer("api", '2', 'b', true)]);
    assert_eq!(routed(&roster, &"1".repeat(64)), '1');
    assert_eq!(routed(&roster, "11111111"), '1');
}
