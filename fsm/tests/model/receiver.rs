//! The receiving daemon's steps, in the order `src/receive.rs` takes them: judge, store, and only
//! then acknowledge and announce.

use crate::rules::Rules;
use crate::state::{Push, World};
use claudemesh_fsm::envelope::DestinationKind;
use claudemesh_fsm::receive::{self, Opened, ReceiveDecision};

const US: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const PEER: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

/// Takes a push from the socket.
pub(crate) fn take_push(world: &mut World, rules: &Rules) {
    let push = world.receiver.pushes.remove(0);
    if !rules.stores_before_ack {
        world.receiver.acks.push(push.1);
    }
    world.receiver.arrivals.push((push, true));
}

/// Stores the oldest arrival, synced; then acknowledges on the socket it came from, if that still
/// lives; then announces.
pub(crate) fn store(world: &mut World, rules: &Rules) {
    let receiver = &mut world.receiver;
    let (push, is_live) = receiver.arrivals.remove(0);
    let decision = judge();
    if matches!(decision, ReceiveDecision::Store { .. }) && is_new(&receiver.seen, push, rules) {
        receiver.seen.push(push);
        receiver.announced.push(push);
    }
    if decision.ack() && is_live && rules.stores_before_ack {
        receiver.acks.push(push.1);
    }
}

/// `INSERT INTO seen … ON CONFLICT DO NOTHING`: either key makes it a duplicate.
fn is_new(seen: &[Push], push: Push, rules: &Rules) -> bool {
    !rules.knows_what_it_saw || !seen.iter().any(|known| known.0 == push.0 || known.1 == push.1)
}

/// A sealed direct message that opens.
fn judge() -> ReceiveDecision {
    receive::decide(&receive::PushFacts {
        subtype: None,
        target: Some(DestinationKind::Dm),
        has_topic: false,
        sender_key: PEER,
        has_sender_member_key: true,
        connection_key: US,
        own_keys: &[US],
        opened: Opened::Text,
        plain_is_text: false,
    })
}

/// The receiver's connection ends: what is on it is gone, and its leases are free.
pub(crate) fn cut(world: &mut World) {
    let receiver = &mut world.receiver;
    receiver.is_linked = false;
    receiver.pushes.clear();
    receiver.acks.clear();
    for (_, is_live) in &mut receiver.arrivals {
        *is_live = false;
    }
    for message in &mut world.broker.messages {
        message.is_leased = false;
    }
}

/// The receiver's process ends and starts again.
pub(crate) fn restart(world: &mut World) {
    cut(world);
    world.receiver.arrivals.clear();
}
