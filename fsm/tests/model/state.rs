//! Everything the modelled system can be: what is on disks, what is in memories, what is on wires,
//! and how much may still go wrong.

use crate::table::{Columns, Table};

/// One state of caller × operator × sender × broker × receiver.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) sender: Sender,
    pub(crate) broker: Broker,
    pub(crate) receiver: Receiver,
    /// Requests that were answered 2xx.
    pub(crate) told: Vec<Request>,
    pub(crate) left: Left,
    pub(crate) past: Past,
}

/// `client_message_id` and body.
pub(crate) type Request = (u8, u8);

/// What may still be wished for or go wrong. It only shrinks, so the state space is finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Left {
    /// Requests of callers.
    pub(crate) requests: u8,
    /// Requeues and aborts.
    pub(crate) wishes: u8,
    /// Faults of any kind.
    pub(crate) faults: u8,
}

/// What happened that a promise makes an exception for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Past {
    /// Another install of the member used an id.
    pub(crate) sibling_sent: bool,
}

/// The sending daemon.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sender {
    /// The outbox as every process on the host sees it.
    pub(crate) table: Table,
    /// The outbox as a power cut would leave it: the state at the last sync.
    pub(crate) synced: Table,
    /// Requests answered but not stored: only a broken rule fills it.
    pub(crate) unstored: Vec<Request>,
    /// Rows taken for an attempt whose end is not stored yet, by row.
    pub(crate) hands: Vec<Hand>,
    /// Rows found too old, to be stored as dead.
    pub(crate) expired: Vec<(u8, Columns)>,
    /// Late successes that wait to be stored: id and broker id.
    pub(crate) late: Vec<(u8, u8)>,
    pub(crate) is_linked: bool,
    /// Ids of frames of this connection that were given up and whose answers are still owed, one
    /// entry for each; sorted.
    pub(crate) given_up: Vec<u8>,
    /// Frames on their way to the broker, in order.
    pub(crate) frames: Vec<Request>,
    /// Answers on their way back, in order.
    pub(crate) answers: Vec<(u8, Reply)>,
}

/// A row in the hands of the attempt that sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hand {
    pub(crate) row: u8,
    /// As it was claimed.
    pub(crate) held: Columns,
    pub(crate) at: At,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum At {
    /// Its frame waits to be written.
    Queued,
    /// Its frame is written.
    Written,
    /// Its end is known, but not stored.
    Ended(Delivery),
}

/// What became of an attempt (`port::SendOutcome` of the daemon).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Delivery {
    Answered(Reply),
    Lost,
    Unsent,
}

/// A broker's answer to a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    /// 201 or 200, with the broker's id.
    Accepted(u8),
    Mismatch,
    Blocked,
    Busy,
    RateLimited,
}

/// The broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Broker {
    /// Messages, by broker id. Stored with their dedupe row and delivery row in one synced
    /// transaction.
    pub(crate) messages: Vec<Message>,
    /// Frames of dead connections that may still be read.
    pub(crate) strays: Vec<Request>,
}

/// A stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Message {
    pub(crate) request: Request,
    /// Whether its delivery row exists.
    pub(crate) waits: bool,
    /// Whether a connection has it; memory only.
    pub(crate) is_leased: bool,
}

/// The receiving daemon. Its inbox is synced with every insert, so a power cut is a crash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Receiver {
    /// Pairs of ids ever stored: the `seen` table.
    pub(crate) seen: Vec<Push>,
    /// What listeners were told.
    pub(crate) announced: Vec<Push>,
    /// Pushes taken from the socket, not stored yet; and whether their connection still lives.
    pub(crate) arrivals: Vec<(Push, bool)>,
    pub(crate) is_linked: bool,
    /// Pushes on their way, in order.
    pub(crate) pushes: Vec<Push>,
    /// Acknowledgements on their way back, by broker id.
    pub(crate) acks: Vec<u8>,
}

/// `client_message_id` and broker id of a push.
pub(crate) type Push = (u8, u8);

impl World {
    /// Whether a frame with `request` is on any wire.
    pub(crate) fn is_on_a_wire(&self, request: Request) -> bool {
        self.sender.frames.contains(&request) || self.broker.strays.contains(&request)
    }

    /// Whether the broker has a message for `request`.
    pub(crate) fn is_at_the_broker(&self, request: Request) -> bool {
        self.broker.messages.iter().any(|message| message.request == request)
    }
}
