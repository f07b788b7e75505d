//! What is forgotten, and when (§17.1).

use super::Ledger;
use crate::db::{Error, Tx};
use claudemesh_fsm::id::Millis;

/// Messages pruned in one transaction, so that no send waits long behind it.
const PRUNED_AT_ONCE: i64 = 500;

/// How long things are kept, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Messages, delivered or not, and session keys nobody uses.
    pub(crate) message_ms: u64,
}

/// What a night's expiry removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) messages: usize,
    pub(crate) undelivered: usize,
    pub(crate) dedupe: usize,
}

impl Ledger {
    /// Forgets what is past its time, in small transactions.
    pub(crate) async fn expire(&self, now: Millis, keep: Retention) -> Result<Expired, Error> {
        let before =
            Millis(now.0.saturating_sub(i64::try_from(keep.message_ms).unwrap_or(i64::MAX)));
        let mut total = Expired::default();
        loop {
            let part = self.synced(move |tx| prune(tx, before)).await?;
            total.messages += part.messages;
            total.undelivered += part.undelivered;
            if part.messages == 0 {
                break;
            }
        }
        total.dedupe = self.synced(move |tx| forget(tx, now, before)).await?;
        Ok(total)
    }
}

/// Removes the oldest messages from before `before`. Their ids stay known.
fn prune(tx: &Tx<'_>, before: Millis) -> Result<Expired, Error> {
    // Messages are numbered in the order of their time, so the first ones are the oldest.
    let sql = "SELECT seq, mesh_id, sender_member_pubkey, client_message_id, created_at \
               FROM message ORDER BY seq LIMIT ?";
    let oldest = tx.query(sql, &[PRUNED_AT_ONCE.into()], |row| {
        Ok((row.int(0)?, row.text(1)?, row.text(2)?, row.text_or_null(3)?, row.int(4)?))
    })?;
    let mut expired = Expired::default();
    for (seq, mesh, sender, client_id, created_at) in oldest {
        if created_at >= before.0 {
            break;
        }
        let undelivered = undeliver(tx, &mesh, seq)?;
        if let Some(id) = &client_id {
            let sql = "UPDATE client_message_dedupe SET history_available = 0, \
                       expired = expired + ? WHERE mesh_id = ? \
                       AND sender_member_pubkey = ? AND client_message_id = ?";
            let count = i64::try_from(undelivered).unwrap_or(i64::MAX);
            tx.execute(sql, &[count.into(), (&mesh).into(), (&sender).into(), id.into()])?;
        }
        expired.undelivered += undelivered;
        tx.execute("DELETE FROM message WHERE seq = ?", &[seq.into()])?;
        expired.messages += 1;
    }
    Ok(expired)
}

/// Takes a message out of every queue of its mesh: the key of `delivery` begins with the member.
fn undeliver(tx: &Tx<'_>, mesh: &str, seq: i64) -> Result<usize, Error> {
    let sql = "DELETE FROM delivery WHERE message_seq = ?1 \
               AND recipient IN (SELECT seq FROM member WHERE mesh_id = ?2) RETURNING recipient";
    Ok(tx.query(sql, &[seq.into(), mesh.into()], |row| row.int(0))?.len())
}

fn forget(tx: &Tx<'_>, now: Millis, before: Millis) -> Result<usize, Error> {
    let sql = "DELETE FROM session_key WHERE last_seen_at < ?";
    tx.execute(sql, &[before.0.into()])?;
    let sql = "DELETE FROM client_message_dedupe WHERE expires_at < ? AND NOT history_available \
               RETURNING 1";
    Ok(tx.query(sql, &[now.0.into()], |row| row.int(0))?.len())
}
