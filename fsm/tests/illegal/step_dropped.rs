//! A move that is not stored did not happen, and is not forgotten silently.

use claudemesh_fsm::outbox::{Pending, Row};

#[deny(unused_must_use)]
fn forget(row: Row<Pending>) {
    row.claim();
}

fn main() {}
