//! A row that is on its way cannot be given up under its sender.

use claudemesh_fsm::outbox::{Abort, Inflight, Row};

fn abort(row: Row<Inflight>, abort: Abort) {
    let _ = row.abort(abort);
}

fn main() {}
