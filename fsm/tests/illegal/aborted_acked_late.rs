//! A retired row stays retired, even if its attempt got through.

use claudemesh_fsm::outbox::{Aborted, Ack, Row};

fn revive(row: Row<Aborted>, ack: Ack) {
    let _ = row.acked_late(ack);
}

fn main() {}
