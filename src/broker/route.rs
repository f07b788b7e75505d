//! Who is connected right now, and which connection a message goes to.
//!
//! All of it is memory, behind one short lock, and all of it may be lost: the ledger is the truth,
//! and a connection that comes back reads its queue there. Nothing here waits, reads a clock or
//! touches a socket; a connection is a bounded queue of frames, and one that does not drain it is
//! told to go (§17).

mod lines;
mod mail;
mod presence;

pub(crate) use lines::{Ends, Lines, Outgoing};
pub(crate) use mail::Parcel;
pub(crate) use presence::Admission;

use super::counters::Counters;
use super::ledger::{Sender as Author, Told};
use async_tungstenite::tungstenite::Utf8Bytes;
use claudemesh_base::wire::{BrokerFrame, Receipt, ReceiptsFrame, to_text};
use claudemesh_fsm::id::Millis;
use mail::Lease;
use presence::Ghost;
use smol::channel::{self, Receiver, Sender};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pushes a connection may have unacknowledged: what bounds memory at 100,000 waiting messages.
pub(crate) const UNACKED_MAX: usize = 256;
/// Acknowledgements a connection may have that the ledger does not take: while its disk is full,
/// each is a lease in memory.
const UNSTORED_ACKS_MAX: usize = 1024;

/// Names one connection of this process.
pub(crate) type ConnectionId = u64;

/// The connections, queues in flight and presences of every mesh.
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Wakes the keeper when there is a first deadline to wait for.
    alarm: Sender<()>,
    bounds: Bounds,
    counters: Arc<Counters>,
}

/// The hub's share of the settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// How long a push may stay unacknowledged.
    pub(crate) lease: Duration,
    /// How long a closed connection counts as present.
    pub(crate) presence_lease: Duration,
    /// Connections of one mesh.
    pub(crate) connections_max: usize,
}

#[derive(Default)]
struct State {
    last_id: ConnectionId,
    connections: HashMap<ConnectionId, Connection>,
    rooms: HashMap<String, Room>,
    /// By the ledger's number of the member.
    members: HashMap<i64, Live>,
    /// When each lease ends, in the order they began: all last equally long.
    lease_ends: VecDeque<(Duration, i64, i64)>,
    /// When each ghost goes, likewise.
    ghost_ends: VecDeque<(Duration, String, u64)>,
}

/// One mesh.
#[derive(Default)]
struct Room {
    connections: BTreeSet<ConnectionId>,
    ghosts: Vec<Ghost>,
}

/// One member that is connected or has pushes in flight.
#[derive(Default)]
struct Live {
    connections: Vec<ConnectionId>,
    /// By message number.
    leases: BTreeMap<i64, Lease>,
}

/// One authenticated connection.
pub(crate) struct Connection {
    pub(crate) identity: Identity,
    pub(crate) offline_roster: bool,
    /// Whether the client wants to know what becomes of its messages (§4.13).
    wants_receipts: bool,
    lines: Lines,
    /// Everything up to this message number was read from the ledger or handed over.
    cursor: i64,
    progress: Progress,
    /// Counts rewinds, so that a read that ran meanwhile does not move the cursor past one.
    rewinds: u64,
    /// Whether the client is ready for its queue: after hello and negotiation.
    is_open: bool,
    unacked: usize,
    /// Acknowledged, not yet removed from the ledger, the oldest first.
    acks: Vec<i64>,
    /// Whether the others know that this peer is there, so that its leaving is news.
    is_known: bool,
}

/// How far a connection has read its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Something may wait beyond the cursor.
    Behind,
    /// A read runs, and nothing came meanwhile.
    Reading,
    /// Nothing waits beyond the cursor: a new message may be handed over directly.
    CaughtUp,
}

/// Who a connection is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    pub(crate) mesh_id: String,
    /// The ledger's number of the member.
    pub(crate) member: i64,
    pub(crate) member_pubkey: String,
    /// The session key, or the member key.
    pub(crate) routing_key: String,
    pub(crate) is_session: bool,
    pub(crate) session_id: String,
    pub(crate) name: String,
    pub(crate) connected_at: Millis,
    /// What the roster shows besides: cwd, hostname and the like.
    pub(crate) shown: serde_json::Map<String, serde_json::Value>,
}

impl Hub {
    /// An empty hub, and what the keeper listens to.
    pub(crate) fn new(bounds: Bounds, counters: Arc<Counters>) -> (Self, Receiver<()>) {
        let (alarm, rings) = channel::bounded(1);
        (Self { state: Mutex::default(), alarm, bounds, counters }, rings)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody in a mesh for whom `audience` holds.
    pub(crate) fn broadcast(
        &self,
        mesh: &str,
        frame: &Utf8Bytes,
        audience: impl Fn(&Identity) -> bool,
    ) {
        let state = self.lock();
        let Some(room) = state.rooms.get(mesh) else { return };
        for connection in room.connections.iter().filter_map(|id| state.connections.get(id)) {
            if audience(&connection.identity) {
                connection.send(Outgoing::Frame(frame.clone()));
            }
        }
    }

    /// Who a connection is; `None` once it was replaced.
    pub(crate) fn identity(&self, id: ConnectionId) -> Option<Identity> {
        self.lock().connections.get(&id).map(|connection| connection.identity.clone())
    }

    /// A connection as the author of a message.
    pub(crate) fn author(&self, id: ConnectionId) -> Option<Author> {
        let state = self.lock();
        let own = &state.connections.get(&id)?.identity;
        Some(Author {
            mesh_id: own.mesh_id.clone(),
            member: own.member,
            member_pubkey: own.member_pubkey.clone(),
            routing_key: own.routing_key.clone(),
            name: own.name.clone(),
            other_connection: state.other_connection(own),
        })
    }

    /// Who is connected to a mesh, and who left less than a presence lease ago.
    pub(crate) fn present(&self, mesh: &str) -> (Vec<Identity>, Vec<Identity>) {
        let (live, ghosts) = self.present_as(mesh);
        (live.into_iter().map(|(_, identity)| identity).collect(), ghosts)
    }

    /// The same with the connections' ids, oldest first; presences have none.
    pub(crate) fn present_as(&self, mesh: &str) -> (Vec<(ConnectionId, Identity)>, Vec<Identity>) {
        let state = self.lock();
        let Some(room) = state.rooms.get(mesh) else { return Default::default() };
        let live = room.connections.iter().filter_map(|id| {
            state.connections.get(id).map(|connection| (*id, connection.identity.clone()))
        });
        let ghosts = room.ghosts.iter().map(|ghost| ghost.identity.clone()).collect();
        (live.collect(), ghosts)
    }

    /// Tells one connection something.
    pub(crate) fn tell(&self, id: ConnectionId, frame: &Utf8Bytes) {
        if let Some(connection) = self.lock().connections.get(&id) {
            connection.send(Outgoing::Frame(frame.clone()));
        }
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    /// Whether a connection asked to see offline members.
    pub(crate) fn wants_offline(&self, id: ConnectionId) -> bool {
        self.lock().connections.get(&id).is_some_and(|connection| connection.offline_roster)
    }

    /// Remembers that a connection asked to see offline members.
    pub(crate) fn set_wants_offline(&self, id: ConnectionId) {
        if let Some(connection) = self.lock().connections.get_mut(&id) {
            connection.offline_roster = true;
        }
    }

    /// Remembers that a connection asked to be told receipts.
    pub(crate) fn set_wants_receipts(&self, id: ConnectionId) {
        if let Some(connection) = self.lock().connections.get_mut(&id) {
            connection.wants_receipts = true;
        }
    }

    /// Tells the senders of messages what became of them, those that are connected and asked to
    /// know; the others ask when they come back.
    pub(crate) fn tell_receipts(&self, told: Vec<Told>) {
        let mut by_sender: HashMap<i64, Vec<Receipt>> = HashMap::new();
        for Told { sender, receipt } in told {
            by_sender.entry(sender).or_default().push(receipt);
        }
        let state = self.lock();
        for (sender, receipts) in by_sender {
            let Some(live) = state.members.get(&sender) else { continue };
            let curious = live.connections.iter().filter_map(|id| state.connections.get(id));
            // News for a slow reader would close its connection; it can ask instead.
            let mut curious = curious
                .filter(|connection| connection.wants_receipts && connection.lines.has_room())
                .peekable();
            if curious.peek().is_some() {
                let frame = BrokerFrame::Receipts(ReceiptsFrame { receipts, request_id: None });
                let frame = Utf8Bytes::from(to_text(&frame));
                curious.for_each(|connection| {
                    connection.send(Outgoing::Frame(frame.clone()));
                });
            }
        }
    }

    /// Closes every connection, as the broker goes down.
    pub(crate) fn close_all(&self, code: u16, reason: &'static str) {
        for connection in self.lock().connections.values() {
            connection.send(Outgoing::Close(code, reason));
        }
    }

    /// Whether a peer is connected under this key.
    pub(crate) fn is_connected(&self, who: &Identity) -> bool {
        self.lock().is_connected(who)
    }

    /// The next moment at which a lease or a presence ends.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        let state = self.lock();
        let lease = state.lease_ends.front().map(|(at, ..)| *at);
        let ghost = state.ghost_ends.front().map(|(at, ..)| *at);
        match (lease, ghost) {
            (Some(lease), Some(ghost)) => Some(lease.min(ghost)),
            (one, other) => one.or(other),
        }
    }

    fn ring(&self) {
        // A full channel means the keeper is about to look anyway.
        let _ = self.alarm.try_send(());
    }
}

impl State {
    /// Whether the same member has a connection with the same routing key.
    fn is_connected(&self, who: &Identity) -> bool {
        let live = self.members.get(&who.member).map_or(&[][..], |live| &live.connections);
        let mut found = live.iter().filter_map(|id| self.connections.get(id));
        found.any(|connection| connection.identity.routing_key == who.routing_key)
    }

    /// The routing key of another live connection of the same member: where a message to oneself
    /// goes. A session before a member connection, the newest first.
    fn other_connection(&self, own: &Identity) -> Option<String> {
        let others = self.members.get(&own.member)?.connections.iter();
        others
            .filter_map(|id| self.connections.get(id).map(|found| (id, &found.identity)))
            .filter(|(_, identity)| identity.routing_key != own.routing_key)
            .max_by_key(|(id, identity)| (identity.is_session, **id))
            .map(|(_, identity)| identity.routing_key.clone())
    }
}

impl Connection {
    fn new(identity: Identity, lines: Lines) -> Self {
        Self {
            identity,
            offline_roster: false,
            wants_receipts: false,
            lines,
            cursor: 0,
            progress: Progress::Behind,
            rewinds: 0,
            is_open: false,
            unacked: 0,
            acks: Vec::new(),
            is_known: false,
        }
    }

    /// Queues a frame; see [`Lines::send`].
    fn send(&self, outgoing: Outgoing) -> bool {
        self.lines.send(outgoing)
    }

    /// Whether it may be given another message now.
    fn takes_mail(&self) -> bool {
        self.unacked < UNACKED_MAX && self.acks.len() < UNSTORED_ACKS_MAX && self.lines.has_room()
    }

    /// Reads the queue again from the start: something before the cursor is free again.
    fn rewind(&mut self, to: i64) {
        self.cursor = self.cursor.min(to);
        self.progress = Progress::Behind;
        self.rewinds += 1;
        self.lines.wake();
    }
}

#[cfg(test)]
mod tests;
