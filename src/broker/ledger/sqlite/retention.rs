//! What is forgotten, and when (§17.1). Small transactions, each found by an index, so that no send
//! waits long behind one.

use super::trusted_time::trusted;
use super::*;
use claudemesh_base::db::Param;
use claudemesh_fsm::id::Millis;

/// Rows that go in one transaction.
const AT_ONCE: i64 = 200;
/// Deliveries after which a transaction takes no further message: a message may wait for thousands.
const DELIVERIES_AT_ONCE: usize = 2000;
/// How long a message stays that everybody has, in milliseconds: a sender that lost the answer asks
/// again within seconds, and learns then that the history is there.
const DELIVERED_KEPT_MS: u64 = 60 * 60 * 1000;

impl RetentionLedger for SqliteLedger {
    fn expire(&self, now: Millis, keep: Retention) -> Answer<Expired> {
        let ledger = self.clone();
        Box::pin(async move {
            let now = ledger.trusted(now).await?;
            let before = earlier(now, keep.message_ms);
            let mut total = Expired::default();
            loop {
                let part = ledger.synced(move |tx| prune(tx, before)).await?;
                total.messages += part.messages;
                total.undelivered += part.undelivered;
                if part.messages == 0 {
                    break;
                }
            }
            total.dedupe = ledger.repeat(FORGET_IDS, now).await?;
            total.session_keys = ledger.repeat(FORGET_SESSION_KEYS, before).await?;
            Ok(total)
        })
    }

    fn sweep(&self, now: Millis) -> Answer<usize> {
        let ledger = self.clone();
        Box::pin(async move {
            let before = earlier(ledger.trusted(now).await?, DELIVERED_KEPT_MS);
            let (mut after, mut swept) = ((i64::MIN, 0), 0);
            loop {
                let found = ledger.read::<_, LedgerError>(move |tx| delivered(tx, after, before));
                let found = found.await?;
                let Some(last) = found.last().copied() else { return Ok(swept) };
                after = last;
                swept += found.len();
                ledger
                    .synced(move |tx| {
                        found.iter().try_for_each(|(_, seq)| discard(tx, *seq, 0).map(drop))
                    })
                    .await?;
            }
        })
    }
}

impl SqliteLedger {
    fn trusted(&self, now: Millis) -> Answer<Millis> {
        self.synced(move |tx| trusted(tx, now))
    }

    /// Runs a statement about what is older than `before` until it finds nothing more.
    async fn repeat(&self, sql: &'static str, before: Millis) -> Result<usize, LedgerError> {
        let mut total = 0;
        loop {
            let params = [Param::from(before.0), AT_ONCE.into()];
            match self.synced(move |tx| tx.execute(sql, &params)).await? {
                0 => return Ok(total),
                some => total += some,
            }
        }
    }
}

fn earlier(now: Millis, by_ms: u64) -> Millis {
    Millis(now.0.saturating_sub(i64::try_from(by_ms).unwrap_or(i64::MAX)))
}

const FORGET_IDS: &str = "DELETE FROM client_message_dedupe \
    WHERE (mesh_id, sender_member_pubkey, client_message_id) IN \
    (SELECT mesh_id, sender_member_pubkey, client_message_id FROM client_message_dedupe \
     WHERE history_available = 0 AND expires_at < ? LIMIT ?)";

const FORGET_SESSION_KEYS: &str = "DELETE FROM session_key WHERE (mesh_id, pubkey) IN \
    (SELECT mesh_id, pubkey FROM session_key WHERE last_seen_at < ? LIMIT ?)";

/// The oldest by the time in the row, and not by number: one that a clock ahead of its time wrote
/// must not hold up those after it.
const PAST_THEIR_TIME: &str =
    "SELECT seq FROM message WHERE created_at < ? ORDER BY created_at LIMIT ?";

/// Removes the oldest messages from before `before`. Their ids stay known.
fn prune(tx: &Tx<'_>, before: Millis) -> Result<Expired, Error> {
    let oldest = tx.query(PAST_THEIR_TIME, &[before.0.into(), AT_ONCE.into()], |row| row.int(0))?;
    let mut expired = Expired::default();
    for seq in oldest {
        if expired.undelivered >= DELIVERIES_AT_ONCE {
            break;
        }
        let undelivered = tx.execute(UNDELIVER, &[seq.into()])?;
        // Counted by what went and not by what the index found: the count ends the caller's loop.
        expired.messages += usize::from(discard(tx, seq, undelivered)?);
        expired.undelivered += undelivered;
    }
    Ok(expired)
}

const UNDELIVER: &str = "DELETE FROM delivery WHERE message_seq = ?";

/// Messages up to `before` that are in nobody's queue and no topic's past, after a place in the
/// order of time.
fn delivered(tx: &Tx<'_>, after: (i64, i64), before: Millis) -> Result<Vec<(i64, i64)>, Error> {
    let params = [after.0.into(), after.1.into(), before.0.into(), AT_ONCE.into()];
    tx.query(DELIVERED, &params, |row| Ok((row.int(0)?, row.int(1)?)))
}

const DELIVERED: &str = "SELECT created_at, seq FROM message m \
    WHERE (created_at, seq) > (?1, ?2) AND created_at <= ?3 AND topic_id IS NULL \
    AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.message_seq = m.seq) \
    ORDER BY created_at, seq LIMIT ?4";

/// Removes a message that is in nobody's queue; its id stays known, and that `undelivered` of its
/// recipients never got it. Says whether it was there.
fn discard(tx: &Tx<'_>, seq: i64, undelivered: usize) -> Result<bool, Error> {
    let sql = "DELETE FROM message WHERE seq = ? \
               RETURNING mesh_id, sender_member_pubkey, client_message_id";
    let gone = tx.query_row(sql, &[seq.into()], |row| {
        Ok((row.text(0)?, row.text(1)?, row.text_or_null(2)?))
    })?;
    let Some((mesh, sender, id)) = gone else { return Ok(false) };
    let Some(id) = id else { return Ok(true) };
    let sql = "UPDATE client_message_dedupe SET history_available = 0, expired = expired + ? \
               WHERE mesh_id = ? AND sender_member_pubkey = ? AND client_message_id = ?";
    let count = i64::try_from(undelivered).unwrap_or(i64::MAX);
    tx.execute(sql, &[count.into(), (&mesh).into(), (&sender).into(), (&id).into()])?;
    Ok(true)
}

#[cfg(test)]
mod tests;
