//! A verdict is made by the writer from the guard, never by hand.

use claudemesh_fsm::id::RowId;
use claudemesh_fsm::outbox::Verdict;

fn borrow_anothers(id: RowId, other: Verdict) -> Verdict {
    Verdict { id, ..other }
}

fn main() {}
