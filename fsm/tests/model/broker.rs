//! The broker's steps, in the order `src/broker/ledger/accept.rs` and `src/broker/route/mail.rs`
//! take them: B0 first, then B1 and B2, then one transaction, then the answer and the push.

use crate::rules::Rules;
use crate::sender::broker_id;
use crate::state::{Broker, Message, Push, Reply, Request, World};
use crate::table::{fingerprint, name};
use claudemesh_fsm::dedupe::{DedupeDecision, DedupeEntry, decide};
use claudemesh_fsm::id::{BrokerMessageId, Millis};

/// How phases B1 and B2 go for an id that is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Willing,
    Blocking,
    Busy,
    RateLimiting,
}

impl Mood {
    pub(crate) const REFUSING: [Self; 3] = [Self::Blocking, Self::Busy, Self::RateLimiting];

    const fn refusal(self) -> Option<Reply> {
        match self {
            Self::Willing => None,
            Self::Blocking => Some(Reply::Blocked),
            Self::Busy => Some(Reply::Busy),
            Self::RateLimiting => Some(Reply::RateLimited),
        }
    }
}

impl Broker {
    /// Accepts, recognises or refuses a send; a commit is synced before the answer.
    pub(crate) fn take(&mut self, rules: &Rules, request: Request, mood: Mood) -> Reply {
        let seen = if rules.deduplicates { self.seen(request.0) } else { None };
        match decide(seen, Some(fingerprint(request.1))) {
            DedupeDecision::Duplicate(seen) => Reply::Accepted(broker_id(&seen.broker_message_id)),
            DedupeDecision::Mismatch { .. } => Reply::Mismatch,
            DedupeDecision::First | DedupeDecision::Undeduplicated => {
                mood.refusal().unwrap_or_else(|| {
                    let id = u8::try_from(self.messages.len()).expect("few messages");
                    self.messages.push(Message { request, waits: true, is_leased: false });
                    Reply::Accepted(id)
                })
            }
        }
    }

    /// The dedupe row of an id: it was inserted with its message, and outlives it.
    fn seen(&self, id: u8) -> Option<DedupeEntry> {
        let at = self.messages.iter().position(|message| message.request.0 == id)?;
        Some(DedupeEntry {
            fingerprint: fingerprint(self.messages[at].request.1),
            broker_message_id: BrokerMessageId::trusted(name('b', u8::try_from(at).ok()?)),
            history_id: None,
            history_available: true,
            first_seen_at: Millis(0),
            recipients: None,
            expires_at: None,
        })
    }

    /// Whether an id is known, so that no mood applies.
    pub(crate) fn knows(&self, id: u8) -> bool {
        self.messages.iter().any(|message| message.request.0 == id)
    }
}

/// Reads a frame from the sender's connection, commits, answers.
pub(crate) fn take_frame(world: &mut World, rules: &Rules, mood: Mood) {
    if mood != Mood::Willing {
        world.left.faults -= 1;
    }
    let request = world.sender.frames.remove(0);
    let reply = world.broker.take(rules, request, mood);
    world.sender.answers.push((request.0, reply));
}

/// Reads a frame of a dead connection: the commit happens, the answer goes nowhere.
pub(crate) fn take_stray(world: &mut World, rules: &Rules, at: u8) {
    let request = world.broker.strays.remove(usize::from(at));
    let _nobody_listens = world.broker.take(rules, request, Mood::Willing);
}

/// Another install of the sending member uses an id for another body.
pub(crate) fn take_from_sibling(world: &mut World, rules: &Rules, request: Request) {
    world.left.faults -= 1;
    world.past.sibling_sent = true;
    let _elsewhere = world.broker.take(rules, request, Mood::Willing);
}

/// Pushes a waiting message to the receiver's connection: a lease.
pub(crate) fn push(world: &mut World, at: u8) {
    let message = &mut world.broker.messages[usize::from(at)];
    message.is_leased = true;
    let push: Push = (message.request.0, at);
    world.receiver.pushes.push(push);
}

/// Reads an acknowledgement: the broker's id decides, whoever has the lease.
pub(crate) fn take_ack(world: &mut World) {
    let id = world.receiver.acks.remove(0);
    let message = &mut world.broker.messages[usize::from(id)];
    message.waits = false;
    message.is_leased = false;
}

/// A lease ends by time: the message may be pushed again.
pub(crate) fn end_lease(world: &mut World, at: u8) {
    world.left.faults -= 1;
    world.broker.messages[usize::from(at)].is_leased = false;
}

/// Power is lost: removed deliveries may be back, as their commit is not synced.
pub(crate) fn forget_acks(broker: &mut Broker) {
    for message in &mut broker.messages {
        message.waits = true;
    }
}
