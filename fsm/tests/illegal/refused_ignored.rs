//! A refusal has two ends, and both must be handled.

use claudemesh_fsm::outbox::{Inflight, Refused, Row};

fn half(refused: Refused) -> Option<Row<Inflight>> {
    match refused {
        Refused::Dead(_step) => None,
    }
}

fn main() {}
