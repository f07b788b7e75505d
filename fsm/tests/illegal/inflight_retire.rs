//! A row that is on its way cannot be retired under its sender.

use claudemesh_fsm::outbox::{Inflight, Retire, Row};

fn retire(row: Row<Inflight>, retire: Retire) {
    let _ = row.retire(retire);
}

fn main() {}
