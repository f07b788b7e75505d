//! A move is settled once.

use claudemesh_fsm::outbox::{Inflight, Pending, Unsettled, Verdict};

fn twice(unsettled: Unsettled<Pending, Inflight>, one: Verdict, other: Verdict) {
    let _ = unsettled.settle(Ok::<_, ()>(one));
    let _ = unsettled.settle(Ok::<_, ()>(other));
}

fn main() {}
