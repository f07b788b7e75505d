//! A dead row is never sent; only its successor is.

use claudemesh_fsm::outbox::{Dead, Row};

fn revive(row: Row<Dead>) {
    let _ = row.claim();
}

fn main() {}
