//! Their `outbox.db`.

use super::{LegacyTable, none_lost};
use claudemesh_base::db::{Error, Tx};

pub(super) const LEGACY_TABLE: LegacyTable = LegacyTable {
    name: "outbox",
    columns: &[
        "id",
        "client_message_id",
        "request_fingerprint",
        "payload",
        "enqueued_at",
        "attempts",
        "next_attempt_at",
        "status",
        "last_error",
        "delivered_at",
        "broker_message_id",
        "aborted_at",
        "aborted_by",
        "superseded_by",
    ],
    later: &[
        ("mesh", "ALTER TABLE theirs ADD COLUMN mesh TEXT"),
        ("target_spec", "ALTER TABLE theirs ADD COLUMN target_spec TEXT"),
        ("nonce", "ALTER TABLE theirs ADD COLUMN nonce TEXT"),
        ("ciphertext", "ALTER TABLE theirs ADD COLUMN ciphertext TEXT"),
        ("priority", "ALTER TABLE theirs ADD COLUMN priority TEXT"),
        ("sender_session_pubkey", "ALTER TABLE theirs ADD COLUMN sender_session_pubkey TEXT"),
    ],
    set_aside: &[
        "ALTER TABLE outbox RENAME TO theirs",
        "DROP INDEX IF EXISTS outbox_pending",
        "DROP INDEX IF EXISTS outbox_aborted",
    ],
};

/// Their requeue copied a row without its mesh and destination; the row it replaced still has them,
/// and the fingerprint says that both are the same request. A row that is done went to everybody
/// all the same, so it is left alone.
const INHERIT: &str = "
UPDATE theirs AS successor SET (mesh, target_spec, priority) = (
  SELECT mesh, target_spec, priority FROM theirs AS before
  WHERE before.superseded_by = successor.id AND before.target_spec IS NOT NULL
  AND before.request_fingerprint = successor.request_fingerprint)
WHERE target_spec IS NULL AND status <> 'done' AND EXISTS (
  SELECT 1 FROM theirs AS before
  WHERE before.superseded_by = successor.id AND before.target_spec IS NOT NULL
  AND before.request_fingerprint = successor.request_fingerprint)";

/// `target_spec` is what their broker was asked to route to: a key, `@group`, `#topic` or `*`.
///
/// - `stays`: a row that an operator retired while it was under way came back to life in theirs,
///   beside its successor. It stays retired, or its message would be sent twice.
/// - What waits and has nowhere to go is dead. Nothing is ever sent to `*` for want of something
///   better, as theirs did.
/// - Every attempt of theirs may have reached the broker unless the row is done.
const CARRY: &str = "
WITH read AS (
  SELECT *, rowid AS place, coalesce(mesh, '') AS slug,
    CASE WHEN status <> 'done' AND aborted_at IS NOT NULL THEN 'aborted' ELSE status END AS stays,
    CASE
      WHEN target_spec = '*' OR target_spec GLOB '#?*' OR target_spec GLOB '@[^*#]*' THEN 'topic'
      ELSE 'dm'
    END AS kind,
    CASE
      WHEN target_spec = '*' OR target_spec GLOB '#?*' THEN target_spec
      WHEN target_spec GLOB '@[^*#]*' THEN substr(target_spec, 2)
      WHEN length(target_spec) = 64 AND target_spec NOT GLOB '*[^0-9a-fA-F]*'
        THEN lower(target_spec)
      ELSE ''
    END AS ref
  FROM theirs
), judged AS (
  SELECT *, stays IN ('pending', 'inflight') AND (slug = '' OR ref = '') AS has_nowhere_to_go
  FROM read
)
INSERT INTO outbox (id, client_message_id, request_fingerprint, payload, mesh, destination_kind,
  destination_ref, recipient, recipient_member, priority, enqueued_at, attempts, next_attempt_at,
  status, last_error, may_have_been_sent, delivered_at, broker_message_id, aborted_at, aborted_by,
  superseded_by)
SELECT id, client_message_id, CAST(request_fingerprint AS BLOB), CAST(payload AS BLOB), slug, kind,
  ref,
  CASE WHEN kind = 'dm' AND ref <> '' THEN ref END,
  CASE WHEN kind = 'dm' AND ref <> '' THEN ref END,
  CASE WHEN priority IN ('now', 'low') THEN priority ELSE 'next' END,
  enqueued_at, attempts, next_attempt_at,
  CASE WHEN has_nowhere_to_go THEN 'dead' ELSE stays END,
  CASE
    WHEN has_nowhere_to_go THEN
      CASE WHEN attempts > 0 THEN 'given up' ELSE 'not sent' END
      || ': the daemon that accepted this message did not record '
      || CASE WHEN ref = '' THEN 'where it goes' ELSE 'which mesh it is for' END
      || CASE WHEN attempts > 0 AND target_spec IS NULL
           THEN ', and tried to send it to everybody in the mesh' ELSE '' END
      || CASE WHEN last_error IS NULL THEN '' ELSE ' (its last error: ' || last_error || ')' END
      || '; send it again under a new id'
    WHEN stays = 'dead' THEN coalesce(last_error, 'unknown: none was recorded')
    ELSE last_error
  END,
  stays <> 'done' AND attempts > 0,
  CASE WHEN stays = 'done' THEN coalesce(delivered_at, enqueued_at) ELSE delivered_at END,
  CASE WHEN stays = 'done' THEN coalesce(broker_message_id, '') ELSE broker_message_id END,
  CASE WHEN stays = 'aborted' THEN coalesce(aborted_at, enqueued_at) ELSE aborted_at END,
  CASE WHEN stays = 'aborted' THEN coalesce(aborted_by, 'unknown') ELSE aborted_by END,
  superseded_by
FROM judged ORDER BY place";

pub(super) fn carry_over(tx: &Tx<'_>) -> Result<usize, Error> {
    let there_were = tx.query_row("SELECT count(*) FROM theirs", &[], |row| row.int(0))?;
    let index = "CREATE INDEX theirs_successor ON theirs (superseded_by)";
    tx.execute(index, &[])?;
    // A requeued row may have been requeued again. Each turn fills at least one row, so this ends.
    while tx.execute(INHERIT, &[])? > 0 {}
    let carried = tx.execute(CARRY, &[])?;
    tx.execute("DROP TABLE theirs", &[])?;
    none_lost(carried, there_were.unwrap_or_default())
}
