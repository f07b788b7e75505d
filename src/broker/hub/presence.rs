//! Arriving and leaving: replacement, capacity, two installs of one key, and the presence lease
//! (`specs/wire.md`, §15.6).

use super::{Connection, ConnectionId, Hub, Identity, OutboundQueue, Outgoing, State};
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
const LINGERING_PER_MEMBER_MAX: usize = 8;

/// A presence that outlives its connection for a while, so that a blip is not news.
pub(super) struct LingeringPresence {
    serial: u64,
    pub(super) identity: Identity,
}

/// A connection let in.
pub(crate) struct AdmittedConnection {
    pub(crate) id: ConnectionId,
    /// Whether the peer was present already, so that its coming is not news.
    pub(crate) was_present: bool,
    /// Other installs of the same key that were there (§15.6): closed for this one, or left beside
    /// it, as the mesh's policy says.
    pub(crate) other_installs: usize,
}

/// What became of a wish to be let in.
pub(crate) enum Admission {
    Admitted(AdmittedConnection),
    /// The mesh has as many connections as it may, or the member has.
    Full,
    /// §15.6, `prefer_oldest`.
    AlreadyConnected,
}

/// What a connection that ended leaves behind.
pub(crate) struct DisconnectOutcome {
    pub(crate) member: i64,
    /// Acknowledged and not yet removed from the ledger.
    pub(crate) acks: Vec<i64>,
    /// An older presence of the same member that had to make room.
    pub(crate) evicted: Option<Identity>,
}

/// What an expulsion ended.
pub(crate) struct ExpelOutcome {
    /// How many connections.
    pub(crate) closed: usize,
    /// Those, and the presences that had outlived theirs.
    pub(crate) identities: Vec<Identity>,
    /// Acknowledged and not yet removed from the ledger.
    pub(crate) acks: Vec<i64>,
}

impl Hub {
    /// Whether a mesh has no room for another session.
    pub(crate) fn is_full(&self, mesh: &str, session_id: &str) -> bool {
        let state = self.lock();
        let Some(in_mesh) = state.meshes.get(mesh) else { return false };
        in_mesh.connections.len() >= self.bounds.connections_max
            && !in_mesh
                .connections
                .iter()
                .filter_map(|id| state.connections.get(id))
                .any(|connection| connection.identity.session_id == session_id)
    }

    /// Lets an authenticated connection in, replacing what it replaces.
    pub(crate) fn admit(
        &self,
        identity: Identity,
        outbound: OutboundQueue,
        concurrent: ConnectionPolicy,
    ) -> Admission {
        let mut state = self.lock();
        let (same, installs) = state.conflicting(&identity);
        if !installs.is_empty() && concurrent == ConnectionPolicy::PreferOldest {
            return Admission::AlreadyConnected;
        }
        let other_installs = installs.len();
        let closing =
            if concurrent == ConnectionPolicy::PreferNewest { installs } else { Vec::new() };
        let going = same.len() + closing.len();
        let own = state.members.get(&identity.member).map_or(0, |live| live.connections.len());
        let in_mesh =
            state.meshes.get(&identity.mesh_id).map_or(0, |in_mesh| in_mesh.connections.len());
        if in_mesh - going >= self.bounds.connections_max
            || own - going >= CONNECTIONS_PER_MEMBER_MAX
        {
            return Admission::Full;
        }
        let (mut was_present, mut acks) = (false, Vec::new());
        for (ids, (code, reason)) in [(&same, REPLACED), (&closing, REPLACED_BY_NEWER)] {
            for id in ids {
                if let Some(old) = state.remove(*id) {
                    was_present |=
                        old.is_announced && old.identity.routing_key == identity.routing_key;
                    old.send(Outgoing::Close(code, reason));
                    acks.extend(old.acks);
                }
            }
        }
        was_present |= state.end_lingering(&identity) | state.is_connected(&identity);
        let mut newcomer = Connection::new(identity, outbound);
        newcomer.is_announced = was_present;
        // Of the same member: the newcomer's pump stores them before it reads the queue.
        newcomer.acks = acks;
        let id = state.insert(newcomer);
        Admission::Admitted(AdmittedConnection { id, was_present, other_installs })
    }

    /// The others are about to be told that a connection is there.
    pub(crate) fn set_announced(&self, id: ConnectionId) {
        if let Some(connection) = self.lock().connections.get_mut(&id) {
            connection.is_announced = true;
        }
    }

    /// A connection ended: its leases are free at once, its presence lasts a while longer, unless
    /// nobody knew of it or the same key is still connected. `None` when it had been replaced before.
    pub(crate) fn disconnect(&self, id: ConnectionId, now: Duration) -> Option<DisconnectOutcome> {
        let mut state = self.lock();
        let Connection { identity, acks, is_announced, .. } = state.remove(id)?;
        let member = identity.member;
        if !is_announced || state.is_connected(&identity) {
            return Some(DisconnectOutcome { member, acks, evicted: None });
        }
        let until = now + self.bounds.presence_lease;
        let evicted = state.linger(until, LingeringPresence { serial: id, identity });
        drop(state);
        self.wake_housekeeping();
        Some(DisconnectOutcome { member, acks, evicted })
    }

    /// Removes the presences whose time is up by `now`, and yields them.
    pub(crate) fn expire_presences(&self, now: Duration) -> Vec<Identity> {
        let mut state = self.lock();
        let mut left = Vec::new();
        while let Some((at, ..)) = state.lingering_ends.front()
            && *at <= now
            && let Some((_, mesh, serial)) = state.lingering_ends.pop_front()
        {
            let Some(in_mesh) = state.meshes.get_mut(&mesh) else { continue };
            if let Some(index) =
                in_mesh.lingering.iter().position(|presence| presence.serial == serial)
            {
                left.push(in_mesh.lingering.swap_remove(index).identity);
            }
            if in_mesh.lingering.is_empty() && in_mesh.connections.is_empty() {
                state.meshes.remove(&mesh);
            }
        }
        left
    }

    /// Closes every connection of a member and forgets its presences; yields what was there, so
    /// that the others can be told.
    pub(crate) fn expel(&self, member: i64, close: (u16, &'static str)) -> ExpelOutcome {
        let mut state = self.lock();
        let ids = state.members.get(&member).map(|live| live.connections.clone());
        let ids = ids.unwrap_or_default();
        let (mut identities, mut acks) = (Vec::new(), Vec::new());
        for connection in ids.iter().filter_map(|id| state.remove(*id)) {
            connection.send(Outgoing::Close(close.0, close.1));
            identities.push(connection.identity);
            acks.extend(connection.acks);
        }
        for in_mesh in state.meshes.values_mut() {
            let (theirs, others) = std::mem::take(&mut in_mesh.lingering)
                .into_iter()
                .partition(|presence| presence.identity.member == member);
            in_mesh.lingering = others;
            let theirs: Vec<LingeringPresence> = theirs;
            identities.extend(theirs.into_iter().map(|presence| presence.identity));
        }
        ExpelOutcome { closed: ids.len(), identities, acks }
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
    fn conflicting(&self, new: &Identity) -> (Vec<ConnectionId>, Vec<ConnectionId>) {
        let live = self.members.get(&new.member).map_or(&[][..], |live| &live.connections);
        let found = live.iter().filter_map(|id| self.connections.get(id).map(|c| (*id, c)));
        let mut conflicting = (Vec::new(), Vec::new());
        for (id, old) in found.filter(|(_, old)| old.identity.is_session == new.is_session) {
            let old = &old.identity;
            let is_same_key = new.is_session && old.routing_key == new.routing_key;
            if is_same_key || old.session_id == new.session_id {
                conflicting.0.push(id);
            } else if !new.is_session {
                conflicting.1.push(id);
            }
        }
        conflicting
    }

    fn insert(&mut self, connection: Connection) -> ConnectionId {
        self.last_id += 1;
        let id = self.last_id;
        let identity = &connection.identity;
        self.meshes.entry(identity.mesh_id.clone()).or_default().connections.insert(id);
        self.members.entry(identity.member).or_default().connections.push(id);
        self.rewind_connections(identity.member);
        self.connections.insert(id, connection);
        id
    }

    /// Takes a connection out and frees what was leased to it.
    fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        let identity = &connection.identity;
        if let Some(in_mesh) = self.meshes.get_mut(&identity.mesh_id) {
            in_mesh.connections.remove(&id);
            if in_mesh.connections.is_empty() && in_mesh.lingering.is_empty() {
                self.meshes.remove(&identity.mesh_id);
            }
        }
        if let Some(live) = self.members.get_mut(&identity.member) {
            live.connections.retain(|other| *other != id);
            live.leases.retain(|_, lease| lease.connection != id);
            if live.connections.is_empty() && live.leases.is_empty() {
                self.members.remove(&identity.member);
            }
        }
        self.rewind_connections(identity.member);
        Some(connection)
    }

    /// Which connection takes a member's messages may have changed: the others read again from the
    /// start, skipping what is leased.
    fn rewind_connections(&mut self, member: i64) {
        let Some(live) = self.members.get(&member) else { return };
        for id in &live.connections {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.rewind(0);
            }
        }
    }

    /// Keeps the presence of a peer that is gone until `until`, in place of an older one with its
    /// key. Yields the member's oldest if it has too many.
    fn linger(&mut self, until: Duration, presence: LingeringPresence) -> Option<Identity> {
        let Identity { mesh_id, member, routing_key, .. } = &presence.identity;
        self.lingering_ends.push_back((until, mesh_id.clone(), presence.serial));
        let lingering = &mut self.meshes.entry(mesh_id.clone()).or_default().lingering;
        let is_own = |other: &LingeringPresence| other.identity.member == *member;
        lingering.retain(|other| !is_own(other) || other.identity.routing_key != *routing_key);
        let is_crowded =
            lingering.iter().filter(|other| is_own(other)).count() >= LINGERING_PER_MEMBER_MAX;
        let oldest = lingering.iter().position(is_own).filter(|_| is_crowded);
        let evicted = oldest.map(|oldest| lingering.remove(oldest).identity);
        lingering.push(presence);
        evicted
    }

    /// Ends the lingering of a peer that is back. Says whether there was one.
    fn end_lingering(&mut self, back: &Identity) -> bool {
        let Some(in_mesh) = self.meshes.get_mut(&back.mesh_id) else { return false };
        let before = in_mesh.lingering.len();
        in_mesh.lingering.retain(|presence| {
            let presence = &presence.identity;
            presence.member != back.member
                || (presence.routing_key != back.routing_key
                    && presence.session_id != back.session_id)
        });
        in_mesh.lingering.len() < before
    }
}
