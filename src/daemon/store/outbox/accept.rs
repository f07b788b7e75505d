//! Accepting inside its transaction: the insert and the look-up of §4.5.1.

use super::depth::{Reservation, row_bytes};
use super::{Moved, Outbox};
use claudemesh_base::db::{Error, Kind, Param, Tx};
use claudemesh_base::message::legacy;
use claudemesh_fsm::accept::{AcceptDecision, decide, mismatch};
use claudemesh_fsm::envelope::{Draft, Envelope};
use claudemesh_fsm::id::{ClientMessageId, Fingerprint, Millis, RowId};
use claudemesh_fsm::outbox::{RowSummary, RowSummaryRecord, Status, row_summary};
use std::sync::Arc;

/// What a request is compared by with a row that has its id, beside its fingerprint (§4.5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The caller's name for the message.
    pub client_message_id: ClientMessageId,
    /// The mesh, if the caller named one: another mesh's row is a mismatch then (§3.3).
    pub explicit_mesh: Option<String>,
    /// The reference of the destination as an earlier daemon hashed it, if it is not ours: a public
    /// key that is not in lowercase, or the `all` of `@all` (§4.4).
    pub reference_as_written: Option<String>,
}

impl From<ClientMessageId> for RequestKey {
    fn from(client_message_id: ClientMessageId) -> Self {
        Self { client_message_id, explicit_mesh: None, reference_as_written: None }
    }
}

/// A message to be accepted.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Our name for the row.
    pub id: RowId,
    /// The caller's name for the message, and what else a retry of it is recognised by.
    pub key: RequestKey,
    /// The message.
    pub envelope: Envelope,
    /// Now.
    pub enqueued_at: Millis,
}

/// What a request is told, with what every 409 also says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptOutcome {
    /// The row's id: the existing one's, or the new one's.
    pub row_id: RowId,
    /// §4.5.1.
    pub decision: AcceptDecision,
    /// The mesh of the row: the existing one's, or the new one's. Empty where an earlier daemon did
    /// not record it.
    pub mesh: String,
    /// Whether nothing says where the existing row goes, so that it cannot be requeued.
    pub has_no_destination: bool,
    /// The existing row's fingerprint, or the new one's.
    pub fingerprint: Fingerprint,
}

impl Outbox {
    /// Looks the id up, decides (§4.5.1), inserts if there is no row, commits, and only then
    /// answers. The work is queued before this returns: a caller that goes away changes nothing.
    /// Where there is no room for a row, an id that has one is answered all the same (§3.3).
    ///
    /// # Errors
    /// When there is no room, the queue is full or the commit fails: then nothing was accepted.
    pub fn accept(
        &self,
        new: NewRow,
    ) -> impl Future<Output = Result<AcceptOutcome, Error>> + Send + use<> {
        let outbox = self.clone();
        let new = Arc::new(new);
        let room = self.depths.reserve(row_bytes(&new.envelope));
        let queued = room.map(|room| self.insert(new.clone(), room));
        async move {
            let answer = match queued {
                Ok(answer) => answer.await,
                Err(no_room) => Err(no_room),
            };
            match answer {
                Err(no_room) if no_room.kind() == Kind::Full => {
                    let known = move |tx: &Tx<'_>| known_in(tx, &new.key, &new.envelope);
                    outbox.db.read(known).await?.ok_or(no_room)
                }
                answer => answer,
            }
        }
    }

    fn insert(
        &self,
        new: Arc<NewRow>,
        room: Reservation,
    ) -> impl Future<Output = Result<AcceptOutcome, Error>> + Send + use<> {
        let outbox = self.clone();
        let inserted = Moved {
            from: None,
            mesh: new.envelope.mesh.clone(),
            client_message_id: new.key.client_message_id.clone(),
            status: Status::Pending,
            broker_message_id: None,
            last_error: None,
            bytes: row_bytes(&new.envelope),
        };
        let after = move |result: &Result<AcceptOutcome, Error>| {
            let is_new = |accepted: &AcceptOutcome| accepted.decision == AcceptDecision::Insert;
            if result.as_ref().is_ok_and(is_new) {
                outbox.announce(&inserted);
            }
            outbox.quota().record_outcome(result, is_new);
            drop(room);
        };
        self.db.try_write_one(move |tx| accept_in(tx, &new), after)
    }

    /// What a request is told whose id has a row: for requests that cannot be inserted but may be
    /// retries all the same (§3.3).
    pub async fn existing(
        &self,
        key: RequestKey,
        draft: Draft,
    ) -> Result<Option<AcceptOutcome>, Error> {
        self.db.read(move |tx| known_in(tx, &key, &draft)).await
    }
}

/// An existing row as §4.5.1 sees it.
pub(super) struct Existing {
    row_id: RowId,
    fingerprint: Fingerprint,
    row_summary: RowSummary,
    mesh: String,
    has_no_destination: bool,
}

impl Existing {
    fn judge(self, key: &RequestKey, draft: &Draft) -> AcceptOutcome {
        let Self { row_id, fingerprint: stored, row_summary, mesh, has_no_destination } = self;
        // A mesh that nobody recorded differs from none.
        let is_of_another =
            key.explicit_mesh.as_ref().is_some_and(|named| !mesh.is_empty() && *named != mesh);
        let decision = if is_of_another {
            AcceptDecision::Conflict(mismatch(row_summary))
        } else {
            decide(Some((stored, row_summary)), fingerprint_beside(stored, key, draft))
        };
        AcceptOutcome { row_id, decision, mesh, has_no_destination, fingerprint: stored }
    }
}

/// The request's fingerprint as a row that has `stored` is to be compared with: the form of a
/// daemon before us if that is the row's, or else ours (§4.4).
fn fingerprint_beside(stored: Fingerprint, key: &RequestKey, draft: &Draft) -> Fingerprint {
    let as_written = key.reference_as_written.as_deref();
    let is_earlier = || {
        legacy::fingerprint(draft, as_written) == Some(stored)
            || as_written.is_some_and(|to| legacy::fingerprint_of_reference(draft, to) == stored)
    };
    if stored != draft.fingerprint && is_earlier() { stored } else { draft.fingerprint }
}

pub(super) fn look_up(tx: &Tx<'_>, id: &ClientMessageId) -> Result<Option<Existing>, Error> {
    let sql = "SELECT request_fingerprint, status, last_error, broker_message_id, history_id, \
               superseded_by, mesh, id, mesh = '' OR destination_ref = '' \
               FROM outbox WHERE client_message_id = ?";
    tx.query_row(sql, &[id.as_str().into()], |row| {
        let record = RowSummaryRecord {
            request_fingerprint: row.blob(0)?,
            status: row.text(1)?,
            last_error: row.text_or_null(2)?,
            broker_message_id: row.text_or_null(3)?,
            history_id: row.text_or_null(4)?,
            superseded_by: row.text_or_null(5)?,
        };
        let (fingerprint, row_summary) = row_summary(record).map_err(Error::corrupt)?;
        let (mesh, row_id) = (row.text(6)?, RowId::trusted(row.text(7)?));
        let has_no_destination = row.int(8)? != 0;
        Ok(Existing { row_id, fingerprint, row_summary, mesh, has_no_destination })
    })
}

/// The insert and the look-up are one: the unique index finds an existing row, and only then is it
/// read.
pub(super) fn accept_in(tx: &Tx<'_>, new: &NewRow) -> Result<AcceptOutcome, Error> {
    let NewRow { envelope, .. } = new;
    if insert(tx, new)? {
        return Ok(AcceptOutcome {
            row_id: new.id.clone(),
            decision: decide(None, envelope.fingerprint),
            mesh: envelope.mesh.clone(),
            has_no_destination: false,
            fingerprint: envelope.fingerprint,
        });
    }
    known_in(tx, &new.key, envelope)?
        .ok_or_else(|| Error::corrupt("an id is taken by a row that is not there"))
}

/// What a retry is told, if its id has a row.
pub(super) fn known_in(
    tx: &Tx<'_>,
    key: &RequestKey,
    draft: &Draft,
) -> Result<Option<AcceptOutcome>, Error> {
    let existing = look_up(tx, &key.client_message_id)?;
    Ok(existing.map(|existing| existing.judge(key, draft)))
}

/// Inserts a pending row, or says that its `client_message_id` has one.
pub(super) fn insert(tx: &Tx<'_>, new: &NewRow) -> Result<bool, Error> {
    let NewRow { id, key, envelope, enqueued_at } = new;
    let reference = envelope.destination.reference();
    let sql = "INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, mesh, \
               destination_kind, destination_ref, recipient, recipient_member, priority, meta, \
               reply_to_id, mentions, enqueued_at, next_attempt_at, status) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14, 'pending') \
               ON CONFLICT (client_message_id) DO NOTHING";
    let mentions = (!envelope.mentions.is_empty()).then(|| envelope.mentions.join("\n"));
    let params = [
        id.as_str().into(),
        key.client_message_id.as_str().into(),
        Param::Blob(envelope.fingerprint.as_bytes()),
        Param::Blob(&envelope.payload),
        envelope.mesh.as_str().into(),
        envelope.destination.kind().as_str().into(),
        reference.as_str().into(),
        envelope.recipient.as_ref().map(|recipient| recipient.routing_key.as_str()).into(),
        envelope.recipient.as_ref().map(|recipient| recipient.member_key.as_str()).into(),
        envelope.priority.as_str().into(),
        envelope.meta.as_deref().into(),
        envelope.reply_to_id.as_deref().into(),
        mentions.as_deref().into(),
        enqueued_at.0.into(),
    ];
    Ok(tx.execute(sql, &params)? > 0)
}
