//! Arriving and leaving: replacement, capacity, two installs of one key, and the presence lease
//! (`specs/wire.md`, §15.6).

use super::{Connection, ConnectionId, Hub, Identity, Lines, Outgoing, State};
use claudemesh_fsm::negotiate::ConnectionPolicy;
use std::time::Duration;

/// Close code and reason for a connection whose place another one took.
const REPLACED: (u16, &str) = (1000, "session_replaced");
/// §15.6: the older of two installs.
const REPLACED_BY_NEWER: (u16, &str) = (4003, "replaced_by_newer_connection");
/// Connections of one member: it must not take all of its mesh's.
const CONNECTIONS_PER_MEMBER_MAX: usize = 64;
/// Presences that one member may leave behind: one that comes and goes under ever new names must
/// not fill the roster.
const GHOSTS_PER_MEMBER_MAX: usize = 8;

/// A presence that outlives its connection for a while, so that a blip is not news.
pub(super) struct Ghost {
    serial: u64,
    pub(super) identity: Identity,
}

/// A connection let in.
pub(crate) struct Arrival {
    pub(crate) id: ConnectionId,
    /// Whether the peer was present already, so that its coming is not news.
    pub(crate) was_present: bool,
    /// Other installs of the same key that were there (§15.6): closed for this one, or left beside
    /// it, as the mesh's policy says.
    pub(crate) other_installs: usize,
}

/// What became of a wish to be let in.
pub(crate) enum Admission {
    Admitted(Arrival),
    /// The mesh has as many connections as it may, or the member has.
    Full,
    /// §15.6, `prefer_oldest`.
    AlreadyConnected,
}

/// What a connection that ended leaves behind.
pub(crate) struct Departed {
    pub(crate) member: i64,
    /// Acknowledged and not yet removed from the ledger.
    pub(crate) acks: Vec<i64>,
    /// An older presence of the same member that had to make room.
    pub(crate) crowded_out: Option<Identity>,
}

/// What an expulsion ended.
pub(crate) struct Expelled {
    /// How many connections.
    pub(crate) closed: usize,
    /// Those, and the presences that had outlived theirs.
    pub(crate) gone: Vec<Identity>,
    /// Acknowledged and not yet removed from the ledger.
    pub(crate) acks: Vec<i64>,
}

impl Hub {
    /// Whether a mesh has no room for another session.
    pub(crate) fn is_full(&self, mesh: &str, session_id: &str) -> bool {
        let state = self.lock();
        let Some(room) = state.rooms.get(mesh) else { return false };
        room.connections.len() >= self.bounds.connections_max
            && !room
                .connections
                .iter()
                .filter_map(|id| state.connections.get(id))
                .any(|connection| connection.identity.session_id == session_id)
    }

    /// Lets an authenticated connection in, replacing what it replaces.
    pub(crate) fn admit(
        &self,
        identity: Identity,
        lines: Lines,
        concurrent: ConnectionPolicy,
    ) -> Admission {
        let mut state = self.lock();
        let (same, installs) = state.rivals(&identity);
        if !installs.is_empty() && concurrent == ConnectionPolicy::PreferOldest {
            return Admission::AlreadyConnected;
        }
        let other_installs = installs.len();
        let closing =
            if concurrent == ConnectionPolicy::PreferNewest { installs } else { Vec::new() };
        let going = same.len() + closing.len();
        let own = state.members.get(&identity.member).map_or(0, |live| live.connections.len());
        let room = state.rooms.get(&identity.mesh_id).map_or(0, |room| room.connections.len());
        if room - going >= self.bounds.connections_max || own - going >= CONNECTIONS_PER_MEMBER_MAX
        {
            return Admission::Full;
        }
        let (mut was_present, mut acks) = (false, Vec::new());
        for (ids, (code, reason)) in [(&same, REPLACED), (&closing, REPLACED_BY_NEWER)] {
            for id in ids {
                if let Some(old) = state.remove(*id) {
                    was_present |= old.is_known && old.identity.routing_key == identity.routing_key;
                    old.send(Outgoing::Close(code, reason));
                    acks.extend(old.acks);
                }
            }
        }
        was_present |= state.lay_ghosts(&identity) | state.is_connected(&identity);
        let mut newcomer = Connection::new(identity, lines);
        newcomer.is_known = was_present;
        // Of the same member: the newcomer's pump stores them before it reads the queue.
        newcomer.acks = acks;
        let id = state.insert(newcomer);
        Admission::Admitted(Arrival { id, was_present, other_installs })
    }

    /// The others are about to be told that a connection is there.
    pub(crate) fn set_known(&self, id: ConnectionId) {
        if let Some(connection) = self.lock().connections.get_mut(&id) {
            connection.is_known = true;
        }
    }

    /// A connection ended: its leases are free at once, its presence lasts a while longer, unless
    /// nobody knew of it or the same key is still connected. `None` when it had been replaced before.
    pub(crate) fn depart(&self, id: ConnectionId, now: Duration) -> Option<Departed> {
        let mut state = self.lock();
        let Connection { identity, acks, is_known, .. } = state.remove(id)?;
        let member = identity.member;
        if !is_known || state.is_connected(&identity) {
            return Some(Departed { member, acks, crowded_out: None });
        }
        let until = now + self.bounds.presence_lease;
        let crowded_out = state.leave_ghost(until, Ghost { serial: id, identity });
        drop(state);
        self.ring();
        Some(Departed { member, acks, crowded_out })
    }

    /// Removes the presences whose time is up by `now`, and yields them.
    pub(crate) fn exorcise(&self, now: Duration) -> Vec<Identity> {
        let mut state = self.lock();
        let mut left = Vec::new();
        while let Some((at, ..)) = state.ghost_ends.front()
            && *at <= now
            && let Some((_, mesh, serial)) = state.ghost_ends.pop_front()
        {
            let Some(room) = state.rooms.get_mut(&mesh) else { continue };
            if let Some(index) = room.ghosts.iter().position(|ghost| ghost.serial == serial) {
                left.push(room.ghosts.swap_remove(index).identity);
            }
            if room.ghosts.is_empty() && room.connections.is_empty() {
                state.rooms.remove(&mesh);
            }
        }
        left
    }

    /// Closes every connection of a member and forgets its presences; yields what was there, so
    /// that the others can be told.
    pub(crate) fn expel(&self, member: i64, close: (u16, &'static str)) -> Expelled {
        let mut state = self.lock();
        let ids = state.members.get(&member).map(|live| live.connections.clone());
        let ids = ids.unwrap_or_default();
        let (mut gone, mut acks) = (Vec::new(), Vec::new());
        for connection in ids.iter().filter_map(|id| state.remove(*id)) {
            connection.send(Outgoing::Close(close.0, close.1));
            gone.push(connection.identity);
            acks.extend(connection.acks);
        }
        for room in state.rooms.values_mut() {
            let (theirs, others) = std::mem::take(&mut room.ghosts)
                .into_iter()
                .partition(|ghost| ghost.identity.member == member);
            room.ghosts = others;
            let theirs: Vec<Ghost> = theirs;
            gone.extend(theirs.into_iter().map(|ghost| ghost.identity));
        }
        Expelled { closed: ids.len(), gone, acks }
    }

    /// How many connections a member has.
    pub(crate) fn connections_of(&self, member: i64) -> usize {
        self.lock().members.get(&member).map_or(0, |live| live.connections.len())
    }

    /// Mesh and key of every session that is connected.
    pub(crate) fn session_keys(&self) -> Vec<(String, String)> {
        let state = self.lock();
        let identities = state.connections.values().map(|connection| &connection.identity);
        identities
            .filter(|identity| identity.routing_key != identity.member_pubkey)
            .map(|identity| (identity.mesh_id.clone(), identity.routing_key.clone()))
            .collect()
    }
}

impl State {
    /// The connections a newcomer replaces as the same session, and the other installs of its
    /// member key.
    fn rivals(&self, new: &Identity) -> (Vec<ConnectionId>, Vec<ConnectionId>) {
        let live = self.members.get(&new.member).map_or(&[][..], |live| &live.connections);
        let found = live.iter().filter_map(|id| self.connections.get(id).map(|c| (*id, c)));
        let mut rivals = (Vec::new(), Vec::new());
        for (id, old) in found.filter(|(_, old)| old.identity.is_session == new.is_session) {
            let old = &old.identity;
            let is_same_key = new.is_session && old.routing_key == new.routing_key;
            if is_same_key || old.session_id == new.session_id {
                rivals.0.push(id);
            } else if !new.is_session {
                rivals.1.push(id);
            }
        }
        rivals
    }

    fn insert(&mut self, connection: Connection) -> ConnectionId {
        self.last_id += 1;
        let id = self.last_id;
        let identity = &connection.identity;
        self.rooms.entry(identity.mesh_id.clone()).or_default().connections.insert(id);
        self.members.entry(identity.member).or_default().connections.push(id);
        self.reconsider(identity.member);
        self.connections.insert(id, connection);
        id
    }

    /// Takes a connection out and frees what was leased to it.
    fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        let identity = &connection.identity;
        if let Some(room) = self.rooms.get_mut(&identity.mesh_id) {
            room.connections.remove(&id);
            if room.connections.is_empty() && room.ghosts.is_empty() {
                self.rooms.remove(&identity.mesh_id);
            }
        }
        if let Some(live) = self.members.get_mut(&identity.member) {
            live.connections.retain(|other| *other != id);
            live.leases.retain(|_, lease| lease.connection != id);
            if live.connections.is_empty() && live.leases.is_empty() {
                self.members.remove(&identity.member);
            }
        }
        self.reconsider(identity.member);
        Some(connection)
    }

    /// Which connection takes a member's mail may have changed: the others read again from the
    /// start, skipping what is leased.
    fn reconsider(&mut self, member: i64) {
        let Some(live) = self.members.get(&member) else { return };
        for id in &live.connections {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.rewind(0);
            }
        }
    }

    /// Keeps the presence of a peer that is gone until `until`, in place of an older one with its
    /// key. Yields the member's oldest if it has too many.
    fn leave_ghost(&mut self, until: Duration, ghost: Ghost) -> Option<Identity> {
        let Identity { mesh_id, member, routing_key, .. } = &ghost.identity;
        self.ghost_ends.push_back((until, mesh_id.clone(), ghost.serial));
        let ghosts = &mut self.rooms.entry(mesh_id.clone()).or_default().ghosts;
        let is_own = |other: &Ghost| other.identity.member == *member;
        ghosts.retain(|other| !is_own(other) || other.identity.routing_key != *routing_key);
        let is_crowded =
            ghosts.iter().filter(|other| is_own(other)).count() >= GHOSTS_PER_MEMBER_MAX;
        let oldest = ghosts.iter().position(is_own).filter(|_| is_crowded);
        let crowded_out = oldest.map(|oldest| ghosts.remove(oldest).identity);
        ghosts.push(ghost);
        crowded_out
    }

    /// Ends the ghosts of a peer that is back. Says whether there was one.
    fn lay_ghosts(&mut self, back: &Identity) -> bool {
        let Some(room) = self.rooms.get_mut(&back.mesh_id) else { return false };
        let before = room.ghosts.len();
        room.ghosts.retain(|ghost| {
            let ghost = &ghost.identity;
            ghost.member != back.member
                || (ghost.routing_key != back.routing_key && ghost.session_id != back.session_id)
        });
        room.ghosts.len() < before
    }
}
