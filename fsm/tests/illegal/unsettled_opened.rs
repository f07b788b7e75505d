//! The next row exists only once the writer has decided.

use claudemesh_fsm::outbox::{Inflight, Pending, Unsettled};

fn assume(unsettled: Unsettled<Pending, Inflight>) -> Inflight {
    unsettled.next
}

fn main() {}
