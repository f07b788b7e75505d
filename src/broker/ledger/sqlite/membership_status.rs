//! How a member stands in its mesh: banned, revoked, and whose direct messages it does not want.
//!
//! A ban is a mark and can be taken off: queue, groups and topics stay, nothing is delivered and
//! nothing new is queued. A revocation is final: the queue goes, because nobody may ever read it.

use super::audit::record;
use super::receipts::count_queue_expired;
use super::*;
use claudemesh_base::db::Param;
use claudemesh_fsm::id::Millis;

impl StatusLedger for SqliteLedger {
    fn revoke_member(&self, member: &Member, now: Millis) -> Answer<bool> {
        let entry = AuditEntry::by_operator(&member.mesh_id, "member_revoked", &member.id, now);
        let seq = member.seq;
        self.synced(move |tx| {
            let sql = "UPDATE member SET revoked_at = ? WHERE seq = ? AND revoked_at IS NULL";
            if tx.execute(sql, &[now.0.into(), seq.into()])? == 0 {
                return Ok(false);
            }
            count_queue_expired(tx, seq)?;
            let seq = [seq.into()];
            tx.execute("DELETE FROM delivery WHERE recipient = ?", &seq)?;
            tx.execute("DELETE FROM group_member WHERE member = ?", &seq)?;
            tx.execute("DELETE FROM topic_member WHERE member = ?", &seq)?;
            tx.execute("DELETE FROM session_key WHERE member = ?", &seq)?;
            tx.execute("DELETE FROM block WHERE member = ?1 OR sender = ?1", &seq)?;
            record(tx, &entry)?;
            Ok(true)
        })
    }

    fn ban_member(&self, member: &Member, now: Millis) -> Answer<bool> {
        let sql = "UPDATE member SET banned_at = ?2 \
                   WHERE seq = ?1 AND banned_at IS NULL AND revoked_at IS NULL";
        self.set_timestamp(member, "member_banned", now, sql, Param::Int(now.0))
    }

    fn unban_member(&self, member: &Member, now: Millis) -> Answer<bool> {
        let sql = "UPDATE member SET banned_at = ?2 WHERE seq = ?1 AND banned_at IS NOT NULL";
        self.set_timestamp(member, "member_unbanned", now, sql, Param::Null)
    }

    fn set_block(
        &self,
        member: &Member,
        sender: &Member,
        is_blocked: bool,
        now: Millis,
    ) -> Answer<bool> {
        let act = if is_blocked { "sender_blocked" } else { "sender_unblocked" };
        let entry = AuditEntry::by_operator(&member.mesh_id, act, &member.id, now).with(&sender.id);
        let (member, sender) = (member.seq, sender.seq);
        self.synced(move |tx| {
            let pair = [Param::from(member), sender.into(), now.0.into()];
            let changed = if is_blocked {
                let sql = "INSERT INTO block (member, sender, blocked_at) VALUES (?, ?, ?) \
                           ON CONFLICT DO NOTHING";
                tx.execute(sql, &pair)?
            } else {
                tx.execute("DELETE FROM block WHERE member = ? AND sender = ?", &pair[..2])?
            };
            if changed > 0 {
                record(tx, &entry)?;
            }
            Ok(changed > 0)
        })
    }

    fn is_blocked(&self, member: i64, sender: i64) -> Answer<bool> {
        self.read(move |tx| blocked(tx, member, sender))
    }
}

impl SqliteLedger {
    fn set_timestamp(
        &self,
        member: &Member,
        act: &'static str,
        now: Millis,
        sql: &'static str,
        value: Param<'static>,
    ) -> Answer<bool> {
        let entry = AuditEntry::by_operator(&member.mesh_id, act, &member.id, now);
        let seq = member.seq;
        self.synced(move |tx| {
            let changed = tx.execute(sql, &[seq.into(), value])? > 0;
            if changed {
                record(tx, &entry)?;
            }
            Ok(changed)
        })
    }
}

fn blocked(tx: &Tx<'_>, member: i64, sender: i64) -> Result<bool, Error> {
    let sql = "SELECT 1 FROM block WHERE member = ? AND sender = ?";
    Ok(tx.query_row(sql, &[member.into(), sender.into()], |row| row.int(0))?.is_some())
}
