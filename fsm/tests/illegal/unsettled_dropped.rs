//! A move is settled, not assumed.

use claudemesh_fsm::outbox::{Pending, Row};

#[deny(unused_must_use)]
fn assume(row: Row<Pending>) {
    row.claim().split();
}

fn main() {}
