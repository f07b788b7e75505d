//! A guard comes from a move.

use claudemesh_fsm::id::RowId;
use claudemesh_fsm::outbox::{Change, Guard, Status};

fn forge(id: RowId, change: Change) -> Guard {
    Guard { id, leaves: Status::Pending, attempts: 0, change }
}

fn main() {}
