//! A row is claimed by one sender at a time.

use claudemesh_fsm::outbox::{Inflight, Row};

fn again(row: Row<Inflight>) {
    let _ = row.claim();
}

fn main() {}
