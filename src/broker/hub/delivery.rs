//! Leases: which connection holds which message, and until when (§17.1).
//!
//! A push is a lease of one delivery to one connection. It ends with the client's acknowledgement,
//! with the connection, or with time; in the last two cases the message is free for the member's
//! next connection, which may be the same one. A duplicate push is possible and harmless; a message
//! that nobody leases and nobody pushes is not possible while its member is connected.

use super::{Connection, ConnectionId, Hub, Outgoing, Progress, State, UNACKED_MAX};
use crate::ledger::{QueueFilter, QueuedMessage, Recipient};
use async_tungstenite::tungstenite::Utf8Bytes;
use claudemesh_base::wire::{BrokerFrame, ClientAck, to_text};
use std::time::Duration;

/// Messages read from the ledger at once: bounds the memory of one read to 64 frames.
const READ_MAX: usize = 64;
/// Acknowledgements stored at once.
const ACKS_AT_ONCE_MAX: usize = 256;

/// A message in somebody's hands.
pub(super) struct Lease {
    pub(super) connection: ConnectionId,
    ends: Duration,
    message_id: String,
    client_message_id: Option<String>,
    /// Acknowledged; the ledger is being told.
    pub(super) is_acked: bool,
}

/// A message as the frame that is pushed.
#[derive(Clone)]
pub(crate) struct EncodedPush {
    pub(crate) seq: i64,
    pub(crate) message_id: String,
    pub(crate) client_message_id: Option<String>,
    pub(crate) frame: Utf8Bytes,
}

/// A read of the ledger that a connection's pump should do.
pub(crate) struct QueueRead {
    pub(crate) filter: QueueFilter,
    pub(crate) after_seq: i64,
    pub(crate) limit: usize,
    rewinds: u64,
}

impl Hub {
    /// A message was committed: hands it to the connection that takes it if that one has nothing
    /// older to do, and wakes it otherwise. Called in the order of commits.
    pub(crate) fn offer(
        &self,
        recipient: &Recipient,
        seq: i64,
        now: Duration,
        push: impl FnOnce() -> EncodedPush,
    ) {
        let (member, only_key) = (recipient.member, recipient.only_key.as_deref());
        let state = &mut *self.lock();
        let Some(id) = state.receiving_connection(member, only_key) else { return };
        // A pump that read the ledger since the commit may have handed this one over already.
        if state.members.get(&member).is_some_and(|live| live.leases.contains_key(&seq)) {
            return;
        }
        let Some(connection) = state.connections.get(&id) else { return };
        if seq <= connection.cursor {
            return;
        }
        if connection.progress != Progress::CaughtUp || !connection.takes_messages() {
            state.mark_behind(id);
            return;
        }
        let is_first = state.lease_ends.is_empty();
        state.push_with_lease(id, member, push(), now + self.bounds.lease);
        if let Some(connection) = state.connections.get_mut(&id) {
            connection.cursor = connection.cursor.max(seq);
        }
        self.counters.pushes.add(1);
        if is_first {
            self.wake_housekeeping();
        }
    }

    /// Lets a connection have its queue: after hello and negotiation.
    pub(crate) fn open(&self, id: ConnectionId) {
        if let Some(connection) = self.lock().connections.get_mut(&id)
            && !connection.is_open
        {
            connection.is_open = true;
            connection.outbound.wake();
        }
    }

    /// Reads a connection's queue again from the start (a repeated `session_hello`).
    pub(crate) fn reread_queue(&self, id: ConnectionId) {
        if let Some(connection) = self.lock().connections.get_mut(&id) {
            connection.rewind(0);
        }
    }

    /// What to read next for a connection; `None` while it is caught up, full or not open. From
    /// now on a new commit counts as "behind", so that none is missed while the read runs.
    pub(crate) fn next_read(&self, id: ConnectionId) -> Option<QueueRead> {
        let state = &mut *self.lock();
        let takes_member_messages = {
            let member = state.connections.get(&id)?.identity.member;
            state.receiving_connection(member, None) == Some(id)
        };
        let connection = state.connections.get_mut(&id)?;
        let is_behind = connection.is_open && connection.progress == Progress::Behind;
        if !is_behind || !connection.takes_messages() {
            return None;
        }
        let room = UNACKED_MAX - connection.unacked;
        connection.progress = Progress::Reading;
        let filter = QueueFilter {
            member: connection.identity.member,
            routing_key: connection.identity.routing_key.clone(),
            takes_member_messages,
        };
        Some(QueueRead {
            filter,
            after_seq: connection.cursor,
            limit: room.min(READ_MAX),
            rewinds: connection.rewinds,
        })
    }

    /// Hands over what a read found, as much of it as there is room for.
    pub(crate) fn deliver(
        &self,
        id: ConnectionId,
        read: &QueueRead,
        found: Vec<QueuedMessage>,
        now: Duration,
    ) {
        let state = &mut *self.lock();
        let mut was_whole = found.len() < read.limit;
        let member = read.filter.member;
        let had_leases = !state.lease_ends.is_empty();
        let mut pushed = 0;
        let mut last = None;
        for queued in found {
            if state.connections.get(&id).is_none_or(|connection| !connection.takes_messages()) {
                was_whole = false;
                break;
            }
            last = Some(queued.seq);
            let is_leased = state
                .members
                .get(&member)
                .is_some_and(|live| live.leases.contains_key(&queued.seq));
            if !is_leased {
                state.push_with_lease(
                    id,
                    member,
                    EncodedPush::of(&queued),
                    now + self.bounds.lease,
                );
                pushed += 1;
            }
        }
        // A rewind that came meanwhile stands, and so does a commit.
        if let Some(connection) = state.connections.get_mut(&id)
            && connection.rewinds == read.rewinds
        {
            connection.cursor = last.unwrap_or(connection.cursor).max(connection.cursor);
            if connection.progress == Progress::Reading && was_whole {
                connection.progress = Progress::CaughtUp;
            } else {
                connection.progress = Progress::Behind;
            }
        }
        self.counters.pushes.add(pushed);
        if !had_leases && pushed > 0 {
            self.wake_housekeeping();
        }
    }

    /// The read failed: the connection is as far behind as before.
    pub(crate) fn read_failed(&self, id: ConnectionId) {
        if let Some(connection) = self.lock().connections.get_mut(&id) {
            connection.progress = Progress::Behind;
        }
    }

    /// A client says it has stored a message. Yields the broker's id when no lease has it: the
    /// ledger must be asked.
    pub(crate) fn acknowledge(&self, id: ConnectionId, ack: &ClientAck) -> Option<String> {
        let state = &mut *self.lock();
        let member = state.connections.get(&id)?.identity.member;
        let matches = |lease: &Lease| match (&ack.broker_message_id, &ack.client_message_id) {
            (Some(broker_id), _) => lease.message_id == *broker_id,
            // An old client names only the sender's id: it can mean only what it was given.
            (None, Some(client_id)) => {
                lease.connection == id && lease.client_message_id.as_ref() == Some(client_id)
            }
            (None, None) => false,
        };
        let found = state
            .members
            .get_mut(&member)
            .and_then(|live| live.leases.iter_mut().find(|(_, lease)| matches(lease)));
        let Some((seq, lease)) = found else { return ack.broker_message_id.clone() };
        if lease.is_acked {
            return None;
        }
        lease.is_acked = true;
        let (seq, holder) = (*seq, lease.connection);
        if let Some(holder) = state.connections.get_mut(&holder) {
            holder.unacked -= 1;
        }
        if let Some(connection) = state.connections.get_mut(&id) {
            connection.acks.push(seq);
            connection.outbound.wake();
        }
        None
    }

    /// The oldest acknowledgements of a connection that the ledger has not been told yet. They stay
    /// until [`settle_acks`](Self::settle_acks): the ledger may not take them.
    pub(crate) fn unstored_acks(&self, id: ConnectionId) -> Vec<i64> {
        let state = self.lock();
        let acks = state.connections.get(&id).map_or(&[][..], |connection| &connection.acks);
        acks.iter().take(ACKS_AT_ONCE_MAX).copied().collect()
    }

    /// The ledger has removed these deliveries, which [`unstored_acks`](Self::unstored_acks) named.
    pub(crate) fn settle_acks(&self, id: ConnectionId, member: i64, seqs: &[i64]) {
        let state = &mut *self.lock();
        if let Some(connection) = state.connections.get_mut(&id) {
            connection.acks.drain(..seqs.len());
        }
        state.end_acked_leases(member, seqs);
        state.trim_lease_ends();
    }

    /// The last acknowledgements of a connection that is gone are stored, or never will be: then
    /// their messages are free again.
    pub(crate) fn settle_last_acks(&self, member: i64, seqs: &[i64], were_removed: bool) {
        let state = &mut *self.lock();
        state.end_acked_leases(member, seqs);
        if !were_removed && let Some(first) = seqs.iter().min() {
            state.rewind_member(member, *first - 1);
        }
        state.trim_lease_ends();
    }

    /// Frees the messages whose lease is over by `now`, so that they are pushed again. One that is
    /// acknowledged waits for the ledger, and one that may still be unwritten for its reader: both
    /// leases start over.
    pub(crate) fn expire_leases(&self, now: Duration) {
        let state = &mut *self.lock();
        let (mut expired, mut renewed) = (0, Vec::new());
        while let Some((ends, ..)) = state.lease_ends.front()
            && *ends <= now
            && let Some((ends, member, seq)) = state.lease_ends.pop_front()
        {
            let Some(live) = state.members.get_mut(&member) else { continue };
            let Some(lease) = live.leases.get_mut(&seq).filter(|lease| lease.ends == ends) else {
                continue;
            };
            let connections = &mut state.connections;
            let waits_for_ledger = lease.is_acked && {
                let mut own = live.connections.iter().filter_map(|id| connections.get(id));
                own.any(|connection| connection.acks.contains(&seq))
            };
            let holder = connections.get_mut(&lease.connection);
            let is_unwritten = holder.as_ref().is_some_and(|holder| !holder.outbound.is_idle());
            if waits_for_ledger || (is_unwritten && !lease.is_acked) {
                lease.ends = now + self.bounds.lease;
                renewed.push((lease.ends, member, seq));
                continue;
            }
            if let Some(holder) = holder.filter(|_| !lease.is_acked) {
                holder.unacked -= 1;
            }
            live.leases.remove(&seq);
            state.rewind_member(member, seq - 1);
            expired += 1;
        }
        state.lease_ends.extend(renewed);
        self.counters.leases_expired.add(expired);
    }
}

impl EncodedPush {
    pub(crate) fn of(message: &QueuedMessage) -> Self {
        let push = &message.push;
        Self {
            seq: message.seq,
            message_id: push.message_id.clone(),
            client_message_id: push.client_message_id.clone(),
            frame: to_text(&BrokerFrame::Push(Box::new(push.clone()))).into(),
        }
    }
}

impl State {
    /// The connection that takes a member's messages: of a session before one of the member itself
    /// (§17.3), the newest first; or, for messages to one key, the one with that key.
    fn receiving_connection(&self, member: i64, only_key: Option<&str>) -> Option<ConnectionId> {
        let live = &self.members.get(&member)?.connections;
        let found = live.iter().filter_map(|id| self.connections.get(id).map(|c| (*id, c)));
        found
            .filter(|(_, connection)| {
                only_key.is_none_or(|key| connection.identity.routing_key == key)
            })
            .max_by_key(|(id, connection)| (connection.identity.is_session, *id))
            .map(|(id, _)| id)
    }

    fn mark_behind(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.progress = Progress::Behind;
            connection.outbound.wake();
        }
    }

    fn push_with_lease(
        &mut self,
        id: ConnectionId,
        member: i64,
        push: EncodedPush,
        ends: Duration,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.send(Outgoing::Frame(push.frame)) {
            return;
        }
        connection.unacked += 1;
        let lease = Lease {
            connection: id,
            ends,
            message_id: push.message_id,
            client_message_id: push.client_message_id,
            is_acked: false,
        };
        let live = self.members.entry(member).or_default();
        live.leases.insert(push.seq, lease);
        self.lease_ends.push_back((ends, member, push.seq));
    }

    /// One that was freed and leased anew meanwhile is another lease.
    fn end_acked_leases(&mut self, member: i64, seqs: &[i64]) {
        let Some(live) = self.members.get_mut(&member) else { return };
        for seq in seqs {
            if live.leases.get(seq).is_some_and(|lease| lease.is_acked) {
                live.leases.remove(seq);
            }
        }
        if live.connections.is_empty() && live.leases.is_empty() {
            self.members.remove(&member);
        }
    }

    fn rewind_member(&mut self, member: i64, to: i64) {
        let Some(live) = self.members.get(&member) else { return };
        for id in &live.connections {
            if let Some(connection) = self.connections.get_mut(id) {
                Connection::rewind(connection, to);
            }
        }
    }

    /// Forgets the first ends if their leases are over already, so that housekeeping does not wake for
    /// nothing. Those behind a lease that still runs stay in the list as long as it does.
    fn trim_lease_ends(&mut self) {
        while let Some((ends, member, seq)) = self.lease_ends.front() {
            let lease = self.members.get(member).and_then(|live| live.leases.get(seq));
            if lease.is_some_and(|lease| lease.ends == *ends) {
                return;
            }
            self.lease_ends.pop_front();
        }
    }
}
