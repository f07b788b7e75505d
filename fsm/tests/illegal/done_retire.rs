//! What the broker has cannot be retired, and so not requeued.

use claudemesh_fsm::outbox::{Done, Retire, Row};

fn retire(row: Row<Done>, retire: Retire) {
    let _ = row.retire(retire);
}

fn main() {}
