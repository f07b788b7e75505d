//! The queue of each member: what waits, and what is acknowledged.

use super::Ledger;
use super::receipts::{Told, count_stored};
use claudemesh_base::db::{Columns, Error, Tx};
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::PushFrame;
use claudemesh_fsm::id::{Fingerprint, Millis};

/// Which part of a member's queue one connection may read.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    pub(crate) member: i64,
    /// The connection's routing key: mail for that key alone.
    pub(crate) routing_key: String,
    /// Whether mail for the member as a whole goes to this connection.
    pub(crate) takes_member_mail: bool,
}

/// One waiting message.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) seq: i64,
    pub(crate) push: PushFrame,
}

impl Ledger {
    /// The next messages after `after_seq`, oldest first, at most `limit`.
    pub(crate) async fn waiting(
        &self,
        mailbox: Mailbox,
        after_seq: i64,
        limit: usize,
    ) -> Result<Vec<Mail>, Error> {
        self.db
            .read(move |tx| {
                let sql = "SELECT d.message_seq, m.id, m.mesh_id, m.sender_pubkey, \
                           m.sender_member_pubkey, m.sender_name, m.priority, m.nonce, \
                           m.ciphertext, m.ext_nonce, m.ext_ciphertext, m.created_at, \
                           m.target_spec, t.name, m.reply_to_id, m.client_message_id, \
                           m.request_fingerprint \
                           FROM delivery d JOIN message m ON m.seq = d.message_seq \
                           LEFT JOIN topic t ON t.id = m.topic_id \
                           WHERE d.recipient = ?1 AND d.message_seq > ?2 \
                           AND (d.only_key = ?3 OR (?4 AND d.only_key IS NULL)) \
                           ORDER BY d.message_seq LIMIT ?5";
                let params = [
                    mailbox.member.into(),
                    after_seq.into(),
                    (&mailbox.routing_key).into(),
                    mailbox.takes_member_mail.into(),
                    i64::try_from(limit).unwrap_or(i64::MAX).into(),
                ];
                tx.query(sql, &params, read_mail)
            })
            .await
    }

    /// Removes deliveries that were acknowledged, and says what their senders may be told. A lost
    /// one only means the message comes again, and its receiver knows it.
    pub(crate) async fn acknowledge(
        &self,
        member: i64,
        seqs: Vec<i64>,
    ) -> Result<Vec<Told>, Error> {
        self.relaxed(move |tx| {
            let mut told = Vec::new();
            for seq in seqs {
                told.extend(remove(tx, member, seq)?);
            }
            Ok(told)
        })
        .await
    }

    /// Removes a delivery by the broker's id: an acknowledgement that comes after its lease.
    pub(crate) async fn acknowledge_by_id(
        &self,
        member: i64,
        id: &str,
    ) -> Result<Option<Told>, Error> {
        let id = id.to_owned();
        self.relaxed(move |tx| {
            let sql = "SELECT seq FROM message WHERE id = ?";
            match tx.query_row(sql, &[(&id).into()], |row| row.int(0))? {
                Some(seq) => remove(tx, member, seq),
                None => Ok(None),
            }
        })
        .await
    }

    /// How many messages wait for a member.
    #[cfg(test)]
    pub(crate) async fn queued(&self, member: i64) -> Result<i64, Error> {
        self.db.read(move |tx| queued(tx, member)).await
    }
}

/// A recipient has stored a message: it leaves the queue and is counted, both or neither.
fn remove(tx: &Tx<'_>, member: i64, seq: i64) -> Result<Option<Told>, Error> {
    let sql = "DELETE FROM delivery WHERE recipient = ? AND message_seq = ?";
    match tx.execute(sql, &[member.into(), seq.into()])? {
        // Acknowledged before.
        0 => Ok(None),
        _ => count_stored(tx, seq),
    }
}

#[cfg(test)]
fn queued(tx: &Tx<'_>, member: i64) -> Result<i64, Error> {
    let sql = "SELECT queued FROM mailbox WHERE member = ?";
    Ok(tx.query_row(sql, &[member.into()], |row| row.int(0))?.unwrap_or_default())
}

fn read_mail(row: &Columns<'_, '_>) -> Result<Mail, Error> {
    let push = PushFrame {
        message_id: row.text(1)?,
        mesh_id: row.text(2)?,
        sender_pubkey: row.text(3)?,
        sender_member_pubkey: row.text_or_null(4)?,
        sender_name: row.text_or_null(5)?,
        priority: row.text(6)?,
        nonce: row.text(7)?,
        ciphertext: row.text(8)?,
        ext_nonce: row.text_or_null(9)?,
        ext_ciphertext: row.text_or_null(10)?,
        created_at: iso(Millis(row.int(11)?)),
        target_spec: row.text_or_null(12)?,
        topic: row.text_or_null(13)?,
        reply_to_id: row.text_or_null(14)?,
        // A message of an old client goes by its own id.
        client_message_id: Some(row.text_or_null(15)?.map_or_else(|| row.text(1), Ok)?),
        request_fingerprint: row
            .blob_or_null(16)?
            .and_then(|bytes| Fingerprint::from_slice(&bytes))
            .map(|fingerprint| fingerprint.to_hex()),
        ..PushFrame::default()
    };
    Ok(Mail { seq: row.int(0)?, push })
}
