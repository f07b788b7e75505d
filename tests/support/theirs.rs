//! The files of the existing TypeScript daemon, made as its versions made them: `specs/legacy.md`.

use sha2::{Digest, Sha256};
use sqlite::{Connection, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// The pragmas that daemon opened its databases with.
const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
                       PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;";

const OUTBOX: &str = "
CREATE TABLE outbox (
  id TEXT PRIMARY KEY, client_message_id TEXT NOT NULL UNIQUE, request_fingerprint BLOB NOT NULL,
  payload BLOB NOT NULL, enqueued_at INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  next_attempt_at INTEGER NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'inflight', 'done', 'dead', 'aborted')),
  last_error TEXT, delivered_at INTEGER, broker_message_id TEXT, aborted_at INTEGER,
  aborted_by TEXT, superseded_by TEXT);
CREATE INDEX outbox_pending ON outbox (status, next_attempt_at);
CREATE INDEX outbox_aborted ON outbox (status, aborted_at) WHERE status = 'aborted';";

const OUTBOX_1_25: &str = "
ALTER TABLE outbox ADD COLUMN mesh TEXT; ALTER TABLE outbox ADD COLUMN target_spec TEXT;
ALTER TABLE outbox ADD COLUMN nonce TEXT; ALTER TABLE outbox ADD COLUMN ciphertext TEXT;
ALTER TABLE outbox ADD COLUMN priority TEXT;";

const OUTBOX_1_34: &str = "ALTER TABLE outbox ADD COLUMN sender_session_pubkey TEXT;";

const INBOX: &str = "
CREATE TABLE inbox (
  id TEXT PRIMARY KEY, client_message_id TEXT NOT NULL UNIQUE, broker_message_id TEXT,
  mesh TEXT NOT NULL, topic TEXT, sender_pubkey TEXT NOT NULL, sender_name TEXT NOT NULL,
  body TEXT, meta TEXT, received_at INTEGER NOT NULL, reply_to_id TEXT);
CREATE INDEX inbox_received_at ON inbox (received_at);
CREATE INDEX inbox_topic ON inbox (topic);
CREATE INDEX inbox_sender ON inbox (sender_pubkey);";

const INBOX_1_34_8: &str = "
ALTER TABLE inbox ADD COLUMN seen_at INTEGER; CREATE INDEX inbox_seen_at ON inbox (seen_at);";

const INBOX_1_34_11: &str = "
ALTER TABLE inbox ADD COLUMN recipient_pubkey TEXT;
ALTER TABLE inbox ADD COLUMN recipient_kind TEXT;
CREATE INDEX inbox_recipient ON inbox (recipient_pubkey);";

/// A version of that daemon that changed a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V0_9_0,
    V1_25_0,
    V1_34_0,
    V1_34_8,
    V1_34_11,
}

/// Its `outbox.db`, open, and empty.
pub fn outbox(path: &Path, version: Version) -> Connection {
    let steps = [
        (Version::V0_9_0, OUTBOX),
        (Version::V1_25_0, OUTBOX_1_25),
        (Version::V1_34_0, OUTBOX_1_34),
    ];
    make(path, version, &steps)
}

/// Its `inbox.db`, open, and empty.
pub fn inbox(path: &Path, version: Version) -> Connection {
    let steps = [
        (Version::V0_9_0, INBOX),
        (Version::V1_34_8, INBOX_1_34_8),
        (Version::V1_34_11, INBOX_1_34_11),
    ];
    make(path, version, &steps)
}

fn make(path: &Path, version: Version, steps: &[(Version, &str)]) -> Connection {
    let connection = sqlite::open(path).expect("opens");
    connection.execute(PRAGMAS).expect("sets up");
    for (_, step) in steps.iter().filter(|(since, _)| *since <= version) {
        connection.execute(step).expect("makes the tables");
    }
    connection
}

/// Inserts a row; each value is an SQL expression.
pub fn insert(connection: &Connection, table: &str, row: &[(&str, &str)]) {
    let (columns, values): (Vec<&str>, Vec<&str>) = row.iter().copied().unzip();
    let (columns, values) = (columns.join(", "), values.join(", "));
    let sql = format!("INSERT INTO {table} ({columns}) VALUES ({values})");
    connection.execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// What that daemon hashed for a request, as an SQL expression. `meta` as its JavaScript wrote it.
pub fn fingerprint(kind: &str, reference: &str, meta: &str, body: &str) -> String {
    let mut hash = Sha256::new();
    for field in ["1", kind, reference, "", "next", meta] {
        hash.update(field);
        hash.update([0]);
    }
    hash.update(Sha256::digest(body));
    format!("X'{}'", data_encoding::HEXUPPER.encode(&hash.finalize()))
}

/// A row of a table: its columns that are not NULL, by name, as text.
pub type Columns = BTreeMap<String, String>;

/// Every row of a table, in the order of insertion.
pub fn rows(path: &Path, table: &str) -> Vec<Columns> {
    let connection = sqlite::open(path).expect("opens");
    let order = if table == "seen" { "broker_message_id" } else { "rowid" };
    let sql = format!("SELECT * FROM {table} ORDER BY {order}");
    let mut statement = connection.prepare(sql).expect("is SQL");
    let names = statement.column_names().to_vec();
    let mut rows = Vec::new();
    while statement.next().expect("reads") == sqlite::State::Row {
        let value = |column: usize| match statement.read::<Value, _>(column).expect("reads") {
            Value::Null => None,
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(format!("{number} (a float)")),
            Value::String(text) => Some(text),
            Value::Binary(bytes) => Some(
                String::from_utf8(bytes)
                    .unwrap_or_else(|error| data_encoding::HEXLOWER.encode(error.as_bytes())),
            ),
        };
        let named = names.iter().enumerate();
        rows.push(named.filter_map(|(at, name)| Some((name.clone(), value(at)?))).collect());
    }
    rows
}

/// The schema version of a database.
pub fn version(path: &Path) -> i64 {
    number(path, "PRAGMA user_version")
}

/// How many rows a table has.
pub fn count(path: &Path, table: &str) -> i64 {
    number(path, &format!("SELECT count(*) FROM {table}"))
}

fn number(path: &Path, sql: &str) -> i64 {
    let connection = sqlite::open(path).expect("opens");
    let mut statement = connection.prepare(sql).expect("is SQL");
    statement.next().expect("reads");
    statement.read::<i64, _>(0).expect("reads")
}
