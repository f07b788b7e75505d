//! Making rows due before their time: at start, after the clock jumped, and when their recipient
//! came back (§4.6, §4.11).
//!
//! A million rows may be backed off, and the writer thread serves accepts too: so rows become due
//! some at a time, the farthest due first.

use super::{Outbox, rows};
use claudemesh_base::db::{Durability, Error, Tx};
use claudemesh_fsm::envelope::Priority;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::outbox::Status;

/// How many rows one transaction makes due: a few milliseconds of the writer's time.
const AT_ONCE_MAX: usize = 512;

impl Outbox {
    /// Makes every waiting row of `mesh` due no later than `now`: after the clock jumped, a due
    /// time means nothing (§4.6).
    ///
    /// # Errors
    /// When a commit fails; some rows may be due then.
    pub async fn expedite(&self, mesh: &str, now: Millis) -> Result<usize, Error> {
        let waiting = self.depths().get(mesh).map_or(0, |depth| depth.of(Status::Pending));
        self.expedite_some(mesh, now, usize::try_from(waiting).unwrap_or(usize::MAX)).await
    }

    /// The same for about `rows_max` rows, those that would wait longest; fewer were left if fewer
    /// were made due. Rows are made due some at a time, so that other writers come in between.
    ///
    /// # Errors
    /// When a commit fails; some rows may be due then.
    pub async fn expedite_some(
        &self,
        mesh: &str,
        now: Millis,
        rows_max: usize,
    ) -> Result<usize, Error> {
        let mut expedited = 0;
        for priority in [Priority::Now, Priority::Next, Priority::Low] {
            while expedited < rows_max {
                let changed = self.expedite_chunk(mesh, priority, now).await?;
                expedited += changed;
                if changed < AT_ONCE_MAX {
                    break;
                }
            }
        }
        Ok(expedited)
    }

    /// Makes the rows of `mesh` due that are pinned to one of `keys`: their recipients are there.
    ///
    /// They may be few among many, so a reader finds them and the writer only changes them.
    ///
    /// # Errors
    /// When the search or a commit fails; some rows may be due then.
    pub async fn expedite_recipients(
        &self,
        mesh: &str,
        keys: &[&str],
        now: Millis,
    ) -> Result<usize, Error> {
        let (mesh, keys) = (mesh.to_owned(), serde_json::json!(keys).to_string());
        let find = move |tx: &Tx<'_>| {
            let sql = "SELECT seq FROM outbox \
                       WHERE mesh = ? AND status = 'pending' AND next_attempt_at > ? \
                       AND recipient IN (SELECT value FROM json_each(?))";
            tx.query(sql, &[(&mesh).into(), now.0.into(), (&keys).into()], |row| row.int(0))
        };
        let found: Vec<i64> = self.db.read(find).await?;
        let mut expedited = 0;
        for seqs in found.chunks(AT_ONCE_MAX) {
            let seqs = seqs.to_vec();
            let job = move |tx: &Tx<'_>| reschedule(tx, &seqs, now);
            expedited += self.db.write(Durability::Relaxed, job, |_: &Result<_, Error>| ()).await?;
        }
        Ok(expedited)
    }

    async fn expedite_chunk(
        &self,
        mesh: &str,
        priority: Priority,
        now: Millis,
    ) -> Result<usize, Error> {
        let mesh = mesh.to_owned();
        let job = move |tx: &Tx<'_>| {
            let sql = "SELECT seq FROM outbox WHERE mesh = ? AND status = 'pending' \
                       AND priority = ? AND next_attempt_at > ? \
                       ORDER BY next_attempt_at DESC LIMIT ?";
            let (priority, at_once) = (priority.as_str(), AT_ONCE_MAX as i64);
            let params = [(&mesh).into(), priority.into(), now.0.into(), at_once.into()];
            let seqs = tx.query(sql, &params, |row| row.int(0))?;
            let expedited = reschedule(tx, &seqs, now)?;
            // The count ends the caller's loop: an index that is wrong would end it too soon.
            if expedited == seqs.len() { Ok(expedited) } else { Err(rows::damaged_due_index(tx)) }
        };
        self.db.write(Durability::Relaxed, job, |_: &Result<_, Error>| ()).await
    }
}

/// Makes those of these rows due that wait; says how many.
fn reschedule(tx: &Tx<'_>, seqs: &[i64], now: Millis) -> Result<usize, Error> {
    let sql = "UPDATE outbox SET next_attempt_at = ?1 \
               WHERE seq IN (SELECT value FROM json_each(?2)) \
               AND status = 'pending' AND next_attempt_at > ?1";
    tx.execute(sql, &[now.0.into(), (&serde_json::json!(seqs).to_string()).into()])
}
