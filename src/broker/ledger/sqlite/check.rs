//! Whether the database works, and the proof that its tables agree (§17.1).

use super::*;

impl HealthLedger for SqliteLedger {
    fn check(&self) -> Answer<Check> {
        self.read(check)
    }

    fn reusable_bytes(&self) -> BoxFuture<u64> {
        let read = self.read::<_, LedgerError>(|tx| Ok(reusable_bytes(tx)));
        Box::pin(async { read.await.unwrap_or(0) })
    }

    fn is_writable(&self) -> BoxFuture<bool> {
        let written = self.relaxed(|_| Ok(()));
        Box::pin(async { written.await.is_ok() })
    }

    fn is_up(&self) -> BoxFuture<bool> {
        let read =
            self.read::<_, LedgerError>(|tx| tx.query_row("SELECT 1", &[], |row| row.int(0)));
        Box::pin(async { read.await.is_ok() })
    }

    fn panicked(&self) -> BoxFuture<()> {
        let db = self.db.clone();
        Box::pin(async move { db.lost().await })
    }

    fn close(&self) {
        self.db.close();
    }
}

fn check(tx: &Tx<'_>) -> Result<Check, Error> {
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
             AND NOT EXISTS (SELECT 1 FROM client_message_dedupe d WHERE d.mesh_id = m.mesh_id \
             AND d.sender_member_pubkey = m.sender_member_pubkey \
             AND d.client_message_id = m.client_message_id AND d.broker_message_id = m.id)",
        )?,
        delivery_without_message: count(
            tx,
            "SELECT count(*) FROM delivery d WHERE NOT EXISTS \
             (SELECT 1 FROM message m WHERE m.seq = d.message_seq)",
        )?,
        delivery_without_recipient: count(
            tx,
            "SELECT count(*) FROM delivery d WHERE NOT EXISTS \
             (SELECT 1 FROM member m WHERE m.seq = d.recipient AND m.revoked_at IS NULL)",
        )?,
        mailbox_miscounted: count(
            tx,
            "SELECT count(*) FROM mailbox b WHERE (b.queued, b.bytes) <> \
             (SELECT count(*), coalesce(sum(d.bytes), 0) FROM delivery d \
             WHERE d.recipient = b.member)",
        )?,
    })
}

fn count(tx: &Tx<'_>, sql: &'static str) -> Result<i64, Error> {
    Ok(tx.query_row(sql, &[], |row| row.int(0))?.unwrap_or_default())
}
