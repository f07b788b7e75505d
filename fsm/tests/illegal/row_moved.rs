//! A row that moved is gone: its old state cannot be used again.

use claudemesh_fsm::outbox::{Pending, Row};

fn twice(row: Row<Pending>) {
    let _first = row.claim();
    let _second = row.claim();
}

fn main() {}
