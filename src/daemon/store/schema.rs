//! The tables of `outbox.db` and `inbox.db`, as numbered forward migrations (§4.5.2, §4.10).
//!
//! A step that has been released is never edited: the next change is the next step.

use super::legacy;
use claudemesh_base::db::Migrations;

pub(crate) static OUTBOX: Migrations = Migrations {
    name: "outbox",
    steps: &[OUTBOX_1, OUTBOX_2, OUTBOX_RECEIPTS, OUTBOX_HOST, OUTBOX_DEPTH, OUTBOX_OPEN],
    adoption: Some(&legacy::OUTBOX),
};
pub(crate) static INBOX: Migrations =
    Migrations { name: "inbox", steps: &[INBOX_1, INBOX_2], adoption: Some(&legacy::INBOX) };

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

/// What is learned of a message after it is done (§4.13). The index holds only what more may be
/// learned of.
const OUTBOX_RECEIPTS: &str = "
CREATE TABLE receipt (
  seq INTEGER PRIMARY KEY,
  recipients INTEGER NOT NULL,
  stored INTEGER NOT NULL DEFAULT 0,
  expired INTEGER NOT NULL DEFAULT 0,
  updated_at INTEGER NOT NULL
);
CREATE INDEX receipt_open ON receipt (seq) WHERE stored + expired < recipients;
";

/// Which boot of the host last wrote here (§4.7); NULL where nobody knows. Rows up to `doubted_to`
/// that still wait may have been sent, whatever they say: a mark, because there may be a million.
const OUTBOX_HOST: &str = "
CREATE TABLE host (boot_id TEXT, doubted_to INTEGER NOT NULL);
INSERT INTO host VALUES (NULL, 0);
";

/// How many rows each mesh had in each state and what they weighed (§1.2) at the last end in order:
/// what a start reads instead of counting a million rows.
const OUTBOX_DEPTH: &str = "
CREATE TABLE depth (
  mesh TEXT NOT NULL,
  status TEXT NOT NULL,
  rows INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (mesh, status)
) WITHOUT ROWID;
";

/// SQLite takes a partial index only for a condition in the very form that it gives the query's: with
/// the column first.
const OUTBOX_OPEN: &str = "
DROP INDEX receipt_open;
CREATE INDEX receipt_open ON receipt (seq) WHERE recipients > stored + expired;
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

/// What [`age`](super::age) remembers.
macro_rules! age_tables {
    () => {
        "
CREATE TABLE witnessed (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  ms INTEGER NOT NULL,
  at INTEGER NOT NULL
);
CREATE TABLE mark (
  witnessed_ms INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL
);
"
    };
}

/// `shrink_walk` is how far each walk over finished rows got, and `left_behind` the rows it could
/// not finish when it passed. No index: an insert or a move of a row writes nothing more than before.
const OUTBOX_2: &str = concat!(
    age_tables!(),
    "
CREATE TABLE shrink_walk (name TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE left_behind (seq INTEGER PRIMARY KEY);
"
);

/// `inbox_seq` is the place of the message in the inbox, also when it has left it; 0 for one that
/// was seen before there was such a column.
const INBOX_2: &str = concat!(
    age_tables!(),
    "
ALTER TABLE seen ADD COLUMN inbox_seq INTEGER NOT NULL DEFAULT 0;
CREATE INDEX seen_by_place ON seen (inbox_seq);
"
);

#[cfg(test)]
pub(super) mod older {
    //! The schemas of earlier releases, to migrate from.

    use super::{INBOX_1, Migrations, OUTBOX_1};

    pub(crate) static OUTBOX: Migrations =
        Migrations { name: "outbox", steps: &[OUTBOX_1], adoption: None };
    pub(crate) static INBOX: Migrations =
        Migrations { name: "inbox", steps: &[INBOX_1], adoption: None };
}
