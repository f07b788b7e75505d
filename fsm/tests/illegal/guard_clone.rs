//! One guard, one verdict: it cannot be copied to get another.

use claudemesh_fsm::outbox::{Guard};

fn twice(guard: &Guard) -> Guard {
    guard.clone()
}

fn main() {}
