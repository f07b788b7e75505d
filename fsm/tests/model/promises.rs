//! What must hold (§4.12), of states, of moves and of rests.

use crate::explore::Broken;
use crate::state::{At, Delivery, Reply, Request, Sender, World};
use crate::table::Columns;
use claudemesh_fsm::outbox::Status;

pub(crate) const ACCEPTED_STAYS: Broken = "1. an accepted id keeps its row, body and fingerprint";
pub(crate) const ONE_MESSAGE: Broken = "2. one id and body make at most one broker message";
pub(crate) const DONE_IS_THERE: Broken = "3. done implies that the broker has that message";
pub(crate) const FINAL_STAYS: Broken = "4. done and aborted never change";
pub(crate) const DEAD_STAYS: Broken = "4. dead only becomes aborted";
pub(crate) const SUCCESSOR: Broken = "5. a requeued row has a successor: same envelope, new id";
pub(crate) const SOMEBODY_SENDS: Broken = "6. no row is inflight while nobody sends it";
pub(crate) const STORED_ONCE: Broken = "7. the receiver stores a message once";
pub(crate) const STORED_THEN_ACKED: Broken = "7. the receiver acknowledges only what it stored";
pub(crate) const ENDS: Broken = "8. without faults every pending row ends";
pub(crate) const ARRIVES: Broken = "8. without faults every message arrives";
pub(crate) const UNSENT_IS_UNSENT: Broken = "§4.5.3: what was never sent is not at the broker";
pub(crate) const OWN_ANSWER: Broken = "§4.5.2: a refusal ends only the attempt it answers";
pub(crate) const NO_MISMATCH: Broken = "no message but an accepted one reaches the broker";

type Checked = Result<(), Broken>;

/// The promises that are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    /// Every one that the product keeps.
    Kept,
    /// One alone.
    Only(Broken),
}

impl Asked {
    fn require(self, holds: bool, promise: Broken) -> Checked {
        let is_asked = match self {
            Self::Kept => true,
            Self::Only(only) => promise == only,
        };
        if holds || !is_asked { Ok(()) } else { Err(promise) }
    }
}

/// What must hold in every state.
pub(crate) fn of_state(world: &World, asked: Asked) -> Checked {
    of_sender(&world.sender, asked)?;
    let table = &world.sender.table;
    let is_row = |request| table.iter().any(|row| (row.id, row.body) == request);
    // What an answer was given too early for may still come to the table, unless a crash is first.
    let is_kept = |told: &Request| is_row(*told) || world.sender.unstored.contains(told);
    asked.require(world.told.iter().all(is_kept), ACCEPTED_STAYS)?;
    let messages = &world.broker.messages;
    for (n, message) in messages.iter().enumerate() {
        let again = messages[..n].iter().any(|earlier| earlier.request == message.request);
        asked.require(!again, ONE_MESSAGE)?;
        asked.require(world.past.sibling_sent || is_row(message.request), NO_MISMATCH)?;
    }
    for row in table {
        let request = (row.id, row.body);
        if row.status == Status::Done {
            let found = row.broker_id.and_then(|id| messages.get(usize::from(id)));
            asked
                .require(found.is_some_and(|message| message.request == request), DONE_IS_THERE)?;
        }
        let says_unsent =
            !matches!(row.status, Status::Inflight | Status::Done) && !row.may_have_been_sent;
        let is_sent = world.is_at_the_broker(request) || world.is_on_a_wire(request);
        asked.require(!(says_unsent && is_sent), UNSENT_IS_UNSENT)?;
    }
    of_receiver(world, asked)
}

fn of_sender(sender: &Sender, asked: Asked) -> Checked {
    for (n, row) in sender.table.iter().enumerate() {
        if row.status == Status::Inflight {
            let senders = sender.hands.iter().filter(|hand| usize::from(hand.row) == n);
            asked.require(senders.count() == 1, SOMEBODY_SENDS)?;
        }
        if let Some(successor) = row.successor {
            let found = sender.table.get(usize::from(successor));
            let is_sound = |new: &Columns| new.body == row.body && new.id != row.id;
            asked.require(found.is_some_and(is_sound), SUCCESSOR)?;
        }
    }
    Ok(())
}

fn of_receiver(world: &World, asked: Asked) -> Checked {
    let announced = &world.receiver.announced;
    for (n, push) in announced.iter().enumerate() {
        let again = |earlier: &(u8, u8)| earlier.0 == push.0 || earlier.1 == push.1;
        asked.require(!announced[..n].iter().any(again), STORED_ONCE)?;
    }
    let is_stored = |id: usize| {
        // A broker without dedupe makes two of one: one copy is enough.
        let request = world.broker.messages[id].request;
        world.receiver.seen.iter().any(|seen| usize::from(seen.1) == id || seen.0 == request.0)
    };
    let acked = world.receiver.acks.iter().map(|id| usize::from(*id));
    let removed = (0..world.broker.messages.len()).filter(|id| !world.broker.messages[*id].waits);
    asked.require(acked.chain(removed).all(is_stored), STORED_THEN_ACKED)
}

/// What must hold of every move.
pub(crate) fn of_move(before: &World, after: &World, asked: Asked, lost_power: bool) -> Checked {
    for (n, old) in before.sender.table.iter().enumerate() {
        let Some(new) = after.sender.table.get(n) else {
            return asked.require(false, ACCEPTED_STAYS);
        };
        asked.require((old.id, old.body) == (new.id, new.body), ACCEPTED_STAYS)?;
        match old.status {
            // The one exception: a power cut may forget a done that was not synced (§4.7).
            Status::Done => asked.require(old == new || lost_power, FINAL_STAYS)?,
            Status::Aborted => asked.require(old == new, FINAL_STAYS)?,
            Status::Dead => {
                asked.require(old == new || new.status == Status::Aborted, DEAD_STAYS)?;
            }
            Status::Pending | Status::Inflight => {}
        }
    }
    Ok(())
}

/// What must hold of an answer that is taken from the socket: an attempt that it ends by a refusal
/// has no other frame of its id on this connection, and no other answer to come.
pub(crate) fn of_answer(before: &World, after: &World, asked: Asked) -> Checked {
    let hands = before.sender.hands.iter().zip(&after.sender.hands);
    for (was, is) in hands {
        let refused = matches!(is.at, At::Ended(Delivery::Answered(reply)) if !matches!(reply, Reply::Accepted(_)));
        if was.at == At::Written && refused {
            let id = was.held.id;
            let is_on_its_way = before.sender.frames.iter().any(|frame| frame.0 == id)
                || before.sender.answers[1..].iter().any(|answer| answer.0 == id);
            asked.require(!is_on_its_way, OWN_ANSWER)?;
        }
    }
    Ok(())
}

/// What must hold where nothing is left to do.
pub(crate) fn of_rest(world: &World, asked: Asked) -> Checked {
    let is_over = |row: &Columns| !matches!(row.status, Status::Pending | Status::Inflight);
    asked.require(world.sender.table.iter().all(is_over), ENDS)?;
    asked.require(world.broker.messages.iter().all(|message| !message.waits), ARRIVES)
}
