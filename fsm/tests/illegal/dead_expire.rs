//! A dead row does not die again.

use claudemesh_fsm::outbox::{Dead, Row};

fn again(row: Row<Dead>) {
    let _ = row.expire();
}

fn main() {}
