//! A row does not expire while it is being sent.

use claudemesh_fsm::outbox::{Inflight, Row};

fn expire(row: Row<Inflight>) {
    let _ = row.expire();
}

fn main() {}
