//! The tables of `outbox.db` and `inbox.db`, as numbered forward migrations (§4.5.2, §4.10).
//!
//! A step that has been released is never edited: the next change is the next step.

use crate::db::Migrations;

pub(super) static OUTBOX: Migrations =
    Migrations { name: "outbox", steps: &[OUTBOX_1, OUTBOX_DEPTH] };
pub(super) static INBOX: Migrations = Migrations { name: "inbox", steps: &[INBOX_1] };

/// `seq` is the order of insertion. The due index holds pending rows only, so that it stays small
/// however long the history grows, and leads with what the claim orders by.
const OUTBOX_1: &str = "
CREATE TABLE outbox (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  client_message_id TEXT NOT NULL UNIQUE,
  request_fingerprint BLOB NOT NULL CHECK (length(request_fingerprint) = 32),
  payload BLOB NOT NULL,
  mesh TEXT NOT NULL,
  destination_kind TEXT NOT NULL CHECK (destination_kind IN ('dm', 'topic')),
  destination_ref TEXT NOT NULL,
  recipient TEXT,
  recipient_member TEXT,
  priority TEXT NOT NULL CHECK (priority IN ('now', 'next', 'low')),
  meta TEXT,
  reply_to_id TEXT,
  mentions TEXT,
  enqueued_at INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  next_attempt_at INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'inflight', 'done', 'dead', 'aborted')),
  last_error TEXT,
  may_have_been_sent INTEGER NOT NULL DEFAULT 0,
  delivered_at INTEGER,
  broker_message_id TEXT,
  history_id TEXT,
  aborted_at INTEGER,
  aborted_by TEXT,
  superseded_by TEXT
);
CREATE INDEX outbox_due ON outbox (mesh, priority, next_attempt_at, enqueued_at)
  WHERE status = 'pending';
CREATE INDEX outbox_inflight ON outbox (mesh) WHERE status = 'inflight';
CREATE INDEX outbox_dead ON outbox (seq) WHERE status = 'dead';
";

/// How many rows each mesh has in each state and what they weigh (§1.2), kept by every change of a
/// row, so that a daemon with a million rows knows it at once. 512 is `ROW_OVERHEAD_BYTES`.
const OUTBOX_DEPTH: &str = "
CREATE TABLE depth (
  mesh TEXT NOT NULL,
  status TEXT NOT NULL,
  rows INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (mesh, status)
) WITHOUT ROWID;
INSERT INTO depth
  SELECT mesh, status, count(*), sum(512 + octet_length(payload) + coalesce(octet_length(meta), 0))
  FROM outbox GROUP BY mesh, status;
CREATE TRIGGER depth_of_inserted AFTER INSERT ON outbox BEGIN
  INSERT INTO depth VALUES (new.mesh, new.status, 1,
    512 + octet_length(new.payload) + coalesce(octet_length(new.meta), 0))
  ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER depth_of_deleted AFTER DELETE ON outbox BEGIN
  UPDATE depth SET rows = rows - 1,
    bytes = bytes - 512 - octet_length(old.payload) - coalesce(octet_length(old.meta), 0)
  WHERE mesh = old.mesh AND status = old.status;
END;
CREATE TRIGGER depth_of_updated AFTER UPDATE OF mesh, status, payload, meta ON outbox BEGIN
  UPDATE depth SET rows = rows - 1,
    bytes = bytes - 512 - octet_length(old.payload) - coalesce(octet_length(old.meta), 0)
  WHERE mesh = old.mesh AND status = old.status;
  INSERT INTO depth VALUES (new.mesh, new.status, 1,
    512 + octet_length(new.payload) + coalesce(octet_length(new.meta), 0))
  ON CONFLICT DO UPDATE SET rows = rows + 1, bytes = bytes + excluded.bytes;
END;
";

/// `seen` outlives the row it belongs to: a message that was cleared does not reappear (§4.10).
const INBOX_1: &str = "
CREATE TABLE inbox (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  client_message_id TEXT,
  broker_message_id TEXT NOT NULL,
  mesh TEXT NOT NULL,
  topic TEXT,
  sender_pubkey TEXT NOT NULL,
  sender_member_pubkey TEXT,
  sender_name TEXT,
  recipient_pubkey TEXT,
  recipient_kind TEXT,
  body BLOB,
  meta TEXT,
  priority TEXT NOT NULL,
  subtype TEXT,
  encryption TEXT NOT NULL CHECK (encryption IN ('direct', 'none')),
  created_at TEXT,
  received_at INTEGER NOT NULL,
  seen_at INTEGER,
  reply_to_id TEXT,
  undecryptable INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX inbox_unread ON inbox (seq) WHERE seen_at IS NULL;
CREATE TABLE seen (
  mesh TEXT NOT NULL,
  broker_message_id TEXT NOT NULL,
  sender TEXT NOT NULL,
  client_message_id TEXT,
  first_seen_at INTEGER NOT NULL,
  PRIMARY KEY (mesh, broker_message_id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX seen_by_sender ON seen (mesh, sender, client_message_id)
  WHERE client_message_id IS NOT NULL;
CREATE TABLE epoch (value TEXT NOT NULL);
INSERT INTO epoch VALUES (lower(hex(randomblob(8))));
";
