//! A row is retired once: a second successor would double the message.

use claudemesh_fsm::outbox::{Aborted, Retire, Row};

fn again(row: Row<Aborted>, retire: Retire) {
    let _ = row.retire(retire);
}

fn main() {}
