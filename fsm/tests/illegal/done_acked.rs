//! What the broker has is not acknowledged twice.

use claudemesh_fsm::outbox::{Ack, Done, Row};

fn again(row: Row<Done>, ack: Ack) {
    let _ = row.acked(ack);
}

fn main() {}
