//! What is forgotten, when, and the proof that the tables agree (§17.1).

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

/// What the orphan check found: sizes, and what does not agree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) messages: i64,
    pub(crate) dedupe: i64,
    pub(crate) deliveries: i64,
    /// Dedupe rows that claim a history which is not there.
    pub(crate) dedupe_without_message: i64,
    /// Messages with an id whose dedupe row is missing.
    pub(crate) message_without_dedupe: i64,
    /// Deliveries of a message that is not there.
    pub(crate) delivery_without_message: i64,
    /// Deliveries to a member that is not there, or whose membership has ended.
    pub(crate) delivery_without_recipient: i64,
    /// Mailboxes whose count or bytes are not what their queue holds.
    pub(crate) mailbox_miscounted: i64,
}

impl Check {
    /// Whether the tables agree.
    pub(crate) fn is_whole(&self) -> bool {
        let Self { messages, dedupe, deliveries, .. } = *self;
        *self == Self { messages, dedupe, deliveries, ..Self::default() }
    }
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

    /// Proves that dedupe rows, messages, deliveries and counts agree.
    pub(crate) async fn check(&self) -> Result<Check, Error> {
        self.db
            .read(|tx| {
                Ok(Check {
                    messages: count(tx, "SELECT count(*) FROM message")?,
                    dedupe: count(tx, "SELECT count(*) FROM client_message_dedupe")?,
                    deliveries: count(tx, "SELECT count(*) FROM delivery")?,
                    dedupe_without_message: count(
                        tx,
                        "SELECT count(*) FROM client_message_dedupe d WHERE d.history_available \
                         AND NOT EXISTS (SELECT 1 FROM message m WHERE m.seq = d.history_id \
                         AND m.id = d.broker_message_id)",
                    )?,
                    message_without_dedupe: count(
                        tx,
                        "SELECT count(*) FROM message m WHERE m.client_message_id IS NOT NULL \
                         AND NOT EXISTS (SELECT 1 FROM client_message_dedupe d \
                         WHERE d.mesh_id = m.mesh_id \
                         AND d.sender_member_pubkey = m.sender_member_pubkey \
                         AND d.client_message_id = m.client_message_id \
                         AND d.broker_message_id = m.id)",
                    )?,
                    delivery_without_message: count(
                        tx,
                        "SELECT count(*) FROM delivery d WHERE NOT EXISTS \
                         (SELECT 1 FROM message m WHERE m.seq = d.message_seq)",
                    )?,
                    delivery_without_recipient: count(
                        tx,
                        "SELECT count(*) FROM delivery d WHERE NOT EXISTS \
                         (SELECT 1 FROM member m WHERE m.seq = d.recipient \
                         AND m.revoked_at IS NULL)",
                    )?,
                    mailbox_miscounted: count(
                        tx,
                        "SELECT count(*) FROM mailbox b WHERE (b.queued, b.bytes) <> \
                         (SELECT count(*), coalesce(sum(d.bytes), 0) FROM delivery d \
                         WHERE d.recipient = b.member)",
                    )?,
                })
            })
            .await
    }
}

fn count(tx: &Tx<'_>, sql: &'static str) -> Result<i64, Error> {
    Ok(tx.query_row(sql, &[], |row| row.int(0))?.unwrap_or_default())
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
