//! Who is who in a mesh, and what a name means (§3.3). Pure: fetching and caching are elsewhere.
//!
//! Connections are grouped by member: one member's several connections are one peer. Known-offline
//! holders of a name count as matches, so that a newcomer cannot inherit a name.

pub mod cache;

use claudemesh_base::wire::RosterEntry;
use claudemesh_fsm::envelope::{Destination, Recipient, is_public_key};
use claudemesh_fsm::id::Millis;
use std::collections::BTreeMap;

/// The shortest hex prefix that may stand for a key.
pub const KEY_PREFIX_MIN: usize = 8;

/// The last roster a broker sent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Roster {
    /// One entry per connection, and per offline member where the broker lists them.
    pub peers: Vec<RosterEntry>,
    /// When it was fetched; `None` if no roster was ever fetched.
    pub as_of: Option<Millis>,
    /// Whether it was fetched over the link that is open now.
    pub is_live: bool,
    /// Told apart from the others of this life, whatever the clock said.
    pub version: u64,
}

/// One member who answers to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberMatch {
    /// Whom to pin.
    pub recipient: Recipient,
    /// The name shown in the roster.
    pub name: String,
    /// Whether any of its connections is up.
    pub online: bool,
}

/// What a name or key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// One member.
    Found(Recipient),
    /// Several members: the caller must choose.
    Ambiguous(Vec<MemberMatch>),
    /// Nobody has ever had that name.
    Unknown,
    /// No roster was ever fetched, so nobody can say.
    NeverFetched,
}

/// Finds the member `to` stands for: a 64-hex key, an exact name, a name in any case, or a hex
/// prefix of at least [`KEY_PREFIX_MIN`] digits, tried in this order.
#[must_use]
pub fn resolve(roster: &Roster, to: &str) -> Resolution {
    if is_public_key(to) {
        return Resolution::Found(pin_key(roster, to.to_ascii_lowercase()));
    }
    if roster.as_of.is_none() {
        return Resolution::NeverFetched;
    }
    let exact = |peer: &RosterEntry| peer.display_name == to;
    let any_case = |peer: &RosterEntry| is_named(peer, to);
    let is_prefix = to.len() >= KEY_PREFIX_MIN && to.bytes().all(|byte| byte.is_ascii_hexdigit());
    let prefix = to.to_ascii_lowercase();
    let by_prefix = |peer: &RosterEntry| {
        is_prefix && (peer.pubkey.starts_with(&prefix) || peer.member_pubkey.starts_with(&prefix))
    };
    let rules: [&dyn Fn(&RosterEntry) -> bool; 3] = [&exact, &any_case, &by_prefix];
    for rule in rules {
        let mut members = by_member(roster.peers.iter().filter(|peer| rule(peer)));
        match members.len() {
            0 => {}
            1 => return Resolution::Found(members.swap_remove(0).recipient),
            _ => return Resolution::Ambiguous(members),
        }
    }
    Resolution::Unknown
}

/// A key needs no roster; where one knows it, the member behind it is pinned too.
fn pin_key(roster: &Roster, key: String) -> Recipient {
    let known = roster.peers.iter().find(|peer| peer.pubkey == key || peer.member_pubkey == key);
    let member_key = known.map_or_else(|| key.clone(), |peer| member_key(peer).to_owned());
    Recipient { routing_key: key, member_key }
}

fn member_key(peer: &RosterEntry) -> &str {
    if peer.member_pubkey.is_empty() { &peer.pubkey } else { &peer.member_pubkey }
}

/// Whether a roster entry is a live connection.
#[must_use]
pub fn is_online(peer: &RosterEntry) -> bool {
    peer.online != Some(false)
}

/// Whether an entry is one that today's network hides from name resolution.
fn is_control_plane(peer: &RosterEntry) -> bool {
    peer.peer_role.as_deref() == Some("control-plane")
}

/// Whether an entry has that name, in whatever case.
fn is_named(peer: &RosterEntry, name: &str) -> bool {
    peer.display_name == name || peer.display_name.to_lowercase() == name.to_lowercase()
}

fn by_member<'a>(peers: impl Iterator<Item = &'a RosterEntry>) -> Vec<MemberMatch> {
    let mut members: BTreeMap<&str, Vec<&RosterEntry>> = BTreeMap::new();
    for peer in peers {
        members.entry(member_key(peer)).or_default().push(peer);
    }
    members.into_values().filter_map(|connections| pick(&connections)).collect()
}

/// The connection to route to: a live session before a live control plane before one that is gone.
fn pick(connections: &[&RosterEntry]) -> Option<MemberMatch> {
    let best = connections.iter().max_by_key(|peer| (is_online(peer), !is_control_plane(peer)))?;
    let member_key = member_key(best).to_owned();
    Some(MemberMatch {
        recipient: Recipient { routing_key: best.pubkey.clone(), member_key },
        name: best.display_name.clone(),
        online: connections.iter().any(|peer| is_online(peer)),
    })
}

/// Where to route to now: the pinned key, or, if that connection is gone and the same member and
/// name has exactly one other, that one (§3.3). Who was addressed by a key has no other.
#[must_use]
pub fn routing_key(roster: &Roster, pinned: &Recipient, destination: &Destination) -> String {
    let Recipient { routing_key, member_key } = pinned;
    let is_member_key = routing_key == member_key;
    let is_there =
        |key: &str| roster.peers.iter().any(|peer| peer.pubkey == key && is_online(peer));
    if is_member_key || !roster.is_live || is_there(routing_key) {
        return routing_key.clone();
    }
    let mut successors = roster.peers.iter().filter(|peer| {
        is_online(peer)
            && !is_control_plane(peer)
            && &peer.member_pubkey == member_key
            && matches!(destination, Destination::Member(name) if is_named(peer, name))
    });
    match (successors.next(), successors.next()) {
        (Some(only), None) => only.pubkey.clone(),
        _ => routing_key.clone(),
    }
}

/// Whether any entry of the roster answers to `to`: which mesh alone knows a target (§3.3).
#[must_use]
pub fn knows(roster: &Roster, to: &str) -> bool {
    if is_public_key(to) {
        let key = to.to_ascii_lowercase();
        return roster.peers.iter().any(|peer| peer.pubkey == key || peer.member_pubkey == key);
    }
    matches!(resolve(roster, to), Resolution::Found(_) | Resolution::Ambiguous(_))
}

#[cfg(test)]
mod tests {
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
        assert!(
            matches!(resolve(&roster, "ALICE"), Resolution::Ambiguous(found) if found.len() == 2)
        );
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
}
