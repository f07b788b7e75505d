//! A row comes from storage, never from thin air.

use claudemesh_fsm::outbox::{Identity, Pending, Row};

fn forge(identity: Identity, state: Pending) -> Row<Pending> {
    Row { identity, state }
}

fn main() {}
