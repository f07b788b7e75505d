//! Filling the queues of a message's recipients (§17.1): one statement, however many they are.

use super::accept::{IncomingMessage, NotAccepted, Refusal, Sender};
use claudemesh_base::db::{Error, Param, Tx};

/// The most messages one member's queue holds (§17.1).
pub(crate) const QUEUED_MAX: i64 = 100_000;
/// The most bytes one member's queue holds (§17.1).
pub(crate) const QUEUED_BYTES_MAX: i64 = 256 * 1024 * 1024;

/// Where a message goes, once phase B2 has found it.
pub(super) enum Route {
    /// One member; the text is the only key of it that may have the message.
    Member(i64, Option<String>),
    Group(String),
    Topic {
        id: String,
        name: String,
    },
    Everyone,
}

pub(super) fn deliver_to_one(
    tx: &Tx<'_>,
    member: i64,
    only_key: Option<&str>,
    seq: i64,
    bytes: i64,
) -> Result<(), NotAccepted> {
    let sql = "INSERT INTO delivery (recipient, message_seq, only_key, bytes) \
               SELECT member, ?2, ?3, ?4 FROM mailbox \
               WHERE member = ?1 AND queued < ?5 AND bytes + ?4 <= ?6 RETURNING recipient";
    let params = [
        member.into(),
        seq.into(),
        only_key.into(),
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
/// `*` and `@group`, as on today's network; a topic they joined reaches them.
pub(super) fn deliver_to_many(
    tx: &Tx<'_>,
    sender: &Sender,
    route: &Route,
    seq: i64,
    bytes: i64,
) -> Result<Vec<(i64, Option<String>)>, Error> {
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
    let (sql, key, group) = match route {
        Route::Topic { id, .. } => {
            let sql = fan_out!(
                "SELECT t.member FROM topic_member t JOIN active_member m ON m.seq = t.member \
                 WHERE t.topic_id = ?1"
            );
            (sql, id, "")
        }
        // `@eng` reaches members of `eng/core`: everything between `eng/` and `eng0`.
        Route::Group(name) => (
            fan_out!(
                "SELECT g.member FROM group_member g JOIN active_member m ON m.seq = g.member \
                 WHERE m.visible AND g.mesh_id = ?1 AND \
                 (g.name = ?7 OR (g.name > ?7 || '/' AND g.name < ?7 || '0'))"
            ),
            &sender.mesh_id,
            name.as_str(),
        ),
        Route::Everyone | Route::Member(..) => (
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
    let reached = tx.query(sql, &params[..used], |row| Ok((row.int(0)?, None)))?;
    Ok(reached)
}

/// What a message counts for in a queue, in bytes.
pub(super) fn weight(message: &IncomingMessage) -> i64 {
    let texts = [Some(&message.nonce), message.ext_nonce.as_ref(), message.ext_ciphertext.as_ref()];
    let rest: usize = texts.into_iter().flatten().map(String::len).sum();
    i64::try_from(message.ciphertext.len() + rest).unwrap_or(i64::MAX)
}
