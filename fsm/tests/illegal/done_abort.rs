//! What the broker has cannot be taken back.

use claudemesh_fsm::outbox::{Abort, Done, Row};

fn abort(row: Row<Done>, abort: Abort) {
    let _ = row.abort(abort);
}

fn main() {}
