//! Deliberately broken rules. The checkers must find each; if one ever passes, they are blind.
//!
//! Each is broken in the harness, so that no product code has to carry a switch.

use claudemesh_daemon::port::LateAck;
use std::path::Path;

/// A rule, broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A late success makes its row done whatever the row is by now: an `UPDATE` without guard.
    UnguardedDone,
    /// Pushes are acknowledged when they are handed over, before they are stored.
    AckBeforeCommit,
    /// The broker does not remember ids.
    NoDedupe,
    /// A start leaves inflight rows as they are.
    NoRecovery,
    /// A commit of the outbox is not on stable storage when it is answered.
    UnsyncedAccepts,
    /// A power cut passes for a crash of the process: the boot's id stays.
    SameBoot,
}

/// What `UPDATE … SET status = 'done' WHERE client_message_id = ?` would do. The writer thread is
/// idle meanwhile: its callers wait for it.
pub fn unguarded_done(dir: &Path, late: &LateAck) {
    let connection = sqlite::Connection::open(dir.join("outbox.db")).expect("opens");
    let sql =
        "UPDATE outbox SET status = 'done', broker_message_id = ? WHERE client_message_id = ?";
    let mut statement = connection.prepare(sql).expect("a good statement");
    statement.bind((1, late.ack.broker_message_id.as_str())).expect("binds");
    statement.bind((2, late.client_message_id.as_str())).expect("binds");
    while statement.next().expect("runs") == sqlite::State::Row {}
    // What goes with every done is not what this one forgets.
    let sql = "INSERT INTO receipt (seq, recipients, updated_at) SELECT seq, 1, 0 FROM outbox \
               WHERE client_message_id = ? ON CONFLICT DO NOTHING";
    let mut statement = connection.prepare(sql).expect("a good statement");
    statement.bind((1, late.client_message_id.as_str())).expect("binds");
    while statement.next().expect("runs") == sqlite::State::Row {}
}
