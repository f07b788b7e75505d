//! Filling the queues of a message's recipients (§17.1): one statement, however many they are.

use super::*;
use claudemesh_base::db::Param;
use claudemesh_base::wire::SendFrame;

/// The most messages one member's queue holds (§17.1).
pub(crate) const QUEUED_MAX: i64 = 100_000;
/// The most bytes one member's queue holds (§17.1).
pub(crate) const QUEUED_BYTES_MAX: i64 = 256 * 1024 * 1024;

/// Where a message goes, once phase B2 has found it.
pub(super) enum ResolvedTarget {
    Member(Recipient),
    Group(String),
    Topic { id: String, name: String },
    Everyone,
}

pub(super) fn enqueue_for_member(
    tx: &Tx<'_>,
    recipient: &Recipient,
    seq: i64,
    bytes: i64,
) -> Result<(), AcceptError> {
    let sql = "INSERT INTO delivery (recipient, message_seq, only_key, bytes) \
               SELECT member, ?2, ?3, ?4 FROM mailbox \
               WHERE member = ?1 AND queued < ?5 AND bytes + ?4 <= ?6 RETURNING recipient";
    let params = [
        recipient.member.into(),
        seq.into(),
        recipient.only_key.as_ref().into(),
        bytes.into(),
        QUEUED_MAX.into(),
        QUEUED_BYTES_MAX.into(),
    ];
    match tx.query_row(sql, &params, |row| row.int(0))? {
        Some(_) => Ok(()),
        None => Err(Refusal::QueueFull.into()),
    }
}

/// One statement for all recipients of one kind. A member whose queue is full is left out: one
/// that is gone for good must not silence a topic for everybody else. Hidden members are left out of
/// `*` and `@group`, as on the legacy network; a topic they joined reaches them.
pub(super) fn enqueue_for_all(
    tx: &Tx<'_>,
    sender: &MessageSender,
    resolved: &ResolvedTarget,
    seq: i64,
    bytes: i64,
) -> Result<Vec<Recipient>, Error> {
    /// `$from` yields the candidates as column `member`, with `$1` the key it is found by.
    macro_rules! fan_out {
        ($from:literal) => {
            concat!(
                "INSERT INTO delivery (recipient, message_seq, only_key, bytes) \
                 SELECT b.member, ?3, NULL, ?4 FROM mailbox b WHERE b.member IN (",
                $from,
                ") AND b.member <> ?2 AND b.queued < ?5 AND b.bytes + ?4 <= ?6 \
                 RETURNING recipient"
            )
        };
    }
    let (sql, key, group) = match resolved {
        ResolvedTarget::Topic { id, .. } => {
            let sql = fan_out!(
                "SELECT t.member FROM topic_member t JOIN active_member m ON m.seq = t.member \
                 WHERE t.topic_id = ?1"
            );
            (sql, id, "")
        }
        // `@eng` reaches members of `eng/core`: everything between `eng/` and `eng0`.
        ResolvedTarget::Group(name) => (
            fan_out!(
                "SELECT g.member FROM group_member g JOIN active_member m ON m.seq = g.member \
                 WHERE m.visible AND g.mesh_id = ?1 AND \
                 (g.name = ?7 OR (g.name > ?7 || '/' AND g.name < ?7 || '0'))"
            ),
            &sender.mesh_id,
            name.as_str(),
        ),
        ResolvedTarget::Everyone | ResolvedTarget::Member(_) => (
            fan_out!("SELECT seq FROM active_member WHERE mesh_id = ?1 AND visible"),
            &sender.mesh_id,
            "",
        ),
    };
    let params = [
        Param::from(key),
        sender.member.into(),
        seq.into(),
        bytes.into(),
        QUEUED_MAX.into(),
        QUEUED_BYTES_MAX.into(),
        group.into(),
    ];
    let used = if group.is_empty() { 6 } else { 7 };
    tx.query(sql, &params[..used], |row| Ok(Recipient { member: row.int(0)?, only_key: None }))
}

/// What a message counts for in a queue, in bytes.
pub(super) fn weight(frame: &SendFrame) -> i64 {
    let texts = [Some(&frame.nonce), frame.ext_nonce.as_ref(), frame.ext_ciphertext.as_ref()];
    let rest: usize = texts.into_iter().flatten().map(String::len).sum();
    i64::try_from(frame.ciphertext.len() + rest).unwrap_or(i64::MAX)
}
