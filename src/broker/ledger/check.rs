//! The proof that the tables agree (§17.1).

use super::Ledger;
use claudemesh_base::db::{Error, Tx};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What the orphan check found (§17.1): sizes, and what does not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Check {
    /// Messages that are kept.
    pub messages: i64,
    /// Ids that are remembered.
    pub dedupe: i64,
    /// Messages that wait for somebody, once per recipient.
    pub deliveries: i64,
    /// Dedupe rows that claim a history which is not there.
    pub dedupe_without_message: i64,
    /// Messages with an id whose dedupe row is missing.
    pub message_without_dedupe: i64,
    /// Deliveries of a message that is not there.
    pub delivery_without_message: i64,
    /// Deliveries to a member that is not there, or whose membership has ended.
    pub delivery_without_recipient: i64,
    /// Members whose count of waiting messages, or of their bytes, is wrong.
    pub mailbox_miscounted: i64,
}

impl Check {
    /// Each number under its name in JSON; of what must be 0 with the words for when it is not.
    fn rows(&self) -> [(&'static str, i64, Option<&'static str>); 8] {
        [
            ("messages", self.messages, None),
            ("dedupe", self.dedupe, None),
            ("deliveries", self.deliveries, None),
            (
                "dedupe_without_message",
                self.dedupe_without_message,
                Some("ids claim a message that is not there"),
            ),
            (
                "message_without_dedupe",
                self.message_without_dedupe,
                Some("messages have an id that is not remembered"),
            ),
            (
                "delivery_without_message",
                self.delivery_without_message,
                Some("deliveries are of a message that is not there"),
            ),
            (
                "delivery_without_recipient",
                self.delivery_without_recipient,
                Some("deliveries are to a member that is not there"),
            ),
            (
                "mailbox_miscounted",
                self.mailbox_miscounted,
                Some("members have a wrong count or size of waiting messages"),
            ),
        ]
    }

    /// Whether the tables agree.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.complaints().is_empty()
    }

    /// What does not agree, one sentence each.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let sentence = |(_, count, words): (_, i64, Option<&str>)| {
            words.filter(|_| count != 0).map(|words| format!("{count} {words}"))
        };
        self.rows().into_iter().filter_map(sentence).collect()
    }

    /// Every number under its name, as JSON.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        self.rows().into_iter().map(|(name, count, _)| (name.to_owned(), count.into())).collect()
    }
}

impl Ledger {
    /// Proves that dedupe rows, messages, deliveries and counts agree.
    pub(crate) async fn check(&self) -> Result<Check, Error> {
        self.db.read(check).await
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
