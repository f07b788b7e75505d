//! A row that was not claimed has no attempt to lose.

use claudemesh_fsm::outbox::{Pending, Row};

fn skip(row: Row<Pending>) {
    let _ = row.lost(String::new(), claudemesh_fsm::id::Millis(0));
}

fn main() {}
