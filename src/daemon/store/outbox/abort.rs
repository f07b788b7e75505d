//! Abort (§4.5.3): a row that waits or is dead is given up, and nothing takes its place.

use super::moves::{Applied, apply};
use super::{Outbox, rows};
use claudemesh_base::db::{Durability, Error, Tx};
use claudemesh_fsm::id::{Millis, RowId};
use claudemesh_fsm::outbox::{Abort, AnyRow, Status};

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbortRequest {
    /// The row to retire.
    pub id: RowId,
    /// For the audit column.
    pub aborted_by: String,
    /// Now.
    pub now: Millis,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AbortOutcome {
    /// The row is aborted.
    Aborted {
        /// Whether it may have reached the broker all the same.
        may_have_been_sent: bool,
    },
    /// No row has that id.
    NotFound,
    /// The row is in a state that cannot be aborted.
    WrongState {
        /// The state.
        status: Status,
        /// The row in its place, if it was requeued.
        superseded_by: Option<RowId>,
    },
}

/// The state of a row that cannot be retired, and the row that took its place.
pub(super) fn status_and_successor(row: &AnyRow) -> (Status, Option<RowId>) {
    let superseded_by = match row {
        AnyRow::Aborted(row) => row.state().superseded_by.clone(),
        _ => None,
    };
    (row.status(), superseded_by)
}

impl Outbox {
    /// Retires a row that waits or is dead, without a successor (§4.5.3). An unanswered attempt does
    /// not stand in the way, because nothing is sent in its place; the outcome tells of it.
    ///
    /// # Errors
    /// When the commit fails: then nothing changed.
    pub async fn abort(&self, request: AbortRequest) -> Result<AbortOutcome, Error> {
        let outbox = self.clone();
        let job = move |tx: &Tx<'_>| abort_in(tx, request);
        let after = move |result: &Result<(AbortOutcome, Option<Applied>), Error>| {
            if let Ok((_, Some(applied))) = result {
                applied.moved.iter().for_each(|moved| outbox.announce(moved));
            }
        };
        Ok(self.db.write(Durability::Synced, job, after).await?.0)
    }
}

fn abort_in(tx: &Tx<'_>, request: AbortRequest) -> Result<(AbortOutcome, Option<Applied>), Error> {
    let Some(row) = rows::row_by_row_id(tx, &request.id)? else {
        return Ok((AbortOutcome::NotFound, None));
    };
    let abort = Abort { aborted_at: request.now, aborted_by: request.aborted_by };
    let (guard, may_have_been_sent) = match row {
        AnyRow::Pending(row) => {
            let may_have_been_sent = row.state().may_have_been_sent;
            (row.abort(abort).split().0, may_have_been_sent)
        }
        AnyRow::Dead(row) => {
            let may_have_been_sent = row.state().may_have_been_sent;
            (row.abort(abort).split().0, may_have_been_sent)
        }
        row @ (AnyRow::Inflight(_) | AnyRow::Done(_) | AnyRow::Aborted(_)) => {
            let (status, superseded_by) = status_and_successor(&row);
            return Ok((AbortOutcome::WrongState { status, superseded_by }, None));
        }
    };
    Ok((AbortOutcome::Aborted { may_have_been_sent }, Some(apply(tx, guard)?)))
}
