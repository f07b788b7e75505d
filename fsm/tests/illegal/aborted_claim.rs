//! A retired row is never sent.

use claudemesh_fsm::outbox::{Aborted, Row};

fn revive(row: Row<Aborted>) {
    let _ = row.claim();
}

fn main() {}
