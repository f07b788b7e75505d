//! The settings as plain values, for the rooms that live by them. No parsing: by the time one of
//! these exists, every range has been checked.

use super::Entries;
use super::keys::PERMANENT;
use claudemesh_fsm::retry::DedupeWindow;
use std::net::SocketAddr;
use std::time::Duration;

/// `[daemon]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// The name peers see, over that of `config.json`.
    pub display_name: Option<String>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
}

/// `[ipc]` (§1.2, §3.1)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipc {
    /// Whether to listen on TCP too.
    pub tcp_enabled: bool,
    /// 0 lets the system choose.
    pub http_port: u16,
    /// Whether `GET /v1/health` needs no token.
    pub public_health_check: bool,
    /// Open connections.
    pub connections_max: usize,
    /// Requests in flight, streams apart.
    pub requests_max: usize,
    /// Open event streams.
    pub streams_max: usize,
    /// Body of `POST /v1/send`.
    pub send_body_bytes_max: usize,
    /// Body of a requeue.
    pub requeue_body_bytes_max: usize,
    /// Body of `POST /v1/inbox/seen`.
    pub seen_body_bytes_max: usize,
    /// Any other body.
    pub body_bytes_max: usize,
    /// For a header block to arrive.
    pub head: Duration,
    /// For a whole request to arrive.
    pub request: Duration,
    /// For an answer to make progress.
    pub stall: Duration,
    /// For an idle connection to live.
    pub idle: Duration,
}

/// `[outbox]` (§1.2, §4.6, §4.9)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    /// `None`: what the broker's dedupe window allows.
    pub max_age_hours: Option<u64>,
    /// The longest wait between attempts.
    pub backoff_cap_ms: u64,
    /// What pending, inflight and dead rows may weigh.
    pub bytes_max: u64,
}

/// `[disk]` (§1.2)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// What stays free.
    pub reserved_bytes: u64,
}

/// `[inbox]` (§1.2)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inbox {
    /// How long what arrived is kept.
    pub retention_days: u32,
    /// How large the inbox may be, in bytes.
    pub bytes_max: u64,
}

/// `[link]` and `[reconnect]` (§4.6, §15.5)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// For the broker to answer the hello.
    pub hello: Duration,
    /// For the broker to answer a send.
    pub ack: Duration,
    /// For the broker to answer the negotiation.
    pub negotiation: Duration,
    /// Between pings.
    pub ping: Duration,
    /// Silence after which the link is dead; longer than `ping`.
    pub dead: Duration,
    /// The longest wait before dialling again.
    pub backoff_cap_ms: u64,
    /// Sends in flight.
    pub inflight_max: usize,
    /// How long a link stays open before its backoff starts over (`reconnect.stable_ms`).
    pub stable: Duration,
}

/// Which meshes may have a broker without our features (§15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegacyBrokers {
    /// Every mesh.
    All,
    /// The meshes of these slugs.
    Only(Vec<String>),
}

impl LegacyBrokers {
    /// Whether the mesh of this slug may.
    #[must_use]
    pub fn allows(&self, slug: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(slugs) => slugs.iter().any(|allowed| allowed == slug),
        }
    }
}

/// `[features]` (§15)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// Features a broker must have.
    pub require: Vec<String>,
    /// Features used where a broker has them; never one that is required.
    pub optional: Vec<String>,
    /// Where they may be missing.
    pub allow_legacy_broker: LegacyBrokers,
}

/// `[broker]` (§17)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Where it listens.
    pub listen: SocketAddr,
    /// For a receiver to acknowledge a push.
    pub lease_ms: u64,
    /// How long a lost peer stays in the roster.
    pub presence_lease_ms: u64,
    /// Sends a member may make at once; 0 is no limit.
    pub rate_burst: u32,
    /// Sends a member regains per second.
    pub rate_per_s: u32,
    /// How long ids are remembered.
    pub retention: DedupeWindow,
    /// Connections per mesh.
    pub connections_max: usize,
    /// How long undelivered mail is kept.
    pub mail_days: u64,
}

impl Daemon {
    pub(super) fn read(entries: &Entries) -> Self {
        Self {
            display_name: entries.text("daemon.display_name"),
            log_level: entries.text("daemon.log_level").unwrap_or_default(),
        }
    }
}

impl Ipc {
    pub(super) fn read(entries: &Entries) -> Self {
        Self {
            tcp_enabled: entries.flag("ipc.tcp_enabled"),
            http_port: entries.integer("ipc.http_port"),
            public_health_check: entries.flag("ipc.public_health_check"),
            connections_max: entries.integer("ipc.connections_max"),
            requests_max: entries.integer("ipc.requests_max"),
            streams_max: entries.integer("ipc.streams_max"),
            send_body_bytes_max: entries.integer("ipc.send_body_bytes_max"),
            requeue_body_bytes_max: entries.integer("ipc.requeue_body_bytes_max"),
            seen_body_bytes_max: entries.integer("ipc.seen_body_bytes_max"),
            body_bytes_max: entries.integer("ipc.body_bytes_max"),
            head: entries.duration("ipc.head_ms"),
            request: entries.duration("ipc.request_ms"),
            stall: entries.duration("ipc.stall_ms"),
            idle: entries.duration("ipc.idle_ms"),
        }
    }
}

impl Outbox {
    pub(super) fn read(entries: &Entries) -> Self {
        Self {
            max_age_hours: entries.integer_or_none("outbox.max_age_hours"),
            backoff_cap_ms: entries.integer("outbox.backoff_cap_ms"),
            bytes_max: entries.integer("outbox.max_bytes"),
        }
    }
}

impl Inbox {
    pub(super) fn read(entries: &Entries) -> Self {
        Self {
            retention_days: entries.integer("inbox.retention_days"),
            bytes_max: entries.integer("inbox.max_bytes"),
        }
    }
}

impl Disk {
    pub(super) fn read(entries: &Entries) -> Self {
        Self { reserved_bytes: entries.integer("disk.reserved_bytes") }
    }
}

impl Link {
    pub(super) fn read(entries: &Entries) -> Self {
        Self {
            hello: entries.duration("link.hello_ms"),
            ack: entries.duration("link.ack_ms"),
            negotiation: entries.duration("link.negotiation_ms"),
            ping: entries.duration("link.ping_ms"),
            dead: entries.duration("link.dead_ms"),
            backoff_cap_ms: entries.integer("link.backoff_cap_ms"),
            inflight_max: entries.integer("link.inflight_max"),
            stable: entries.duration("reconnect.stable_ms"),
        }
    }
}

impl Features {
    pub(super) fn read(entries: &Entries) -> Self {
        let require = entries.names("features.require");
        let mut optional = entries.names("features.optional");
        optional.retain(|feature| !require.contains(feature));
        let legacy = "features.allow_legacy_broker";
        let allow_legacy_broker = if entries.flag(legacy) {
            LegacyBrokers::All
        } else {
            LegacyBrokers::Only(entries.names(legacy))
        };
        Self { require, optional, allow_legacy_broker }
    }
}

impl Broker {
    pub(super) fn read(entries: &Entries) -> Self {
        let retention = "broker.retention_days";
        Self {
            listen: entries.address("broker.listen"),
            lease_ms: entries.integer("broker.lease_ms"),
            presence_lease_ms: entries.integer("broker.presence_lease_ms"),
            rate_burst: entries.integer("broker.rate_burst"),
            rate_per_s: entries.integer("broker.rate_per_s"),
            retention: if entries.text(retention).as_deref() == Some(PERMANENT) {
                DedupeWindow::Permanent
            } else {
                DedupeWindow::Days(entries.integer(retention))
            },
            connections_max: entries.integer("broker.connections_max"),
            mail_days: entries.integer("broker.mail_days"),
        }
    }
}
