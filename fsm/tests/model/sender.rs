//! The sending daemon's steps, in the order `src/drain.rs`, `src/link/acks.rs` and
//! `src/store/outbox*` take them. One step is one commit, or one thing that only memory knows.

use crate::rules::Rules;
use crate::state::{At, Delivery, Hand, Reply, Sender, World};
use crate::table::{self, Columns, Stored, judge, name, number, store};
use claudemesh_fsm::accept::AcceptDecision;
use claudemesh_fsm::id::{BrokerMessageId, Millis, RowId};
use claudemesh_fsm::outbox::{Ack, AnyRow, Retire, Status};
use claudemesh_fsm::refusal::{SendRefusal, TransientRefusal};

/// How many late successes wait at the most; the product drops more, too.
const LATE_MAX: usize = 1;

const NOW: Millis = Millis(0);

/// A caller asks; the answer is what §4.5.1 says after the commit.
pub(crate) fn ask(world: &mut World, rules: &Rules, id: u8, body: u8) {
    world.left.requests -= 1;
    let is_new = match judge(&world.sender.table, id, body) {
        AcceptDecision::Insert => true,
        AcceptDecision::Queued | AcceptDecision::Inflight | AcceptDecision::Done { .. } => false,
        AcceptDecision::Conflict(_) if rules.binds_ids => return,
        AcceptDecision::Conflict(_) => false,
    };
    if is_new && rules.answers_after_commit {
        insert(&mut world.sender, id, body);
    } else if is_new {
        world.sender.unstored.push((id, body));
    }
    tell(world, id, body);
}

fn tell(world: &mut World, id: u8, body: u8) {
    if !world.told.contains(&(id, body)) {
        world.told.push((id, body));
        world.told.sort_unstable();
    }
}

/// The commit that a broken rule put after the answer.
pub(crate) fn store_unstored(sender: &mut Sender) {
    let (id, body) = sender.unstored.remove(0);
    if judge(&sender.table, id, body) == AcceptDecision::Insert {
        insert(sender, id, body);
    }
}

fn insert(sender: &mut Sender, id: u8, body: u8) {
    sender.table.push(Columns::new(id, body));
    sync(sender);
}

/// Everything committed so far is on stable storage.
pub(crate) fn sync(sender: &mut Sender) {
    sender.synced.clone_from(&sender.table);
}

fn committed<R>(sender: &mut Sender, stored: &Stored<R>) {
    if stored.is_synced {
        sync(sender);
    }
}

/// Claims a due row: committed, not synced, then in hand.
pub(crate) fn claim(sender: &mut Sender, row: u8) {
    let AnyRow::Pending(pending) = sender.table[usize::from(row)].restore(row) else { return };
    let stored = store(&mut sender.table, pending.claim(), true);
    committed(sender, &stored);
    if stored.row.is_some() {
        let held = sender.table[usize::from(row)];
        sender.hands.push(Hand { row, held, at: At::Queued });
        sender.hands.sort_unstable_by_key(|hand| hand.row);
    }
}

/// Finds a due row too old: it is not claimed, and another commit will make it dead.
pub(crate) fn find_expired(world: &mut World, row: u8) {
    world.left.faults -= 1;
    let sender = &mut world.sender;
    sender.expired.push((row, sender.table[usize::from(row)]));
}

/// Stores an expiry.
pub(crate) fn store_expired(sender: &mut Sender, rules: &Rules) {
    let (row, found) = sender.expired.remove(0);
    let AnyRow::Pending(pending) = found.restore(row) else { return };
    let stored = store(&mut sender.table, pending.expire(), rules.guards_expiry);
    committed(sender, &stored);
}

/// Writes the frame of a claimed row.
pub(crate) fn write(sender: &mut Sender, hand: u8) {
    let hand = &mut sender.hands[usize::from(hand)];
    hand.at = At::Written;
    sender.frames.push((hand.held.id, hand.held.body));
}

/// Takes an answer from the socket: a refusal that is owed to an earlier frame of that id is
/// nobody's; else the waiting attempt gets it, or it is late.
pub(crate) fn hear(sender: &mut Sender, rules: &Rules) {
    let (id, reply) = sender.answers.remove(0);
    let owed = sender.given_up.iter().position(|given_up| *given_up == id);
    if let Some(at) = owed {
        sender.given_up.remove(at);
        if rules.counts_given_up && !matches!(reply, Reply::Accepted(_)) {
            return;
        }
    }
    let waiting = |hand: &&mut Hand| hand.held.id == id && hand.at == At::Written;
    if let Some(hand) = sender.hands.iter_mut().find(waiting) {
        hand.at = At::Ended(Delivery::Answered(reply));
        if matches!(reply, Reply::Accepted(_)) {
            sender.given_up.retain(|given_up| *given_up != id);
        }
    } else if let Reply::Accepted(broker_id) = reply
        && sender.late.len() < LATE_MAX
    {
        sender.late.push((id, broker_id));
    }
}

/// Gives up an attempt that waited too long; its answer may still come.
pub(crate) fn time_out(world: &mut World, hand: u8) {
    world.left.faults -= 1;
    let sender = &mut world.sender;
    let hand = &mut sender.hands[usize::from(hand)];
    hand.at = At::Ended(Delivery::Lost);
    sender.given_up.push(hand.held.id);
    sender.given_up.sort_unstable();
}

/// Stores the end of an attempt.
pub(crate) fn settle(sender: &mut Sender, hand: u8) {
    let Hand { row, held, at } = sender.hands.remove(usize::from(hand));
    let At::Ended(delivery) = at else { return };
    let AnyRow::Inflight(inflight) = held.restore(row) else { return };
    let why = || "why".into();
    let table = &mut sender.table;
    let is_synced = match delivery {
        Delivery::Lost => store(table, inflight.lost(why(), NOW), true).is_synced,
        Delivery::Unsent => store(table, inflight.unsent(why(), NOW), true).is_synced,
        Delivery::Answered(Reply::Accepted(id)) => {
            store(table, inflight.acked(ack(id)), true).is_synced
        }
        Delivery::Answered(refusal) => match classify(refusal) {
            SendRefusal::Permanent => store(table, inflight.refused(why()), true).is_synced,
            SendRefusal::Transient(passing) => {
                store(table, inflight.deferred(passing, why(), NOW), true).is_synced
            }
        },
    };
    if is_synced {
        sync(sender);
    }
}

fn classify(refusal: Reply) -> SendRefusal {
    match refusal {
        Reply::Mismatch => SendRefusal::classify(Some(409), None, "idempotency_key_reused"),
        Reply::Blocked => SendRefusal::classify(Some(403), None, "blocked by recipient grants"),
        Reply::RateLimited => SendRefusal::classify(Some(429), None, "rate limit: slow down"),
        Reply::Busy => SendRefusal::classify(Some(503), None, "busy"),
        Reply::Accepted(_) => SendRefusal::Transient(TransientRefusal::Busy),
    }
}

fn ack(broker_id: u8) -> Ack {
    let broker_message_id = BrokerMessageId::trusted(name('b', broker_id));
    Ack { broker_message_id, history_id: None, delivered_at: NOW, recipients: None }
}

/// Stores a late success: the look-up and the update are one transaction.
pub(crate) fn store_late(sender: &mut Sender, rules: &Rules) {
    let (id, broker_id) = sender.late.remove(0);
    let Some(row) = sender.table.iter().position(|row| row.id == id) else { return };
    let mut columns = sender.table[row];
    if !rules.guards_done {
        columns.status = Status::Pending;
    }
    let row = u8::try_from(row).expect("few rows");
    if let AnyRow::Pending(pending) = columns.restore(row) {
        let stored =
            store(&mut sender.table, pending.acked_late(ack(broker_id)), rules.guards_done);
        committed(sender, &stored);
    }
}

/// The connection to the broker ends: what was written is lost, what was not is unsent. What is on
/// the way to the broker may be read all the same.
pub(crate) fn cut(world: &mut World, frames_linger: bool) {
    let sender = &mut world.sender;
    sender.is_linked = false;
    sender.answers.clear();
    sender.given_up.clear();
    let frames = std::mem::take(&mut sender.frames);
    if frames_linger {
        world.broker.strays.extend(frames);
        world.broker.strays.sort_unstable();
    }
    for hand in &mut sender.hands {
        hand.at = match hand.at {
            At::Queued => At::Ended(Delivery::Unsent),
            At::Written => At::Ended(Delivery::Lost),
            ended @ At::Ended(_) => ended,
        };
    }
}

/// The process ends and starts again: its memory is gone, and nobody sends what is inflight.
pub(crate) fn restart(world: &mut World, rules: &Rules, frames_linger: bool) {
    cut(world, frames_linger);
    let sender = &mut world.sender;
    sender.hands.clear();
    sender.expired.clear();
    sender.late.clear();
    sender.unstored.clear();
    if !rules.recovers {
        return;
    }
    for row in sender.table.iter_mut().filter(|row| row.status == Status::Inflight) {
        row.status = Status::Pending;
        row.may_have_been_sent = true;
    }
}

/// The host loses power: commits since the last sync are gone, too.
pub(crate) fn power_cut(world: &mut World, rules: &Rules, frames_linger: bool) {
    world.sender.table.clone_from(&world.sender.synced);
    restart(world, rules, frames_linger);
    if rules.doubts_after_power_cut {
        for row in world.sender.table.iter_mut().filter(|row| row.status == Status::Pending) {
            row.may_have_been_sent = true;
        }
    }
}

/// An operator retires a row, with a successor under the fresh id `new_id` or without one.
/// Whether it happened.
pub(crate) fn retire(sender: &mut Sender, row: u8, force: bool, new_id: Option<u8>) -> bool {
    let new_row = u8::try_from(sender.table.len()).expect("few rows");
    let retire = Retire {
        aborted_at: NOW,
        aborted_by: "operator".into(),
        superseded_by: new_id.map(|_| RowId::trusted(name('r', new_row))),
        force,
    };
    let any = sender.table[usize::from(row)].restore(row);
    let envelope = any.identity().envelope.clone();
    let table = &mut sender.table;
    let moved = match any {
        AnyRow::Pending(pending) => match pending.retire(retire) {
            Ok(step) => store(table, step, true).row.is_some(),
            Err(_) => false,
        },
        AnyRow::Dead(dead) => store(table, dead.retire(retire), true).row.is_some(),
        AnyRow::Inflight(_) | AnyRow::Done(_) | AnyRow::Aborted(_) => false,
    };
    if moved {
        table.extend(new_id.map(|id| table::Columns::of(id, &envelope)));
        sync(sender);
    }
    moved
}

/// The number in a broker's id, for the checks.
pub(crate) fn broker_id(id: &BrokerMessageId) -> u8 {
    number(id.as_str())
}
