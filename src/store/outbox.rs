//! `outbox.db`: what was accepted, and where each message is (§4.5.2).

mod query;
mod requeue;
mod view;

pub use query::{ListPage, ListQuery, RowView};
pub use requeue::{Patch, RequeueOutcome, RequeueRequest};

use super::schema;
use crate::db::{Db, Driver, Durability, Error, Param, Tx};
use claudemesh_fsm::accept::{Decision, decide, mismatch};
use claudemesh_fsm::envelope::Envelope;
use claudemesh_fsm::id::{ClientMessageId, Fingerprint, Millis, RowId};
use claudemesh_fsm::outbox::{
    Ack, AnyRow, Change, Guard, Inflight, Pending, Row, Standing, StandingRecord, State, Status,
    Step, Unsettled, Verdict, standing,
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// A message to be accepted.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Our name for the row.
    pub id: RowId,
    /// The caller's name for the message.
    pub client_message_id: ClientMessageId,
    /// The message.
    pub envelope: Envelope,
    /// Now.
    pub enqueued_at: Millis,
    /// Whether the caller named the mesh, so that another mesh's row is a mismatch (§3.3).
    pub mesh_is_explicit: bool,
}

/// What a request is told, with what every 409 also says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The row's id: the existing one's, or the new one's.
    pub row_id: RowId,
    /// §4.5.1.
    pub decision: Decision,
    /// The mesh of the row: the existing one's, or the new one's.
    pub mesh: String,
    /// The existing row's fingerprint, or the new one's.
    pub fingerprint: Fingerprint,
}

/// How many rows each mesh has in each state. Kept, not counted: counting a million rows takes
/// longer than a request may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth([u64; Status::ALL.len()]);

impl Depth {
    /// The number of rows in `status`.
    #[must_use]
    pub const fn of(&self, status: Status) -> u64 {
        self.0[status as usize]
    }

    /// This and `other` together.
    #[must_use]
    pub fn plus(mut self, other: Self) -> Self {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
        self
    }

    fn moved(&mut self, from: Option<Status>, to: Status) {
        if let Some(from) = from {
            self.0[from as usize] = self.0[from as usize].saturating_sub(1);
        }
        self.0[to as usize] += 1;
    }
}

/// A row changed status: what listeners are told after the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The state it was in; `None` for a row that is new.
    pub from: Option<Status>,
    /// The row's mesh.
    pub mesh: String,
    /// The caller's id.
    pub client_message_id: ClientMessageId,
    /// The state it is in now.
    pub status: Status,
    /// The broker's id, once it is done.
    pub broker_message_id: Option<String>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

type OnMoved = Arc<dyn Fn(&Moved) + Send + Sync>;

/// A handle on `outbox.db`. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    db: Db,
    depths: Arc<Mutex<BTreeMap<String, Depth>>>,
    on_moved: OnMoved,
}

impl Outbox {
    /// Opens or creates the database. `on_moved` runs on the writer thread after each commit that
    /// moved a row, so it must not block.
    ///
    /// # Errors
    /// See [`Db::open`].
    pub fn open(path: &Path, driver: Driver, on_moved: OnMoved) -> Result<Self, Error> {
        let db = Db::open(path, &schema::OUTBOX, driver)?;
        let outbox = Self { db, depths: Arc::default(), on_moved };
        smol::block_on(outbox.count())?;
        Ok(outbox)
    }

    async fn count(&self) -> Result<(), Error> {
        let counted = self
            .db
            .read(|tx| {
                let sql = "SELECT mesh, status, count(*) FROM outbox GROUP BY mesh, status";
                tx.query(sql, &[], |row| Ok((row.text(0)?, row.text(1)?, row.int(2)?)))
            })
            .await?;
        let mut depths = self.lock_depths();
        for (mesh, status, count) in counted {
            let status = Status::parse(&status)
                .ok_or_else(|| Error::corrupt(format_args!("status `{status}`")))?;
            depths.entry(mesh).or_default().0[status as usize] = u64::try_from(count).unwrap_or(0);
        }
        Ok(())
    }

    /// The depth of each mesh that ever had a row.
    #[must_use]
    pub fn depths(&self) -> BTreeMap<String, Depth> {
        self.lock_depths().clone()
    }

    fn lock_depths(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Depth>> {
        self.depths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks the id up, decides (§4.5.1), inserts if there is no row, commits, and only then
    /// answers. The work is queued before this returns: a caller that goes away changes nothing.
    ///
    /// # Errors
    /// When the queue is full or the commit fails: then nothing was accepted.
    pub fn accept(
        &self,
        new: NewRow,
    ) -> impl Future<Output = Result<Accepted, Error>> + Send + use<> {
        let outbox = self.clone();
        let inserted = Moved {
            from: None,
            mesh: new.envelope.mesh.clone(),
            client_message_id: new.client_message_id.clone(),
            status: Status::Pending,
            broker_message_id: None,
            last_error: None,
        };
        let after = move |result: &Result<Accepted, Error>| {
            if matches!(result, Ok(Accepted { decision: Decision::Insert, .. })) {
                outbox.announce(&inserted);
            }
        };
        self.db.try_write(Durability::Synced, move |tx| accept_in(tx, &new), after)
    }

    /// What a retry of `client_message_id` is told, if it has a row: for requests that cannot be
    /// inserted but may be retries all the same (§3.3).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn existing(
        &self,
        client_message_id: &ClientMessageId,
        fingerprint: Fingerprint,
        explicit_mesh: Option<String>,
    ) -> Result<Option<Accepted>, Error> {
        let id = client_message_id.clone();
        self.db
            .read(move |tx| {
                Ok(look_up(tx, &id)?.map(|row| row.judge(fingerprint, explicit_mesh.as_deref())))
            })
            .await
    }

    /// Stores one move. `Ok(None)` means another writer moved the row first, and this result is to
    /// be dropped.
    ///
    /// # Errors
    /// When the commit fails, the row comes back in the state it had, with the reason.
    pub async fn store<S, N>(&self, step: Step<S, N>) -> Result<Option<Row<N>>, (Row<S>, Error)>
    where
        S: State,
        N: State,
    {
        let (guard, unsettled) = step.split();
        let outcome = self.write_guard(guard).await;
        unsettled.settle(outcome)
    }

    /// Claims up to `limit` due rows of `mesh` for one attempt each, in one commit. Rows accepted
    /// before `expired_before` are not claimed but handed back, to be expired.
    ///
    /// # Errors
    /// When the commit fails, or a row is damaged: then nothing was claimed.
    pub async fn claim_due(
        &self,
        mesh: &str,
        now: Millis,
        expired_before: Millis,
        limit: usize,
    ) -> Result<Claimed, Error> {
        let mesh = mesh.to_owned();
        let outbox = self.clone();
        let job = move |tx: &Tx<'_>| claim_due_in(tx, &mesh, now, expired_before, limit);
        let after = move |result: &Result<UnsettledClaim, Error>| {
            let moves = result.iter().flat_map(|claim| &claim.claims);
            moves
                .filter_map(|(_, applied)| applied.moved.as_ref())
                .for_each(|m| outbox.announce(m));
        };
        Ok(self.db.write(Durability::Relaxed, job, after).await?.settle())
    }

    /// The broker acknowledged an attempt that had been given up: a pending row becomes done, any
    /// other is left as it is (§4.5.2). Says whether a row moved.
    ///
    /// # Errors
    /// When the commit fails.
    pub async fn late_ack(&self, id: &ClientMessageId, ack: Ack) -> Result<bool, Error> {
        let id = id.clone();
        let outbox = self.clone();
        let job = move |tx: &Tx<'_>| match query::row(tx, &id)? {
            Some(AnyRow::Pending(row)) => {
                let (guard, _) = row.acked_late(ack).split();
                apply(tx, guard).map(Some)
            }
            _ => Ok(None),
        };
        let after = move |result: &Result<Option<Applied>, Error>| {
            result
                .iter()
                .flatten()
                .for_each(|applied| applied.moved.iter().for_each(|moved| outbox.announce(moved)));
        };
        Ok(self.db.write(Durability::Relaxed, job, after).await?.is_some())
    }

    /// Every inflight row becomes pending, due at `next_attempt_at`: at start nobody is sending
    /// (§4.11). Returns how many.
    ///
    /// # Errors
    /// When the commit fails.
    pub async fn recover(&self, next_attempt_at: Millis) -> Result<usize, Error> {
        let job = move |tx: &Tx<'_>| {
            let sql = "UPDATE outbox SET status = 'pending', next_attempt_at = ?, \
                       may_have_been_sent = 1 WHERE status = 'inflight'";
            tx.execute(sql, &[next_attempt_at.0.into()])
        };
        let recovered =
            self.db.write(Durability::Relaxed, job, |_: &Result<usize, Error>| ()).await?;
        self.count().await?;
        Ok(recovered)
    }

    /// Makes every waiting row of `mesh` due no later than `now`: after the clock jumped, a due
    /// time means nothing (§4.6).
    ///
    /// # Errors
    /// When the commit fails.
    pub async fn hasten(&self, mesh: &str, now: Millis) -> Result<usize, Error> {
        let mesh = mesh.to_owned();
        let job = move |tx: &Tx<'_>| {
            let sql = "UPDATE outbox SET next_attempt_at = ?1 \
                       WHERE mesh = ?2 AND status = 'pending' AND next_attempt_at > ?1";
            tx.execute(sql, &[now.0.into(), (&mesh).into()])
        };
        self.db.write(Durability::Relaxed, job, |_: &Result<usize, Error>| ()).await
    }

    /// One row with everything the API shows of it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn view(&self, id: &ClientMessageId) -> Result<Option<RowView>, Error> {
        let id = id.clone();
        self.db.read(move |tx| query::view(tx, &id)).await
    }

    /// A page of rows, newest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn list(&self, query: ListQuery) -> Result<ListPage, Error> {
        self.db.read(move |tx| query::list(tx, &query)).await
    }

    /// When the oldest row of each mesh that still waits was accepted.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn oldest_waiting(&self) -> Result<BTreeMap<String, Millis>, Error> {
        self.db.read(query::oldest_waiting).await
    }

    /// Retires a row and puts a successor in its place, in one transaction (§4.5.3).
    ///
    /// # Errors
    /// When the commit fails: then nothing changed.
    pub async fn requeue(&self, request: RequeueRequest) -> Result<RequeueOutcome, Error> {
        let outbox = self.clone();
        let job = move |tx: &Tx<'_>| requeue::requeue_in(tx, request);
        let after = move |result: &Result<requeue::Done, Error>| {
            if let Ok(done) = result {
                done.moves.iter().for_each(|moved| outbox.announce(moved));
            }
        };
        Ok(self.db.write(Durability::Synced, job, after).await?.outcome)
    }

    /// Finishes what was queued and closes the file. Blocks.
    pub fn close(&self) {
        self.db.close();
    }

    async fn write_guard(&self, guard: Guard) -> Result<Verdict, Error> {
        let durability =
            if guard.change().must_be_synced() { Durability::Synced } else { Durability::Relaxed };
        let outbox = self.clone();
        let after = move |result: &Result<Applied, Error>| {
            result
                .iter()
                .for_each(|applied| applied.moved.iter().for_each(|moved| outbox.announce(moved)));
        };
        let applied = self.db.write(durability, move |tx| apply(tx, guard), after).await?;
        Ok(applied.verdict)
    }

    fn announce(&self, moved: &Moved) {
        self.lock_depths().entry(moved.mesh.clone()).or_default().moved(moved.from, moved.status);
        (self.on_moved)(moved);
    }
}

/// What a claim found.
#[derive(Debug)]
pub struct Claimed {
    /// Rows to send, in claim order.
    pub rows: Vec<Row<Inflight>>,
    /// Rows too old to send.
    pub expired: Vec<Row<Pending>>,
    /// Whether more rows may be due already.
    pub more: bool,
    /// When the next row is due, if none is now.
    pub next_due_at: Option<Millis>,
}

/// A claim whose commit is not decided yet.
struct UnsettledClaim {
    claims: Vec<(Unsettled<Pending, Inflight>, Applied)>,
    expired: Vec<Row<Pending>>,
    more: bool,
    next_due_at: Option<Millis>,
}

impl UnsettledClaim {
    fn settle(self) -> Claimed {
        let settled = self.claims.into_iter().map(|(row, applied)| {
            // Another writer that was first has the row; it is not ours to send.
            row.settle(Ok::<_, Infallible>(applied.verdict)).ok().flatten()
        });
        Claimed {
            rows: settled.flatten().collect(),
            expired: self.expired,
            more: self.more,
            next_due_at: self.next_due_at,
        }
    }
}

fn claim_due_in(
    tx: &Tx<'_>,
    mesh: &str,
    now: Millis,
    expired_before: Millis,
    limit: usize,
) -> Result<UnsettledClaim, Error> {
    let due = query::due(tx, mesh, now, limit)?;
    let more = due.len() == limit;
    let (expired, fresh): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|row| row.identity().enqueued_at < expired_before);
    let claim = |row: Row<Pending>| {
        let (guard, unsettled) = row.claim().split();
        Ok((unsettled, apply(tx, guard)?))
    };
    let claims = fresh.into_iter().map(claim).collect::<Result<Vec<_>, Error>>()?;
    let next_due_at = if more { None } else { query::next_due_at(tx, mesh)? };
    Ok(UnsettledClaim { claims, expired, more, next_due_at })
}

/// A guarded move inside its transaction: what the mover needs, and what listeners are told.
struct Applied {
    verdict: Verdict,
    moved: Option<Moved>,
}

/// Spends a guard on its one `UPDATE` (§4.5.2).
fn apply(tx: &Tx<'_>, guard: Guard) -> Result<Applied, Error> {
    let changed = update(tx, &guard)?;
    let moved = if changed > 0 { Some(moved_by(tx, &guard)?) } else { None };
    Ok(Applied { verdict: guard.applied(changed), moved })
}

fn update(tx: &Tx<'_>, guard: &Guard) -> Result<usize, Error> {
    let id = guard.id().as_str();
    let leaves = guard.leaves().as_str();
    let attempts = i64::from(guard.attempts());
    let attempts_after = i64::from(guard.attempts_after());
    match guard.change() {
        Change::Claimed => tx.execute(
            "UPDATE outbox SET status = 'inflight', attempts = ? \
             WHERE id = ? AND status = ? AND attempts = ?",
            &[attempts_after.into(), id.into(), leaves.into(), attempts.into()],
        ),
        Change::Done { broker_message_id, history_id, delivered_at } => tx.execute(
            "UPDATE outbox SET status = 'done', broker_message_id = ?, history_id = ?, \
             delivered_at = ?, may_have_been_sent = 0 WHERE id = ? AND status = ? AND attempts = ?",
            &[
                broker_message_id.as_str().into(),
                history_id.as_deref().into(),
                delivered_at.0.into(),
                id.into(),
                leaves.into(),
                attempts.into(),
            ],
        ),
        Change::Returned { next_attempt_at, last_error, may_have_been_sent, counts: _ } => tx
            .execute(
                "UPDATE outbox SET status = 'pending', next_attempt_at = ?, \
             last_error = coalesce(?, last_error), may_have_been_sent = ?, attempts = ? \
             WHERE id = ? AND status = ? AND attempts = ?",
                &[
                    next_attempt_at.0.into(),
                    last_error.as_deref().into(),
                    (*may_have_been_sent).into(),
                    attempts_after.into(),
                    id.into(),
                    leaves.into(),
                    attempts.into(),
                ],
            ),
        Change::Dead { last_error, may_have_been_sent } => tx.execute(
            "UPDATE outbox SET status = 'dead', last_error = ?, may_have_been_sent = ? \
             WHERE id = ? AND status = ? AND attempts = ?",
            &[
                last_error.as_str().into(),
                (*may_have_been_sent).into(),
                id.into(),
                leaves.into(),
                attempts.into(),
            ],
        ),
        Change::Aborted { aborted_at, aborted_by, superseded_by } => tx.execute(
            "UPDATE outbox SET status = 'aborted', aborted_at = ?, aborted_by = ?, \
             superseded_by = ? WHERE id = ? AND status = ? AND attempts = ?",
            &[
                aborted_at.0.into(),
                aborted_by.as_str().into(),
                superseded_by.as_ref().map(RowId::as_str).into(),
                id.into(),
                leaves.into(),
                attempts.into(),
            ],
        ),
    }
}

/// What listeners are told of a move that happened.
fn moved_by(tx: &Tx<'_>, guard: &Guard) -> Result<Moved, Error> {
    let sql =
        "SELECT mesh, client_message_id, broker_message_id, last_error FROM outbox WHERE id = ?";
    let row = tx.query_row(sql, &[guard.id().as_str().into()], |row| {
        Ok(Moved {
            from: Some(guard.leaves()),
            mesh: row.text(0)?,
            client_message_id: ClientMessageId::trusted(row.text(1)?),
            status: guard.change().enters(),
            broker_message_id: row.text_or_null(2)?,
            last_error: row.text_or_null(3)?,
        })
    })?;
    row.ok_or_else(|| Error::corrupt("a row vanished inside its own transaction"))
}

/// An existing row as §4.5.1 sees it.
struct Existing {
    row_id: RowId,
    fingerprint: Fingerprint,
    standing: Standing,
    mesh: String,
}

impl Existing {
    fn judge(self, fingerprint: Fingerprint, explicit_mesh: Option<&str>) -> Accepted {
        let Self { row_id, fingerprint: stored, standing, mesh } = self;
        let decision = if explicit_mesh.is_some_and(|named| named != mesh) {
            Decision::Conflict(mismatch(standing))
        } else {
            decide(Some((stored, standing)), fingerprint)
        };
        Accepted { row_id, decision, mesh, fingerprint: stored }
    }
}

fn look_up(tx: &Tx<'_>, id: &ClientMessageId) -> Result<Option<Existing>, Error> {
    let sql = "SELECT request_fingerprint, status, last_error, broker_message_id, history_id, \
               superseded_by, mesh, id FROM outbox WHERE client_message_id = ?";
    tx.query_row(sql, &[id.as_str().into()], |row| {
        let record = StandingRecord {
            request_fingerprint: row.blob(0)?,
            status: row.text(1)?,
            last_error: row.text_or_null(2)?,
            broker_message_id: row.text_or_null(3)?,
            history_id: row.text_or_null(4)?,
            superseded_by: row.text_or_null(5)?,
        };
        let (fingerprint, standing) = standing(record).map_err(Error::corrupt)?;
        let (mesh, row_id) = (row.text(6)?, RowId::trusted(row.text(7)?));
        Ok(Existing { row_id, fingerprint, standing, mesh })
    })
}

fn accept_in(tx: &Tx<'_>, new: &NewRow) -> Result<Accepted, Error> {
    let NewRow { envelope, client_message_id, .. } = new;
    let explicit_mesh = new.mesh_is_explicit.then_some(envelope.mesh.as_str());
    if let Some(existing) = look_up(tx, client_message_id)? {
        return Ok(existing.judge(envelope.fingerprint, explicit_mesh));
    }
    insert(tx, new)?;
    Ok(Accepted {
        row_id: new.id.clone(),
        decision: decide(None, envelope.fingerprint),
        mesh: envelope.mesh.clone(),
        fingerprint: envelope.fingerprint,
    })
}

fn insert(tx: &Tx<'_>, new: &NewRow) -> Result<(), Error> {
    let NewRow { id, client_message_id, envelope, enqueued_at, mesh_is_explicit: _ } = new;
    let reference = envelope.destination.reference();
    let sql = "INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, mesh, \
               destination_kind, destination_ref, recipient, recipient_member, priority, meta, \
               reply_to_id, mentions, enqueued_at, next_attempt_at, status) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14, 'pending')";
    let mentions = (!envelope.mentions.is_empty()).then(|| envelope.mentions.join("\n"));
    let params = [
        id.as_str().into(),
        client_message_id.as_str().into(),
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
    tx.execute(sql, &params).map(drop)
}
