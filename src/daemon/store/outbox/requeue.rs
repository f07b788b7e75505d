//! Requeue (§4.5.3): the old row is aborted and its successor inserted in one transaction, or
//! nothing happens.

use super::abort::status_and_successor;
use super::accept::{insert, look_up};
use super::depth::{ROW_OVERHEAD_BYTES, row_bytes};
use super::moves::apply;
use super::{Moved, NewRow, Outbox, rows};
use claudemesh_base::db::{Durability, Error, Tx};
use claudemesh_fsm::envelope::{Draft, Envelope};
use claudemesh_fsm::id::{ClientMessageId, Fingerprint, Millis, RowId};
use claudemesh_fsm::outbox::{AnyRow, Retire, Status};

/// A payload to put in place of the old one.
pub struct Patch {
    /// The new payload.
    pub payload: Vec<u8>,
    /// Fingerprints the patched message: what binds the new id to it (§4.4).
    pub fingerprint: fn(&Draft) -> Fingerprint,
}

/// Why a successor would never be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLarge {
    /// The mesh.
    pub mesh: String,
    /// What its frame would weigh.
    pub frame_bytes: usize,
    /// What the mesh allows.
    pub frame_bytes_max: usize,
}

/// Holds a successor against the limit of its mesh (§3.6).
type SizeCheck = Box<dyn Fn(&Envelope, &ClientMessageId) -> Result<(), TooLarge> + Send>;

/// What an operator asks for.
pub struct RequeueRequest {
    /// The row to retire.
    pub id: RowId,
    /// The successor's row id.
    pub new_id: RowId,
    /// The successor's `client_message_id`.
    pub new_client_message_id: ClientMessageId,
    /// A payload to put in place of the old one.
    pub patch: Option<Patch>,
    /// Whether the successor fits its mesh.
    pub check_size: SizeCheck,
    /// For the audit column.
    pub aborted_by: String,
    /// Now.
    pub now: Millis,
    /// Requeue even though an attempt was never answered.
    pub force: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequeueOutcome {
    /// The old row is aborted and its successor waits.
    Requeued {
        /// Whether the old row may have reached the broker.
        may_have_been_sent: bool,
    },
    /// No row has that id.
    NotFound,
    /// The row is in a state that cannot be requeued.
    WrongState {
        /// The state.
        status: Status,
        /// The row in its place, if it was requeued before.
        superseded_by: Option<RowId>,
    },
    /// An earlier daemon did not record where the message goes, so a successor could not be sent
    /// either.
    NoDestination,
    /// An attempt was never answered, and `force` was not set.
    MayHaveBeenSent,
    /// Another row already has the new `client_message_id`.
    NewIdTaken,
    /// The row's body is gone, and no other was given.
    BodyEmptied {
        /// The row's state.
        status: Status,
    },
    /// The successor would be too heavy for its mesh.
    TooLarge(TooLarge),
}

impl Outbox {
    /// Retires a row and puts a successor in its place, in one transaction (§4.5.3).
    ///
    /// # Errors
    /// When there is no room for the successor or the commit fails: then nothing changed.
    pub async fn requeue(&self, request: RequeueRequest) -> Result<RequeueOutcome, Error> {
        // What is put in place of an old payload is new; the rest only changes its state.
        let payload_bytes = request.patch.as_ref().map_or(0, |patch| patch.payload.len());
        let room = self.depths.reserve(ROW_OVERHEAD_BYTES + payload_bytes as u64)?;
        let outbox = self.clone();
        let job = move |tx: &Tx<'_>| requeue_in(tx, request);
        let after = move |result: &Result<RequeueEffect, Error>| {
            if let Ok(done) = result {
                done.moves.iter().for_each(|moved| outbox.announce(moved));
            }
            outbox.quota().record_outcome(result, |done| {
                matches!(done.outcome, RequeueOutcome::Requeued { .. })
            });
            drop(room);
        };
        Ok(self.db.write(Durability::Synced, job, after).await?.outcome)
    }
}

pub(super) struct RequeueEffect {
    pub(super) outcome: RequeueOutcome,
    pub(super) moves: Vec<Moved>,
}

impl RequeueEffect {
    const fn nothing(outcome: RequeueOutcome) -> Self {
        Self { outcome, moves: Vec::new() }
    }
}

pub(super) fn requeue_in(tx: &Tx<'_>, request: RequeueRequest) -> Result<RequeueEffect, Error> {
    let Some(row) = rows::row_by_row_id(tx, &request.id)? else {
        return Ok(RequeueEffect::nothing(RequeueOutcome::NotFound));
    };
    let retire = Retire {
        aborted_at: request.now,
        aborted_by: request.aborted_by,
        superseded_by: Some(request.new_id.clone()),
        force: request.force,
    };
    let (mut envelope, status) = (row.identity().envelope.clone(), row.status());
    let (guard, may_have_been_sent) = match row {
        AnyRow::Pending(row) => {
            let may_have_been_sent = row.state().may_have_been_sent;
            match row.retire(retire) {
                Ok(step) => (step.split().0, may_have_been_sent),
                Err(_) => return Ok(RequeueEffect::nothing(RequeueOutcome::MayHaveBeenSent)),
            }
        }
        AnyRow::Dead(row) if row.envelope().has_no_destination() => {
            return Ok(RequeueEffect::nothing(RequeueOutcome::NoDestination));
        }
        AnyRow::Dead(row) => {
            let may_have_been_sent = row.state().may_have_been_sent;
            (row.retire(retire).split().0, may_have_been_sent)
        }
        row @ (AnyRow::Inflight(_) | AnyRow::Done(_) | AnyRow::Aborted(_)) => {
            let (status, superseded_by) = status_and_successor(&row);
            return Ok(RequeueEffect::nothing(RequeueOutcome::WrongState {
                status,
                superseded_by,
            }));
        }
    };
    if look_up(tx, &request.new_client_message_id)?.is_some() {
        return Ok(RequeueEffect::nothing(RequeueOutcome::NewIdTaken));
    }
    if let Some(patch) = request.patch {
        envelope.draft.payload = patch.payload;
        envelope.draft.fingerprint = (patch.fingerprint)(&envelope);
    }
    if envelope.payload.is_empty() {
        return Ok(RequeueEffect::nothing(RequeueOutcome::BodyEmptied { status }));
    }
    if let Err(too_large) = (request.check_size)(&envelope, &request.new_client_message_id) {
        return Ok(RequeueEffect::nothing(RequeueOutcome::TooLarge(too_large)));
    }
    let successor = Moved {
        from: None,
        mesh: envelope.mesh.clone(),
        client_message_id: request.new_client_message_id.clone(),
        status: Status::Pending,
        broker_message_id: None,
        last_error: None,
        bytes: row_bytes(&envelope),
    };
    let retired = apply(tx, guard)?;
    let new = NewRow {
        id: request.new_id,
        key: request.new_client_message_id.into(),
        envelope,
        enqueued_at: request.now,
    };
    if !insert(tx, &new)? {
        return Err(Error::corrupt("a free id was taken inside its own transaction"));
    }
    let moves = retired.moved.into_iter().chain([successor]).collect();
    Ok(RequeueEffect { outcome: RequeueOutcome::Requeued { may_have_been_sent }, moves })
}
