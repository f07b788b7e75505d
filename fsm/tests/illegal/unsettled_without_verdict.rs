//! No verdict, no row.

use claudemesh_fsm::outbox::{Inflight, Pending, Row, Unsettled};

fn assume(unsettled: Unsettled<Pending, Inflight>) -> Option<Row<Inflight>> {
    unsettled.settle().ok().flatten()
}

fn main() {}
