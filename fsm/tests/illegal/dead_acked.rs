//! A dead row does not become done.

use claudemesh_fsm::outbox::{Ack, Dead, Row};

fn revive(row: Row<Dead>, ack: Ack) {
    let _ = row.acked(ack);
}

fn main() {}
