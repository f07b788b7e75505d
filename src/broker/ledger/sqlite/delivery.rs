//! The queue of each member: what waits, and what is acknowledged.

use super::receipts::count_stored;
use super::*;
use claudemesh_base::db::Columns;
use claudemesh_base::runtime::iso;
use claudemesh_base::wire::PushFrame;
use claudemesh_fsm::id::{Fingerprint, Millis};

impl DeliveryLedger for SqliteLedger {
    fn due_deliveries(
        &self,
        filter: QueueFilter,
        after_seq: i64,
        limit: usize,
    ) -> Answer<Vec<QueuedMessage>> {
        self.read(move |tx| {
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
                filter.member.into(),
                after_seq.into(),
                (&filter.routing_key).into(),
                filter.takes_member_messages.into(),
                i64::try_from(limit).unwrap_or(i64::MAX).into(),
            ];
            tx.query(sql, &params, read_queued)
        })
    }

    fn acknowledge(&self, member: i64, seqs: Vec<i64>) -> Answer<Vec<ReceiptNotice>> {
        self.relaxed(move |tx| {
            let mut told = Vec::new();
            for seq in seqs {
                told.extend(remove(tx, member, seq)?);
            }
            Ok(told)
        })
    }

    fn acknowledge_by_id(&self, member: i64, id: &str) -> Answer<Option<ReceiptNotice>> {
        let id = id.to_owned();
        self.relaxed(move |tx| {
            let sql = "SELECT seq FROM message WHERE id = ?";
            match tx.query_row(sql, &[(&id).into()], |row| row.int(0))? {
                Some(seq) => remove(tx, member, seq),
                None => Ok(None),
            }
        })
    }
}

/// A recipient has stored a message: it leaves the queue and is counted, both or neither.
fn remove(tx: &Tx<'_>, member: i64, seq: i64) -> Result<Option<ReceiptNotice>, Error> {
    let sql = "DELETE FROM delivery WHERE recipient = ? AND message_seq = ?";
    match tx.execute(sql, &[member.into(), seq.into()])? {
        // Acknowledged before.
        0 => Ok(None),
        _ => count_stored(tx, seq),
    }
}

#[cfg(test)]
impl SqliteLedger {
    /// How many messages wait for a member.
    pub(crate) fn queued(&self, member: i64) -> Answer<i64> {
        self.read(move |tx| {
            let sql = "SELECT queued FROM mailbox WHERE member = ?";
            Ok(tx.query_row(sql, &[member.into()], |row| row.int(0))?.unwrap_or_default())
        })
    }
}

fn read_queued(row: &Columns<'_, '_>) -> Result<QueuedMessage, Error> {
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
    Ok(QueuedMessage { seq: row.int(0)?, push })
}
