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
mod tests;
