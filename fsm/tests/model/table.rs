//! The modelled `outbox` table: columns in, the product's typed rows out, and the product's guards
//! applied as `UPDATE … WHERE id AND status AND attempts` would.

use claudemesh_fsm::accept::{AcceptDecision, decide};
use claudemesh_fsm::envelope::Envelope;
use claudemesh_fsm::id::Fingerprint;
use claudemesh_fsm::outbox::{
    AnyRow, Change, Guard, RowRecord, RowSummaryRecord, State, Status, Step, row_summary,
};
use std::convert::Infallible;

/// The columns that differ between rows; the row's id is its place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Columns {
    /// `client_message_id`.
    pub(crate) id: u8,
    /// Payload and fingerprint at once.
    pub(crate) body: u8,
    pub(crate) status: Status,
    pub(crate) attempts: u8,
    pub(crate) may_have_been_sent: bool,
    pub(crate) has_error: bool,
    pub(crate) broker_id: Option<u8>,
    pub(crate) successor: Option<u8>,
}

/// Every row, by row id.
pub(crate) type Table = Vec<Columns>;

impl Columns {
    /// What an insert writes.
    pub(crate) const fn new(id: u8, body: u8) -> Self {
        Self {
            id,
            body,
            status: Status::Pending,
            attempts: 0,
            may_have_been_sent: false,
            has_error: false,
            broker_id: None,
            successor: None,
        }
    }

    /// The successor's columns, from the envelope a requeue copies.
    pub(crate) fn of(id: u8, envelope: &Envelope) -> Self {
        Self::new(id, envelope.payload[0])
    }

    /// The typed row `row`.
    pub(crate) fn restore(&self, row: u8) -> AnyRow {
        let delivered = self.broker_id.is_some();
        let aborted = self.status == Status::Aborted;
        AnyRow::restore(RowRecord {
            id: name('r', row),
            client_message_id: name('c', self.id),
            request_fingerprint: vec![self.body; 32],
            payload: vec![self.body],
            mesh: "demo".into(),
            destination_kind: "topic".into(),
            destination_ref: "*".into(),
            priority: "next".into(),
            attempts: i64::from(self.attempts),
            status: self.status.as_str().into(),
            last_error: self.has_error.then(|| "why".into()),
            may_have_been_sent: self.may_have_been_sent,
            delivered_at: delivered.then_some(0),
            broker_message_id: self.broker_id.map(|id| name('b', id)),
            aborted_at: aborted.then_some(0),
            aborted_by: aborted.then(|| "operator".into()),
            superseded_by: self.successor.map(|row| name('r', row)),
            ..RowRecord::default()
        })
        .expect("the model's columns are a row's")
    }
}

/// A name as the product's types want it.
pub(crate) fn name(kind: char, number: u8) -> String {
    format!("{kind}{number}")
}

/// The number in a name.
pub(crate) fn number(name: &str) -> u8 {
    name[1..].parse().expect("a name the model gave")
}

/// What a body is fingerprinted to.
pub(crate) const fn fingerprint(body: u8) -> Fingerprint {
    Fingerprint::new([body; 32])
}

/// The decision of §4.5.1 for a request, from the table as it is.
pub(crate) fn judge(table: &Table, id: u8, body: u8) -> AcceptDecision {
    let existing = table.iter().find(|row| row.id == id).map(|row| {
        let record = RowSummaryRecord {
            request_fingerprint: vec![row.body; 32],
            status: row.status.as_str().into(),
            last_error: row.has_error.then(|| "why".into()),
            broker_message_id: row.broker_id.map(|id| name('b', id)),
            history_id: None,
            superseded_by: row.successor.map(|row| name('r', row)),
        };
        row_summary(record).expect("the model's columns are a row's")
    });
    decide(existing, fingerprint(body))
}

/// What became of a move.
pub(crate) struct Stored<R> {
    /// The row in its new state; `None` if another writer was first.
    pub(crate) row: Option<R>,
    /// Whether the commit is on stable storage.
    pub(crate) is_synced: bool,
}

/// Stores one step as the product's writer does.
pub(crate) fn store<S: State, N: State>(
    table: &mut Table,
    step: Step<S, N>,
    is_guarded: bool,
) -> Stored<claudemesh_fsm::outbox::Row<N>> {
    let (guard, unsettled) = step.split();
    let is_synced = guard.change().must_be_synced();
    let changed = update(table, &guard, is_guarded);
    let verdict = guard.applied(changed);
    let settled = unsettled.settle(Ok::<_, Infallible>(verdict));
    let row = settled.unwrap_or_else(|(_, never)| match never {});
    Stored { row, is_synced }
}

/// `src/store/outbox.rs`, `update`, column by column. Returns the number of rows changed.
fn update(table: &mut Table, guard: &Guard, is_guarded: bool) -> usize {
    let row = &mut table[usize::from(number(guard.id().as_str()))];
    let is_as_it_was = row.status == guard.leaves() && u32::from(row.attempts) == guard.attempts();
    if is_guarded && !is_as_it_was {
        return 0;
    }
    let attempts_after = u8::try_from(guard.attempts_after()).expect("few attempts");
    row.status = guard.change().enters();
    match guard.change() {
        Change::Claimed => row.attempts = attempts_after,
        Change::Done { broker_message_id, .. } => {
            row.broker_id = Some(number(broker_message_id.as_str()));
            row.may_have_been_sent = false;
        }
        Change::Returned { last_error, may_have_been_sent, .. } => {
            row.has_error |= last_error.is_some();
            row.may_have_been_sent = *may_have_been_sent;
            row.attempts = attempts_after;
        }
        Change::Dead { may_have_been_sent, .. } => {
            row.has_error = true;
            row.may_have_been_sent = *may_have_been_sent;
        }
        Change::Aborted { superseded_by, .. } => {
            row.successor = superseded_by.as_ref().map(|row| number(row.as_str()));
        }
    }
    1
}
