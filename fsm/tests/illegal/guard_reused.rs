//! One guard, one verdict.

use claudemesh_fsm::outbox::{Guard};

fn twice(guard: Guard) {
    let _ = guard.applied(1);
    let _ = guard.applied(1);
}

fn main() {}
