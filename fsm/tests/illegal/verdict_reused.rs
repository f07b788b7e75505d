//! One verdict settles one move.

use claudemesh_fsm::outbox::{Inflight, Pending, Unsettled, Verdict};

fn twice(one: Unsettled<Pending, Inflight>, other: Unsettled<Pending, Inflight>, verdict: Verdict) {
    let _ = one.settle(Ok::<_, ()>(verdict));
    let _ = other.settle(Ok::<_, ()>(verdict));
}

fn main() {}
