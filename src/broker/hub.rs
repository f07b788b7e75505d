//! Who is connected right now, and which connection a message goes to.
//!
//! All of it is memory, behind one short lock, and all of it may be lost: the ledger is the truth,
//! and a connection that comes back reads its queue there. Nothing here waits, reads a clock or
//! touches a socket; a connection is a bounded queue of frames, and one that does not drain it is
//! told to go (§17).

mod announce;
mod delivery;
mod outbound_queue;
mod presence;

pub(crate) use delivery::EncodedPush;
pub(crate) use outbound_queue::{ConnectionEnds, OutboundQueue, Outgoing};
pub(crate) use presence::Admission;

use super::counters::Counters;
use super::ledger::{MessageSender, ReceiptNotice};
use async_tungstenite::tungstenite::Utf8Bytes;
use claudemesh_base::wire::{BrokerFrame, Receipt, ReceiptsFrame, to_text};
use claudemesh_fsm::id::Millis;
use delivery::Lease;
use presence::LingeringPresence;
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
    /// Wakes housekeeping when there is a first deadline to wait for.
    wakeup: Sender<()>,
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
    meshes: HashMap<String, MeshConnections>,
    /// By the ledger's number of the member.
    members: HashMap<i64, OnlineMember>,
    /// When each lease ends, in the order they began: all last equally long.
    lease_ends: VecDeque<(Duration, i64, i64)>,
    /// When each presence goes, likewise.
    lingering_ends: VecDeque<(Duration, String, u64)>,
}

/// One mesh.
#[derive(Default)]
struct MeshConnections {
    connections: BTreeSet<ConnectionId>,
    lingering: Vec<LingeringPresence>,
}

/// One member that is connected or has pushes in flight.
#[derive(Default)]
struct OnlineMember {
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
    outbound: OutboundQueue,
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
    is_announced: bool,
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
    pub(crate) roster_details: serde_json::Map<String, serde_json::Value>,
}

impl Hub {
    /// An empty hub, and what housekeeping listens to.
    pub(crate) fn new(bounds: Bounds, counters: Arc<Counters>) -> (Self, Receiver<()>) {
        let (wakeup, wakeups) = channel::bounded(1);
        (Self { state: Mutex::default(), wakeup, bounds, counters }, wakeups)
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
        let Some(in_mesh) = state.meshes.get(mesh) else { return };
        for connection in in_mesh.connections.iter().filter_map(|id| state.connections.get(id)) {
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
    pub(crate) fn message_sender(&self, id: ConnectionId) -> Option<MessageSender> {
        let state = self.lock();
        let own = &state.connections.get(&id)?.identity;
        Some(MessageSender {
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
        let (live, lingering) = self.present_as(mesh);
        (live.into_iter().map(|(_, identity)| identity).collect(), lingering)
    }

    /// The same with the connections' ids, oldest first; presences have none.
    pub(crate) fn present_as(&self, mesh: &str) -> (Vec<(ConnectionId, Identity)>, Vec<Identity>) {
        let state = self.lock();
        let Some(in_mesh) = state.meshes.get(mesh) else { return Default::default() };
        let live = in_mesh.connections.iter().filter_map(|id| {
            state.connections.get(id).map(|connection| (*id, connection.identity.clone()))
        });
        let lingering =
            in_mesh.lingering.iter().map(|presence| presence.identity.clone()).collect();
        (live.collect(), lingering)
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
    pub(crate) fn notify_senders(&self, told: Vec<ReceiptNotice>) {
        let mut by_sender: HashMap<i64, Vec<Receipt>> = HashMap::new();
        for ReceiptNotice { sender, receipt } in told {
            by_sender.entry(sender).or_default().push(receipt);
        }
        let state = self.lock();
        for (sender, receipts) in by_sender {
            let Some(live) = state.members.get(&sender) else { continue };
            let subscribed = live.connections.iter().filter_map(|id| state.connections.get(id));
            // News for a slow reader would close its connection; it can ask instead.
            let mut subscribed = subscribed
                .filter(|connection| connection.wants_receipts && connection.outbound.has_room())
                .peekable();
            if subscribed.peek().is_some() {
                let frame = BrokerFrame::Receipts(ReceiptsFrame { receipts, request_id: None });
                let frame = Utf8Bytes::from(to_text(&frame));
                subscribed.for_each(|connection| {
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
        let presence = state.lingering_ends.front().map(|(at, ..)| *at);
        match (lease, presence) {
            (Some(lease), Some(presence)) => Some(lease.min(presence)),
            (one, other) => one.or(other),
        }
    }

    fn wake_housekeeping(&self) {
        // A full channel means housekeeping is about to look anyway.
        let _ = self.wakeup.try_send(());
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
    fn new(identity: Identity, outbound: OutboundQueue) -> Self {
        Self {
            identity,
            offline_roster: false,
            wants_receipts: false,
            outbound,
            cursor: 0,
            progress: Progress::Behind,
            rewinds: 0,
            is_open: false,
            unacked: 0,
            acks: Vec::new(),
            is_announced: false,
        }
    }

    /// Queues a frame; see [`OutboundQueue::send`].
    fn send(&self, outgoing: Outgoing) -> bool {
        self.outbound.send(outgoing)
    }

    /// Whether it may be given another message now.
    fn takes_messages(&self) -> bool {
        self.unacked < UNACKED_MAX
            && self.acks.len() < UNSTORED_ACKS_MAX
            && self.outbound.has_room()
    }

    /// Reads the queue again from the start: something before the cursor is free again.
    fn rewind(&mut self, to: i64) {
        self.cursor = self.cursor.min(to);
        self.progress = Progress::Behind;
        self.rewinds += 1;
        self.outbound.wake();
    }
}

#[cfg(test)]
mod tests;
