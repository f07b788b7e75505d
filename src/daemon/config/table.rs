//! The table of settings. One row declares a setting: its key, type, default, range, whether a
//! reload applies it, and what it does. The structs that other modules read, the parser, the error
//! texts and the table in `specs/process.md` §13 are all made from these rows.

use super::kind::{Kind, LegacyBrokers, Setting};
use super::said::Said;
use Kind::{Address, Bool, Choice, Integer, IntegerOr, NamesOf, NamesOrBool, Text};
use claudemesh_base::http;
use claudemesh_fsm::link as timers;
use claudemesh_fsm::negotiate::{FEATURES, FeaturePolicy};
use claudemesh_fsm::retry::{self, DedupeWindow};
use std::net::SocketAddr;
use std::time::Duration;

/// When a changed value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// A reload (SIGHUP, `daemon reload`) applies it, at once or from the next connection on.
    Applies,
    /// Only a restart of the daemon applies it.
    NeedsRestart,
}

/// What is known of one setting.
pub struct Key {
    /// `section.key`, as it is called in error messages.
    pub name: &'static str,
    /// Which values it takes.
    pub kind: Kind,
    /// When a changed value counts.
    pub reload: Reload,
    /// What it does.
    pub about: &'static str,
    /// Its value in some settings, as it would stand in the file; empty when it is unset.
    pub value: fn(&Settings) -> String,
}

macro_rules! settings {
    ($($section:ident: $Section:ident {
        $($key:ident: $type:ty = $default:expr, $kind:expr, $reload:ident, $about:literal;)*
    })*) => {
        $(
            #[doc = concat!("The settings of section `[", stringify!($section), "]`.")]
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $Section {
                $(#[doc = $about] pub $key: $type,)*
            }
        )*

        /// All settings in force. A field has the name of its key.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $(#[doc = concat!("`[", stringify!($section), "]`")] pub $section: $Section,)*
            pub(super) said: Said,
        }

        impl Settings {
            /// The settings that follow from what was said; the default where nothing was.
            pub(super) fn of(said: Said) -> Self {
                Self {
                    $($section: $Section {
                        $($key: said.value(concat!(stringify!($section), ".", stringify!($key)))
                            .unwrap_or_else(|| $default),)*
                    },)*
                    said,
                }
            }
        }

        pub(super) const SECTIONS: &[&str] = &[$(stringify!($section),)* RESERVED_SECTION];

        /// Every setting, by section.
        pub const KEYS: &[Key] = &[$($(Key {
            name: concat!(stringify!($section), ".", stringify!($key)),
            kind: $kind,
            reload: Reload::$reload,
            about: $about,
            value: |settings| settings.$section.$key.show(),
        },)*)*];
    };
}

/// A section that may stand in the file and has no keys yet.
const RESERVED_SECTION: &str = "metrics";
const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];
/// A timer: long enough to make progress, short enough to notice.
const TIMER: Kind = Integer(100, 600_000);
const BACKOFF: Kind = Integer(100, 3_600_000);
const COUNT: Kind = Integer(1, 65_536);
const DAYS: Kind = Integer(1, 36_500);
const BODY: Kind = Integer(1024, 16 << 20);
const STORE: Kind = Integer(1 << 20, 1 << 50);

/// The broker states its own defaults.
fn broker() -> claudemesh_broker::Settings {
    claudemesh_broker::Settings::default()
}

settings! {
    daemon: DaemonSettings {
        display_name: Option<String> = None, Text(128), Applies, "the name peers see; else that of config.json";
        log_level: String = "info".into(), Choice(LOG_LEVELS), NeedsRestart, "the least severe level that is logged";
    }
    ipc: IpcSettings {
        tcp_enabled: bool = true, Bool, NeedsRestart, "listen on loopback TCP beside the socket";
        http_port: u16 = 47_823, Integer(0, 65_535), NeedsRestart, "the loopback TCP port; 0 lets the system choose";
        public_health_check: bool = false, Bool, NeedsRestart, "answer GET /v1/health on TCP without the token";
        connections_max: usize = http::CONNECTIONS_MAX, COUNT, NeedsRestart, "open connections";
        requests_max: usize = 512, COUNT, NeedsRestart, "requests in flight, streams apart";
        streams_max: usize = 32, Integer(1, 4096), NeedsRestart, "open event streams";
        send_body_bytes_max: usize = 256 << 10, BODY, NeedsRestart, "body of POST /v1/send";
        requeue_body_bytes_max: usize = 256 << 10, BODY, NeedsRestart, "body of POST /v1/outbox/requeue";
        seen_body_bytes_max: usize = 64 << 10, BODY, NeedsRestart, "body of POST /v1/inbox/seen";
        body_bytes_max: usize = 16 << 10, BODY, NeedsRestart, "any other body";
        head_ms: Duration = http::HEAD_ARRIVAL_MAX, TIMER, NeedsRestart, "time for a header block to arrive";
        request_ms: Duration = http::REQUEST_ARRIVAL_MAX, TIMER, NeedsRestart, "time for a whole request to arrive";
        stall_ms: Duration = http::WRITE_STALL_MAX, TIMER, NeedsRestart, "time an answer may wait for its reader";
        idle_ms: Duration = http::IDLE_MAX, TIMER, NeedsRestart, "time a connection may stay idle";
    }
    outbox: OutboxSettings {
        max_age_hours: Option<u64> = None, Integer(1, retry::MAX_AGE_HOURS_MAX), Applies, "age at which a row expires; else what the broker's window allows";
        backoff_cap_ms: u64 = retry::BACKOFF_CAP_MS, BACKOFF, NeedsRestart, "longest wait between attempts";
        max_bytes: u64 = 5 << 30, STORE, NeedsRestart, "what pending, inflight and failed messages may weigh";
    }
    inbox: InboxSettings {
        retention_days: u32 = 30, DAYS, NeedsRestart, "how long what arrived is kept";
        max_bytes: u64 = 5 << 30, STORE, NeedsRestart, "size of the inbox; beyond it the oldest goes";
    }
    disk: DiskSettings {
        reserved_bytes: u64 = broker().disk_reserved_bytes, Integer(0, 1 << 50), NeedsRestart, "what stays free on the disk; below it nothing new is stored";
    }
    link: LinkSettings {
        hello_ms: Duration = timers::HELLO_MAX, TIMER, Applies, "time for a broker to answer the hello";
        ack_ms: Duration = Duration::from_secs(15), TIMER, Applies, "time for a broker to answer a send";
        negotiation_ms: Duration = timers::NEGOTIATION_MAX, TIMER, Applies, "time for a broker to answer the negotiation";
        ping_ms: Duration = timers::PING_EVERY, TIMER, Applies, "time between pings";
        dead_ms: Duration = timers::DEAD_AFTER, TIMER, Applies, "silence after which a link is dead; more than link.ping_ms";
        backoff_cap_ms: u64 = retry::RECONNECT_CAP_MS, BACKOFF, Applies, "longest wait before dialling again";
        inflight_max: usize = 256, Integer(1, 4096), NeedsRestart, "sends in flight on one link";
    }
    reconnect: ReconnectSettings {
        stable_ms: Duration = timers::STABLE_AFTER, TIMER, Applies, "time a link stays open before its backoff starts over";
    }
    features: FeatureSettings {
        require: Vec<String> = FeaturePolicy::default().require, NamesOf(&FEATURES), Applies, "features a broker must have";
        optional: Vec<String> = FeaturePolicy::default().optional, NamesOf(&FEATURES), Applies, "features used where a broker has them";
        allow_legacy_broker: LegacyBrokers = LegacyBrokers::Only(Vec::new()), NamesOrBool, Applies, "meshes whose broker may lack them: slugs, or true for all";
    }
    broker: BrokerSettings {
        listen: SocketAddr = claudemesh_broker::LISTEN_DEFAULT, Address, NeedsRestart, "where the embedded broker listens";
        lease_ms: u64 = broker().lease_ms, Integer(1000, 600_000), NeedsRestart, "time for a receiver to acknowledge a push";
        presence_lease_ms: u64 = broker().presence_lease_ms, Integer(0, 3_600_000), NeedsRestart, "time a lost peer stays in the roster";
        rate_burst: u32 = 0, Integer(0, 1_000_000), NeedsRestart, "sends a member may make at once; 0 is no limit";
        rate_per_s: u32 = 1, Integer(1, 1_000_000), NeedsRestart, "sends a member regains per second";
        retention_days: DedupeWindow = broker().dedupe_retention_days.map_or(DedupeWindow::Permanent, DedupeWindow::Days), IntegerOr(3, 36_500, super::kind::PERMANENT), NeedsRestart, "how long ids are remembered";
        connections_max: usize = broker().connections_per_mesh_max, COUNT, NeedsRestart, "connections per mesh";
        mail_days: u32 = broker().undelivered_days, DAYS, NeedsRestart, "how long undelivered mail is kept";
    }
}
