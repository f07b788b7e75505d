//! The ledger's tables (§17.1), as numbered forward steps.

use claudemesh_base::db::Migrations;

/// Every schema step there has ever been; a released one is never edited.
pub(crate) static MIGRATIONS: Migrations = Migrations {
    name: "ledger",
    steps: &[STEP_1, STEP_2, RECEIPTS, RETENTION, ACTIVE_MEMBER],
    adoption: None,
};

/// `delivery` is the queue: one row per recipient member, gone once acknowledged. `mailbox` counts
/// it, kept by triggers so that no path can forget. Leases are not here: one belongs to a
/// connection, a connection to a process, and a lease on disk could only outlive what it protects.
const STEP_1: &str = "
CREATE TABLE mesh (
    id TEXT PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    owner_pubkey TEXT NOT NULL,
    root_key TEXT NOT NULL,
    connection_policy TEXT NOT NULL
        CHECK (connection_policy IN ('prefer_newest', 'prefer_oldest', 'allow_concurrent')),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE member (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    mesh_id TEXT NOT NULL REFERENCES mesh (id),
    pubkey TEXT NOT NULL,
    display_name TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    joined_at INTEGER NOT NULL,
    revoked_at INTEGER,
    last_seen_at INTEGER,
    status TEXT NOT NULL DEFAULT 'idle',
    summary TEXT,
    visible INTEGER NOT NULL DEFAULT 1,
    profile TEXT,
    UNIQUE (mesh_id, pubkey)
) STRICT;
CREATE TABLE mailbox (
    member INTEGER PRIMARY KEY,
    queued INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TRIGGER member_gets_a_mailbox AFTER INSERT ON member BEGIN
    INSERT INTO mailbox (member) VALUES (NEW.seq);
END;
CREATE TABLE session_key (
    mesh_id TEXT NOT NULL,
    pubkey TEXT NOT NULL,
    member INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, pubkey)
) STRICT, WITHOUT ROWID;
CREATE TABLE invite (
    token TEXT PRIMARY KEY,
    mesh_id TEXT NOT NULL REFERENCES mesh (id),
    role TEXT NOT NULL CHECK (role IN ('admin', 'member')),
    expires_at INTEGER NOT NULL,
    uses_max INTEGER NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT;
CREATE TABLE topic (
    id TEXT PRIMARY KEY,
    mesh_id TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT,
    visibility TEXT NOT NULL CHECK (visibility IN ('public', 'private', 'dm')),
    created_at INTEGER NOT NULL,
    UNIQUE (mesh_id, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE topic_member (
    topic_id TEXT NOT NULL,
    member INTEGER NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('lead', 'member', 'observer')),
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (topic_id, member)
) STRICT, WITHOUT ROWID;
CREATE TABLE group_member (
    mesh_id TEXT NOT NULL,
    name TEXT NOT NULL,
    member INTEGER NOT NULL,
    role TEXT,
    PRIMARY KEY (mesh_id, name, member)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_by_member ON group_member (member);
CREATE TABLE message (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    mesh_id TEXT NOT NULL,
    sender_member INTEGER NOT NULL,
    sender_pubkey TEXT NOT NULL,
    sender_member_pubkey TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    target_spec TEXT NOT NULL,
    topic_id TEXT,
    priority TEXT NOT NULL,
    nonce TEXT NOT NULL,
    ciphertext TEXT NOT NULL,
    ext_nonce TEXT,
    ext_ciphertext TEXT,
    reply_to_id TEXT,
    client_message_id TEXT,
    request_fingerprint BLOB,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX message_by_topic ON message (topic_id, seq) WHERE topic_id IS NOT NULL;
CREATE TABLE client_message_dedupe (
    mesh_id TEXT NOT NULL,
    sender_member_pubkey TEXT NOT NULL,
    client_message_id TEXT NOT NULL,
    broker_message_id TEXT NOT NULL,
    request_fingerprint BLOB NOT NULL CHECK (length(request_fingerprint) = 32),
    destination_kind TEXT NOT NULL CHECK (destination_kind IN ('dm', 'topic')),
    destination_ref TEXT NOT NULL,
    first_seen_at INTEGER NOT NULL,
    expires_at INTEGER,
    history_available INTEGER NOT NULL DEFAULT 1,
    history_id INTEGER NOT NULL,
    PRIMARY KEY (mesh_id, sender_member_pubkey, client_message_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE delivery (
    recipient INTEGER NOT NULL,
    message_seq INTEGER NOT NULL,
    only_key TEXT,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (recipient, message_seq)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER delivery_fills_the_mailbox AFTER INSERT ON delivery BEGIN
    UPDATE mailbox SET queued = queued + 1, bytes = bytes + NEW.bytes WHERE member = NEW.recipient;
END;
CREATE TRIGGER delivery_empties_the_mailbox AFTER DELETE ON delivery BEGIN
    UPDATE mailbox SET queued = queued - 1, bytes = bytes - OLD.bytes WHERE member = OLD.recipient;
END";

/// Standing, blocks and the audit. A ban is a mark that can be taken off again; `block` says whose
/// direct messages a member does not get; `audit` only grows, and keeps no secret.
const STEP_2: &str = "
ALTER TABLE member ADD COLUMN banned_at INTEGER;
CREATE TABLE block (
    member INTEGER NOT NULL,
    sender INTEGER NOT NULL,
    blocked_at INTEGER NOT NULL,
    PRIMARY KEY (member, sender)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    mesh_id TEXT NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT
) STRICT";

/// What became of a message (§4.13), beside the id that outlives it. `recipients` is NULL where it
/// was not counted yet.
const RECEIPTS: &str = "
ALTER TABLE client_message_dedupe ADD COLUMN recipients INTEGER;
ALTER TABLE client_message_dedupe ADD COLUMN stored INTEGER NOT NULL DEFAULT 0;
ALTER TABLE client_message_dedupe ADD COLUMN expired INTEGER NOT NULL DEFAULT 0";

/// What expiry finds its rows by, so that no night reads a whole table; and the ledger's own time,
/// which expiry goes by. What may be forgotten of the ids is an index of its own: a new id is not
/// in it, and costs nothing more.
const RETENTION: &str = "
CREATE INDEX message_by_time ON message (created_at, topic_id);
CREATE INDEX delivery_by_message ON delivery (message_seq);
CREATE INDEX dedupe_forgettable ON client_message_dedupe (expires_at) WHERE history_available = 0;
CREATE INDEX session_key_by_time ON session_key (last_seen_at);
CREATE TABLE trusted_time (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    at INTEGER NOT NULL,
    clock_at INTEGER NOT NULL
) STRICT";

/// Whose membership holds now: the one place that says what that means.
const ACTIVE_MEMBER: &str = "
CREATE VIEW active_member AS
    SELECT seq, id, mesh_id, pubkey, display_name, visible FROM member
    WHERE revoked_at IS NULL AND banned_at IS NULL";
