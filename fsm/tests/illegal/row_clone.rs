//! There is one of each row: two could be sent twice.

use claudemesh_fsm::outbox::{Pending, Row};

fn twice(row: &Row<Pending>) -> Row<Pending> {
    row.clone()
}

fn main() {}
