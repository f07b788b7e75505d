//! A row that was not claimed has no attempt to acknowledge; a late success is `acked_late`.

use claudemesh_fsm::outbox::{Ack, Pending, Row};

fn skip(row: Row<Pending>, ack: Ack) {
    let _ = row.acked(ack);
}

fn main() {}
