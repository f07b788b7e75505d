//! What became of each message, counted beside its id (§4.13).
//!
//! The counts move in the transaction that removes the deliveries they count, so that each recipient
//! is counted once, whatever is told twice or not at all.

use super::*;
use claudemesh_base::db::Columns;
use claudemesh_base::wire::{RECEIPT_IDS_MAX, Receipt};

impl ReceiptLedger for SqliteLedger {
    fn receipts(&self, mesh: &str, sender_pubkey: &str, ids: Vec<String>) -> Answer<Vec<Receipt>> {
        let (mesh, sender) = (mesh.to_owned(), sender_pubkey.to_owned());
        self.read(move |tx| {
            let sql = "SELECT client_message_id, recipients, stored, expired \
                           FROM client_message_dedupe WHERE mesh_id = ? \
                           AND sender_member_pubkey = ? AND client_message_id = ? \
                           AND recipients IS NOT NULL";
            let mut receipts = Vec::new();
            for id in ids.iter().take(RECEIPT_IDS_MAX) {
                let key = [(&mesh).into(), (&sender).into(), id.into()];
                receipts.extend(tx.query_row(sql, &key, read_receipt)?);
            }
            Ok(receipts)
        })
    }
}

/// One more recipient of a message has stored it. `None` for a message of a client that sent no id:
/// nobody could be told.
pub(super) fn count_stored(tx: &Tx<'_>, message_seq: i64) -> Result<Option<ReceiptNotice>, Error> {
    let sql = "SELECT sender_member, mesh_id, sender_member_pubkey, client_message_id \
               FROM message WHERE seq = ? AND client_message_id IS NOT NULL";
    let sent = tx.query_row(sql, &[message_seq.into()], |row| {
        Ok((row.int(0)?, row.text(1)?, row.text(2)?, row.text(3)?))
    })?;
    let Some((sender, mesh, pubkey, id)) = sent else { return Ok(None) };
    let sql = "UPDATE client_message_dedupe SET stored = stored + 1 WHERE mesh_id = ? \
               AND sender_member_pubkey = ? AND client_message_id = ? \
               RETURNING client_message_id, recipients, stored, expired";
    let counted = tx.query(sql, &[(&mesh).into(), (&pubkey).into(), (&id).into()], |row| {
        // A message from before recipients were counted is told nothing of.
        row.int_or_null(1)?.map(|_| read_receipt(row)).transpose()
    })?;
    Ok(counted.into_iter().flatten().next().map(|receipt| ReceiptNotice { sender, receipt }))
}

/// Nothing that waits for this member will ever be delivered: call it before its queue goes.
pub(super) fn count_queue_expired(tx: &Tx<'_>, member: i64) -> Result<(), Error> {
    let sql = "UPDATE client_message_dedupe SET expired = expired + 1 \
               WHERE (mesh_id, sender_member_pubkey, client_message_id) IN \
               (SELECT m.mesh_id, m.sender_member_pubkey, m.client_message_id \
                FROM delivery d JOIN message m ON m.seq = d.message_seq \
                WHERE d.recipient = ? AND m.client_message_id IS NOT NULL)";
    tx.execute(sql, &[member.into()]).map(drop)
}

fn read_receipt(row: &Columns<'_, '_>) -> Result<Receipt, Error> {
    let count = |at| Ok::<_, Error>(u32::try_from(row.int(at)?).unwrap_or(u32::MAX));
    Ok(Receipt {
        client_message_id: row.text(0)?,
        recipients: count(1)?,
        stored: count(2)?,
        expired: count(3)?,
    })
}
