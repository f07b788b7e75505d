//! What a row is cannot be changed behind the store.

use claudemesh_fsm::outbox::{Identity, Pending, Row};

fn rewrite(mut row: Row<Pending>, identity: Identity) {
    row.identity = identity;
}

fn main() {}
