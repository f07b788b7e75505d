//! Claims: due rows become inflight, many in one commit, and what makes no sense any more is dead.

use super::moves::{Applied, apply, read_moved};
use super::{Moved, Outbox, rows};
use claudemesh_base::db::{Durability, Error, Tx};
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::outbox::{Inflight, Pending, Row, Status, Unsettled};
use std::convert::Infallible;

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

impl Outbox {
    /// Claims up to `limit` due rows of `mesh` for one attempt each, in one commit. Rows accepted
    /// before `expired_before` are not claimed but handed back, to be expired.
    ///
    /// # Errors
    /// When the commit fails: then nothing was claimed.
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
            result.iter().for_each(UnsettledClaim::log_dead_lettered);
            result.iter().flat_map(UnsettledClaim::moves).for_each(|moved| outbox.announce(moved));
        };
        Ok(self.db.write(Durability::Relaxed, job, after).await?.settle())
    }
}

/// A claim whose commit is not decided yet.
struct UnsettledClaim {
    claims: Vec<(Unsettled<Pending, Inflight>, Applied)>,
    dead_lettered: Vec<Moved>,
    expired: Vec<Row<Pending>>,
    more: bool,
    next_due_at: Option<Millis>,
}

impl UnsettledClaim {
    /// Once its commit stands: each row is given up once.
    fn log_dead_lettered(&self) {
        for Moved { mesh, client_message_id: id, last_error, .. } in &self.dead_lettered {
            tracing::error!(mesh, %id, ?last_error, "a waiting row makes no sense any more");
        }
    }

    /// What listeners are told.
    fn moves(&self) -> impl Iterator<Item = &Moved> {
        let claimed = self.claims.iter().filter_map(|(_, applied)| applied.moved.as_ref());
        claimed.chain(&self.dead_lettered)
    }

    fn settle(self) -> Claimed {
        let settled = self.claims.into_iter().map(|(row, applied)| {
            // Each of them moved: a claim that finds otherwise fails as a whole.
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
    let due = rows::due(tx, mesh, now, limit)?;
    let more = due.len() == limit;
    // One of them must not keep the others of its mesh from being sent.
    let damage = || rows::damaged_due_index(tx);
    let dead_lettered =
        due.corrupt.iter().map(|(id, why)| dead_letter(tx, id, why)?.ok_or_else(damage));
    let dead_lettered = dead_lettered.collect::<Result<_, Error>>()?;
    let (expired, fresh): (Vec<_>, Vec<_>) =
        due.rows.into_iter().partition(|row| row.identity().enqueued_at < expired_before);
    let claim = |row: Row<Pending>| {
        let (guard, unsettled) = row.claim().split();
        let applied = apply(tx, guard)?;
        if applied.moved.is_none() {
            return Err(damage());
        }
        Ok((unsettled, applied))
    };
    let claims = fresh.into_iter().map(claim).collect::<Result<Vec<_>, Error>>()?;
    for row in &expired {
        if !rows::waits(tx, &row.identity().id)? {
            return Err(damage());
        }
    }
    let next_due_at = if more { None } else { rows::next_due_at(tx, mesh)? };
    Ok(UnsettledClaim { claims, dead_lettered, expired, more, next_due_at })
}

/// A waiting row that cannot be restored is dead: no typestate has it, so this is no guarded step.
/// One that lost whom it is sealed to is unaddressed, so that no requeue can send it in the clear.
fn dead_letter(tx: &Tx<'_>, id: &str, why: &str) -> Result<Option<Moved>, Error> {
    let sql = concat!(
        "UPDATE outbox SET status = 'dead', last_error = ?, destination_ref = CASE \
         WHEN destination_kind = 'dm' AND recipient IS NULL THEN '' ELSE destination_ref END, \
         may_have_been_sent = ",
        may_have_been_sent!(),
        " WHERE id = ? AND status = 'pending' \
         RETURNING mesh, client_message_id, broker_message_id, last_error, ",
        row_bytes_sql!()
    );
    let last_error = format!("this row makes no sense any more and was not sent: {why}");
    tx.query_row(sql, &[last_error.as_str().into(), id.into()], |row| {
        read_moved(row, Status::Pending, Status::Dead)
    })
}
