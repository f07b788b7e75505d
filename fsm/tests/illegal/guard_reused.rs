//! One guard, one verdict.

use claudemesh_fsm::outbox::{Guard};

fn twice(guard: Guard) {
    let _ = guard.committed(1);
    let _ = guard.failed();
}

fn main() {}
