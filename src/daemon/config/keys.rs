//! The table of settings: one row per key, and everything about it in that row.
//!
//! Parsing, defaults, errors and the listing of `daemon config` all read [`KEYS`]; a key that is
//! not here does not exist.

use claudemesh_fsm::retry;

/// The sections of `config.toml`; `[metrics]` is reserved and has no keys yet.
pub const SECTIONS: &[&str] = &[
    "broker",
    "daemon",
    "disk",
    "features",
    "inbox",
    "ipc",
    "link",
    "metrics",
    "outbox",
    "reconnect",
];

/// The features a broker may be asked for (§15).
pub const FEATURES: &[&str] = &[
    "client_message_id_dedupe",
    "concurrent_connection_policy",
    "member_keypair_rotated_event",
    "key_epoch",
    "max_payload",
    "delivery_receipts",
];

/// Defaults that other code or a test may want to name. Units stand last.
pub mod default {
    use super::retry;

    const KIB: u64 = 1024;
    const GIB: u64 = 1024 * 1024 * KIB;

    /// `daemon.log_level`.
    pub const LOG_LEVEL: &str = "info";
    /// `ipc.http_port`.
    pub const HTTP_PORT: u64 = 47_823;
    /// `ipc.connections_max`.
    pub const IPC_CONNECTIONS_MAX: u64 = 512;
    /// `ipc.requests_max`.
    pub const IPC_REQUESTS_MAX: u64 = 512;
    /// `ipc.streams_max`.
    pub const IPC_STREAMS_MAX: u64 = 32;
    /// `ipc.seen_body_bytes_max`.
    pub const SEEN_BODY_BYTES_MAX: u64 = 64 * KIB;
    /// `ipc.send_body_bytes_max` and `ipc.requeue_body_bytes_max`.
    pub const SEND_BODY_BYTES_MAX: u64 = 256 * KIB;
    /// `ipc.body_bytes_max`.
    pub const BODY_BYTES_MAX: u64 = 16 * KIB;
    /// `ipc.head_ms`.
    pub const HEAD_MS: u64 = 10_000;
    /// `ipc.request_ms`.
    pub const REQUEST_MS: u64 = 30_000;
    /// `ipc.stall_ms`.
    pub const STALL_MS: u64 = 30_000;
    /// `ipc.idle_ms`.
    pub const IDLE_MS: u64 = 75_000;
    /// `outbox.max_bytes`.
    pub const OUTBOX_BYTES_MAX: u64 = 5 * 1024 * 1024 * KIB;
    /// `disk.reserved_bytes`.
    pub const DISK_RESERVED_BYTES: u64 = 64 * 1024 * KIB;
    /// `outbox.backoff_cap_ms`.
    pub const OUTBOX_BACKOFF_CAP_MS: u64 = retry::BACKOFF_CAP_MS;
    /// `inbox.retention_days`.
    pub const INBOX_RETENTION_DAYS: u64 = 30;
    /// `inbox.max_bytes`.
    pub const INBOX_BYTES_MAX: u64 = 5 * GIB;
    /// `link.hello_ms`.
    pub const HELLO_MS: u64 = 5_000;
    /// `link.ack_ms`.
    pub const ACK_MS: u64 = 15_000;
    /// `link.negotiation_ms`.
    pub const NEGOTIATION_MS: u64 = 3_000;
    /// `link.ping_ms`.
    pub const PING_MS: u64 = 30_000;
    /// `link.dead_ms`.
    pub const DEAD_MS: u64 = 75_000;
    /// `link.backoff_cap_ms`.
    pub const LINK_BACKOFF_CAP_MS: u64 = retry::RECONNECT_CAP_MS;
    /// `link.inflight_max`.
    pub const INFLIGHT_MAX: u64 = 256;
    /// `reconnect.stable_ms`.
    pub const STABLE_MS: u64 = 60_000;
    /// `features.require`.
    pub const REQUIRE: &[&str] = &["client_message_id_dedupe", "concurrent_connection_policy"];
    /// `features.optional`.
    pub const OPTIONAL: &[&str] =
        &["member_keypair_rotated_event", "key_epoch", "max_payload", "delivery_receipts"];
    /// `broker.listen`.
    pub const BROKER_LISTEN: &str = "127.0.0.1:7900";
    /// `broker.lease_ms`.
    pub const LEASE_MS: u64 = 30_000;
    /// `broker.presence_lease_ms`.
    pub const PRESENCE_LEASE_MS: u64 = 90_000;
    /// `broker.rate_burst`: no limit.
    pub const RATE_BURST: u64 = 0;
    /// `broker.rate_per_s`.
    pub const RATE_PER_S: u64 = 1;
    /// `broker.retention_days`.
    pub const BROKER_RETENTION_DAYS: u64 = 365;
    /// `broker.connections_max`.
    pub const BROKER_CONNECTIONS_MAX: u64 = 1024;
    /// `broker.mail_days`.
    pub const MAIL_DAYS: u64 = 30;
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number in this range, ends included.
    Integer(u64, u64),
    /// The same, or this one word.
    IntegerOr(u64, u64, &'static str),
    /// Visible text of at most this many characters.
    Text(usize),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An IP address and a port.
    Address,
    /// A list of some of these words.
    NamesOf(&'static [&'static str]),
    /// A list of names, or `true` for all and `false` for none.
    NamesOrBool,
}

/// What holds when the file says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Nothing: something else decides.
    Unset,
    /// A switch.
    Bool(bool),
    /// A number.
    Integer(u64),
    /// A word.
    Text(&'static str),
    /// A list.
    Names(&'static [&'static str]),
}

/// Whether a reload (SIGHUP, `daemon reload`) applies a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// At once, or from the next connection on.
    Applies,
    /// Only a restart does.
    NeedsRestart,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// `section.key`, as errors and the listing name it.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What it is when nobody says.
    pub preset: Preset,
    /// When a change counts.
    pub reload: Reload,
    /// What it does, in a few words.
    pub about: &'static str,
}

const fn key(
    name: &'static str,
    kind: Kind,
    preset: Preset,
    reload: Reload,
    about: &'static str,
) -> Key {
    Key { name, kind, preset, reload, about }
}

use Kind::{Address, Choice, Integer, IntegerOr, NamesOf, NamesOrBool, Text};
use Preset::{Names, Unset};
use Reload::{Applies, NeedsRestart};

/// A timer of ours: long enough to make progress, short enough to notice.
const TIMER_MS: Kind = Integer(100, 600_000);
const COUNT: Kind = Integer(1, 65_536);
const DAYS: Kind = Integer(1, 36_500);
const BODY_BYTES: Kind = Integer(1024, 16 << 20);
const STORE_BYTES: Kind = Integer(1 << 20, 1 << 50);
/// TOML's integers end at 2^63 - 1.
const NAME_CHARACTERS_MAX: usize = 128;
const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

const fn bounded(
    name: &'static str,
    kind: Kind,
    preset: u64,
    reload: Reload,
    about: &'static str,
) -> Key {
    key(name, kind, Preset::Integer(preset), reload, about)
}

const fn switch(name: &'static str, preset: bool, reload: Reload, about: &'static str) -> Key {
    key(name, Kind::Bool, Preset::Bool(preset), reload, about)
}

/// Every setting, by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("daemon.display_name", Text(NAME_CHARACTERS_MAX), Unset, Applies, "the name peers see; else that of config.json"),
    key("daemon.log_level", Choice(LOG_LEVELS), Preset::Text(default::LOG_LEVEL), NeedsRestart, "the least severe level that is logged"),

    switch("ipc.tcp_enabled", true, NeedsRestart, "listen on loopback TCP beside the socket"),
    bounded("ipc.http_port", Integer(0, 65_535), default::HTTP_PORT, NeedsRestart, "the loopback TCP port; 0 lets the system choose"),
    switch("ipc.public_health_check", false, NeedsRestart, "answer GET /v1/health on TCP without the token"),
    bounded("ipc.connections_max", COUNT, default::IPC_CONNECTIONS_MAX, NeedsRestart, "open connections"),
    bounded("ipc.requests_max", COUNT, default::IPC_REQUESTS_MAX, NeedsRestart, "requests in flight, streams apart"),
    bounded("ipc.streams_max", Integer(1, 4096), default::IPC_STREAMS_MAX, NeedsRestart, "open event streams"),
    bounded("ipc.send_body_bytes_max", BODY_BYTES, default::SEND_BODY_BYTES_MAX, NeedsRestart, "body of POST /v1/send"),
    bounded("ipc.requeue_body_bytes_max", BODY_BYTES, default::SEND_BODY_BYTES_MAX, NeedsRestart, "body of POST /v1/outbox/requeue"),
    bounded("ipc.seen_body_bytes_max", BODY_BYTES, default::SEEN_BODY_BYTES_MAX, NeedsRestart, "body of POST /v1/inbox/seen"),
    bounded("ipc.body_bytes_max", BODY_BYTES, default::BODY_BYTES_MAX, NeedsRestart, "any other body"),
    bounded("ipc.head_ms", TIMER_MS, default::HEAD_MS, NeedsRestart, "time for a header block to arrive"),
    bounded("ipc.request_ms", TIMER_MS, default::REQUEST_MS, NeedsRestart, "time for a whole request to arrive"),
    bounded("ipc.stall_ms", TIMER_MS, default::STALL_MS, NeedsRestart, "time an answer may wait for its reader"),
    bounded("ipc.idle_ms", TIMER_MS, default::IDLE_MS, NeedsRestart, "time a connection may stay idle"),

    key("outbox.max_age_hours", Integer(1, retry::MAX_AGE_HOURS_MAX), Unset, Applies, "age at which a row expires; else what the broker's window allows"),
    bounded("outbox.backoff_cap_ms", Integer(100, 3_600_000), default::OUTBOX_BACKOFF_CAP_MS, NeedsRestart, "longest wait between attempts"),
    bounded("outbox.max_bytes", Integer(1 << 20, 1 << 50), default::OUTBOX_BYTES_MAX, NeedsRestart, "what pending, inflight and failed messages may weigh"),

    bounded("inbox.retention_days", DAYS, default::INBOX_RETENTION_DAYS, NeedsRestart, "how long what arrived is kept"),
    bounded("inbox.max_bytes", STORE_BYTES, default::INBOX_BYTES_MAX, NeedsRestart, "size of the inbox; beyond it the oldest goes"),

    bounded("disk.reserved_bytes", Integer(0, 1 << 50), default::DISK_RESERVED_BYTES, NeedsRestart, "what stays free on the disk; below it nothing new is stored"),

    bounded("link.hello_ms", TIMER_MS, default::HELLO_MS, Applies, "time for a broker to answer the hello"),
    bounded("link.ack_ms", TIMER_MS, default::ACK_MS, Applies, "time for a broker to answer a send"),
    bounded("link.negotiation_ms", TIMER_MS, default::NEGOTIATION_MS, Applies, "time for a broker to answer the negotiation"),
    bounded("link.ping_ms", TIMER_MS, default::PING_MS, Applies, "time between pings"),
    bounded("link.dead_ms", TIMER_MS, default::DEAD_MS, Applies, "silence after which a link is dead; more than link.ping_ms"),
    bounded("link.backoff_cap_ms", Integer(100, 3_600_000), default::LINK_BACKOFF_CAP_MS, Applies, "longest wait before dialling again"),
    bounded("link.inflight_max", Integer(1, 4096), default::INFLIGHT_MAX, NeedsRestart, "sends in flight on one link"),

    bounded("reconnect.stable_ms", TIMER_MS, default::STABLE_MS, Applies, "time a link stays open before its backoff starts over"),



    key("features.require", NamesOf(FEATURES), Names(default::REQUIRE), Applies, "features a broker must have"),
    key("features.optional", NamesOf(FEATURES), Names(default::OPTIONAL), Applies, "features used where a broker has them"),
    key("features.allow_legacy_broker", NamesOrBool, Names(&[]), Applies, "meshes whose broker may lack them: slugs, or true for all"),

    key("broker.listen", Address, Preset::Text(default::BROKER_LISTEN), NeedsRestart, "where the embedded broker listens"),
    bounded("broker.lease_ms", Integer(1000, 600_000), default::LEASE_MS, NeedsRestart, "time for a receiver to acknowledge a push"),
    bounded("broker.presence_lease_ms", Integer(0, 3_600_000), default::PRESENCE_LEASE_MS, NeedsRestart, "time a lost peer stays in the roster"),
    bounded("broker.rate_burst", Integer(0, 1_000_000), default::RATE_BURST, NeedsRestart, "sends a member may make at once; 0 is no limit"),
    bounded("broker.rate_per_s", Integer(1, 1_000_000), default::RATE_PER_S, NeedsRestart, "sends a member regains per second"),
    key("broker.retention_days", IntegerOr(3, 36_500, PERMANENT), Preset::Integer(default::BROKER_RETENTION_DAYS), NeedsRestart, "how long ids are remembered"),
    bounded("broker.connections_max", COUNT, default::BROKER_CONNECTIONS_MAX, NeedsRestart, "connections per mesh"),
    bounded("broker.mail_days", DAYS, default::MAIL_DAYS, NeedsRestart, "how long undelivered mail is kept"),
];

/// The word for "never forgotten" in `broker.retention_days`.
pub const PERMANENT: &str = "permanent";
