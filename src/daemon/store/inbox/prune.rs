//! Messages leave the inbox: one, some or all because somebody asked, the oldest because there is
//! a bound (§1.2, §3.4).
//!
//! What a message is known by stays in `seen` for as long as its broker may send it again, and then
//! goes too: nothing that left reappears.

use super::{Inbox, newest_seq};
use crate::store::{batch, trusted_time};
use claudemesh_base::db::{Durability, Error, Tx};
use claudemesh_fsm::id::Millis;

/// How much longer than its message an entry of `seen` lives, in milliseconds: a broker keeps
/// undelivered mail for 30 days (§17.1), and a week is for clocks and outages. Today's network
/// redelivers for up to 7 days.
pub const SEEN_OUTLIVES_MS: i64 = (30 + 7) * trusted_time::DAY_MS;
/// How many entries of `seen` are forgotten in one transaction.
const FORGET_MAX: i64 = 128;

/// Which messages to remove: all, as far as nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClearFilter {
    /// Only this mesh.
    pub mesh: Option<String>,
    /// Only messages received before this instant.
    pub before: Option<Millis>,
}

/// How much the inbox holds at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxLimits {
    /// How long a message is kept, in milliseconds.
    pub retention_ms: i64,
    /// How large the database may be, free pages apart, in bytes.
    pub bytes_max: i64,
}

/// A message that may go.
struct PrunableMessage {
    seq: i64,
    body_bytes: i64,
    is_meant: bool,
}

impl Inbox {
    /// Removes one message, by its id; says whether it was there.
    pub async fn remove(&self, id: String) -> Result<bool, Error> {
        let job = move |tx: &Tx<'_>| tx.execute("DELETE FROM inbox WHERE id = ?", &[(&id).into()]);
        let removed = self.db.write(Durability::Synced, job, |_: &Result<usize, Error>| ());
        Ok(removed.await? > 0)
    }

    /// Removes messages, in many small transactions; says how many. What arrives meanwhile stays.
    ///
    /// # Errors
    /// When a commit fails: what was committed before stays removed.
    pub async fn clear(&self, clear: ClearFilter) -> Result<usize, Error> {
        let until = self.newest_seq().await?;
        let (mut after, mut removed) = (0, 0);
        loop {
            let which = clear.clone();
            let page = self.db.read(move |tx| candidates(tx, &which, after, until)).await?;
            let Some(last) = page.last() else { return Ok(removed) };
            after = last.seq;
            let meant: Vec<_> = page.into_iter().filter(|message| message.is_meant).collect();
            removed += self.delete(&meant, Durability::Synced).await?;
        }
    }

    /// The retention flow looks at the clock: what makes messages older.
    pub async fn observe_clock(&self, now: Millis, bounds: InboxLimits) -> Result<(), Error> {
        let job = move |tx: &Tx<'_>| {
            let newest = newest_seq(tx)?;
            trusted_time::observe_clock(
                tx,
                now,
                newest,
                bounds.retention_ms.saturating_add(SEEN_OUTLIVES_MS),
            )
        };
        self.db.write(Durability::Relaxed, job, |_: &Result<(), Error>| ()).await
    }

    /// One small transaction of a pass: removes some of the oldest messages that are beyond the
    /// bounds. Says how many; 0 when nothing is.
    ///
    /// # Errors
    /// When the commit fails: then this step changed nothing.
    pub async fn prune(&self, bounds: InboxLimits) -> Result<usize, Error> {
        let found = self.db.read(move |tx| beyond(tx, bounds)).await?;
        let fits = batch::fitting(found.iter().map(|message| message.body_bytes));
        self.delete(&found[..fits.min(found.len())], Durability::Relaxed).await
    }

    /// One small transaction of a pass: forgets some messages that no broker sends again. Says how
    /// many; 0 when there are none.
    ///
    /// # Errors
    /// When the commit fails: then this step changed nothing.
    pub async fn forget(&self, bounds: InboxLimits) -> Result<usize, Error> {
        let known_ms = bounds.retention_ms.saturating_add(SEEN_OUTLIVES_MS);
        let until = self.db.read(move |tx| trusted_time::older_than(tx, known_ms)).await?;
        if until == 0 {
            return Ok(0);
        }
        // A message that is still here is never forgotten, whatever its age.
        let job = move |tx: &Tx<'_>| {
            let sql = "DELETE FROM seen WHERE (mesh, broker_message_id) IN \
                       (SELECT mesh, broker_message_id FROM seen WHERE inbox_seq <= ?1 \
                       AND inbox_seq < coalesce((SELECT min(seq) FROM inbox), ?1 + 1) \
                       ORDER BY inbox_seq LIMIT ?2)";
            tx.execute(sql, &[until.into(), FORGET_MAX.into()])
        };
        self.db.write(Durability::Relaxed, job, |_: &Result<usize, Error>| ()).await
    }

    async fn delete(
        &self,
        mut messages: &[PrunableMessage],
        durability: Durability,
    ) -> Result<usize, Error> {
        let mut deleted = 0;
        while !messages.is_empty() {
            let fits = batch::fitting(messages.iter().map(|message| message.body_bytes));
            let (now, later) = messages.split_at(fits);
            let seqs: Vec<i64> = now.iter().map(|message| message.seq).collect();
            let job = move |tx: &Tx<'_>| {
                let sql = "DELETE FROM inbox WHERE seq = ?";
                seqs.iter().try_fold(0, |sum, seq| Ok(sum + tx.execute(sql, &[(*seq).into()])?))
            };
            deleted += self.db.write(durability, job, |_: &Result<usize, Error>| ()).await?;
            messages = later;
        }
        Ok(deleted)
    }
}

fn candidates(
    tx: &Tx<'_>,
    clear: &ClearFilter,
    after: i64,
    until: i64,
) -> Result<Vec<PrunableMessage>, Error> {
    let sql = "SELECT seq, coalesce(length(body), 0), \
               (?1 IS NULL OR mesh = ?1) AND (?2 IS NULL OR received_at < ?2) \
               FROM inbox WHERE seq > ?3 AND seq <= ?4 ORDER BY seq LIMIT ?5";
    let params = [
        clear.mesh.as_deref().into(),
        clear.before.map(|before| before.0).into(),
        after.into(),
        until.into(),
        (batch::SCANNED_MAX as i64).into(),
    ];
    tx.query(sql, &params, |row| {
        Ok(PrunableMessage {
            seq: row.int(0)?,
            body_bytes: row.int(1)?,
            is_meant: row.int(2)? != 0,
        })
    })
}

/// The oldest messages, if they are too old or the database is too large.
fn beyond(tx: &Tx<'_>, bounds: InboxLimits) -> Result<Vec<PrunableMessage>, Error> {
    let too_old = trusted_time::older_than(tx, bounds.retention_ms)?;
    let excess = match used_bytes(tx)?.saturating_sub(bounds.bytes_max) {
        excess @ 1.. => excess - uncharged_bytes(tx, bounds.bytes_max)?,
        none => none,
    };
    let until = if excess > 0 { i64::MAX } else { too_old };
    let sql =
        "SELECT seq, coalesce(length(body), 0) FROM inbox WHERE seq <= ? ORDER BY seq LIMIT ?";
    let mut oldest = tx.query(sql, &[until.into(), (batch::ROWS_MAX as i64).into()], |row| {
        Ok(PrunableMessage { seq: row.int(0)?, body_bytes: row.int(1)?, is_meant: true })
    })?;
    // What is not too old goes only as far as it must.
    let mut freed = 0;
    let stays = oldest.iter().position(|message| {
        let is_enough = message.seq > too_old && freed >= excess;
        freed += message.body_bytes;
        is_enough
    });
    oldest.truncate(stays.unwrap_or(oldest.len()));
    Ok(oldest)
}

/// What the database holds: the file does not become smaller, and what was freed in it is used
/// again before it grows.
fn used_bytes(tx: &Tx<'_>) -> Result<i64, Error> {
    let one = |sql| Ok::<_, Error>(tx.query_row(sql, &[], |row| row.int(0))?.unwrap_or(0));
    let (pages, free) = (one("PRAGMA page_count")?, one("PRAGMA freelist_count")?);
    Ok((pages - free) * one("PRAGMA page_size")?)
}

/// About what entries of `seen` take beyond half of the bound, whose messages left. No message makes
/// room for that: with a small bound and many messages, none would ever stay.
fn uncharged_bytes(tx: &Tx<'_>, bytes_max: i64) -> Result<i64, Error> {
    let charged_max = bytes_max / 2;
    // Counting the messages takes long where there are many, and then the bound is large too.
    let (known, entry_bytes) = seen_entries(tx)?;
    if known.saturating_mul(entry_bytes) <= charged_max {
        return Ok(0);
    }
    Ok((departed_bytes(tx)? - charged_max).max(0))
}

/// About what entries of `seen` take whose messages left.
fn departed_bytes(tx: &Tx<'_>) -> Result<i64, Error> {
    let (known, entry_bytes) = seen_entries(tx)?;
    let here = tx.query_row("SELECT count(*) FROM inbox", &[], |row| row.int(0))?.unwrap_or(0);
    Ok((known - here).max(0).saturating_mul(entry_bytes))
}

/// How many messages `seen` knows, and about what an entry takes, in bytes: a few of them are
/// weighed, in the table and its two indices, and pages are not full. Rather too much than too
/// little, which would cost messages.
fn seen_entries(tx: &Tx<'_>) -> Result<(i64, i64), Error> {
    let one = |sql| Ok::<_, Error>(tx.query_row(sql, &[], |row| row.int_or_null(0))?.flatten());
    let Some(oldest) = one("SELECT min(inbox_seq) FROM seen WHERE inbox_seq > 0")? else {
        return Ok((0, 0));
    };
    let sql = "SELECT cast(1.4 * avg( \
               2 * (octet_length(mesh) + octet_length(broker_message_id)) + octet_length(sender) \
               + coalesce(octet_length(client_message_id), 0) + 36 \
               + iif(client_message_id IS NULL, 0, octet_length(mesh) + octet_length(sender) \
               + octet_length(client_message_id) + octet_length(broker_message_id) + 8)) AS INTEGER) \
               FROM (SELECT * FROM seen WHERE inbox_seq > 0 ORDER BY inbox_seq LIMIT 100)";
    Ok((newest_seq(tx)? + 1 - oldest, one(sql)?.unwrap_or(0)))
}

#[cfg(test)]
mod tests;
