//! Their `inbox.db`.

use super::{LegacyTable, none_lost};
use claudemesh_base::db::{Error, Tx};

pub(super) const LEGACY_TABLE: LegacyTable = LegacyTable {
    name: "inbox",
    columns: &[
        "id",
        "client_message_id",
        "broker_message_id",
        "mesh",
        "topic",
        "sender_pubkey",
        "sender_name",
        "body",
        "meta",
        "received_at",
        "reply_to_id",
    ],
    later: &[
        ("seen_at", "ALTER TABLE theirs ADD COLUMN seen_at INTEGER"),
        ("recipient_pubkey", "ALTER TABLE theirs ADD COLUMN recipient_pubkey TEXT"),
        ("recipient_kind", "ALTER TABLE theirs ADD COLUMN recipient_kind TEXT"),
    ],
    set_aside: &[
        "ALTER TABLE inbox RENAME TO theirs",
        "DROP INDEX IF EXISTS inbox_received_at",
        "DROP INDEX IF EXISTS inbox_topic",
        "DROP INDEX IF EXISTS inbox_sender",
        "DROP INDEX IF EXISTS inbox_seen_at",
        "DROP INDEX IF EXISTS inbox_recipient",
    ],
};

/// Where a sender gave no id of its own, theirs wrote the broker's into its place. Their `meta` held
/// the broker's time and nothing else. Whether a message was sealed they did not record, so none is
/// said to have been.
const CARRY: &str = "
INSERT INTO inbox (id, client_message_id, broker_message_id, mesh, topic, sender_pubkey,
  sender_name, recipient_pubkey, recipient_kind, body, meta, priority, encryption, created_at,
  received_at, seen_at, reply_to_id, undecryptable)
SELECT id, nullif(client_message_id, broker_message_id), coalesce(broker_message_id, ''), mesh,
  topic, sender_pubkey, sender_name, recipient_pubkey, recipient_kind, CAST(body AS BLOB),
  CASE WHEN time IS NULL THEN meta ELSE nullif(json_remove(meta, '$.created_at'), '{}') END,
  'next', 'none', time, received_at, seen_at, reply_to_id, body IS NULL
FROM (
  SELECT *, rowid AS place, CASE WHEN json_valid(meta) THEN
    CASE json_type(meta, '$.created_at') WHEN 'text' THEN meta ->> '$.created_at' END
  END AS time FROM theirs
) ORDER BY place";

/// What was received before is a duplicate when it comes again (§4.10). Rows with an id of their
/// sender come first: the same message may have been stored a second time without one, and one key
/// of the broker's has room for one of the two.
const REMEMBER: [&str; 2] = [
    "INSERT INTO seen (mesh, broker_message_id, sender, client_message_id, first_seen_at)
     SELECT mesh, coalesce(broker_message_id, id), sender_pubkey, client_message_id, received_at
     FROM theirs WHERE client_message_id IS NOT broker_message_id ON CONFLICT DO NOTHING",
    "INSERT INTO seen (mesh, broker_message_id, sender, client_message_id, first_seen_at)
     SELECT mesh, broker_message_id, sender_pubkey, NULL, received_at
     FROM theirs WHERE client_message_id IS broker_message_id ON CONFLICT DO NOTHING",
];

pub(super) fn carry_over(tx: &Tx<'_>) -> Result<usize, Error> {
    let there_were = tx.query_row("SELECT count(*) FROM theirs", &[], |row| row.int(0))?;
    let carried = tx.execute(CARRY, &[])?;
    for statement in REMEMBER {
        tx.execute(statement, &[])?;
    }
    tx.execute("DROP TABLE theirs", &[])?;
    none_lost(carried, there_were.unwrap_or_default())
}
