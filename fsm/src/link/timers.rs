//! A link's timers, and what its silence means. The time is an argument.

use crate::retry;
use core::time::Duration;

/// How long a broker may take to answer a hello.
pub const HELLO_MAX: Duration = Duration::from_secs(5);
/// How long a broker may take to answer a negotiation; then it counts as silent (§15).
pub const NEGOTIATION_MAX: Duration = Duration::from_secs(3);
/// How often an open link is pinged.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// After how much silence an open link is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(75);
/// How long a link must have been open for its earlier failures to be forgotten.
pub const STABLE_AFTER: Duration = Duration::from_secs(60);
/// How many times the back-off cap a slow wait lasts at most; at least half of that.
pub const SLOW_CAPS: u64 = 10;

/// A link's timers, all from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// See [`HELLO_MAX`].
    pub hello_max: Duration,
    /// See [`NEGOTIATION_MAX`].
    pub negotiation_max: Duration,
    /// See [`PING_EVERY`].
    pub ping_every: Duration,
    /// See [`DEAD_AFTER`].
    pub dead_after: Duration,
    /// See [`STABLE_AFTER`].
    pub stable_after: Duration,
    /// The longest back-off, in milliseconds.
    pub cap_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            hello_max: HELLO_MAX,
            negotiation_max: NEGOTIATION_MAX,
            ping_every: PING_EVERY,
            dead_after: DEAD_AFTER,
            stable_after: STABLE_AFTER,
            cap_ms: retry::RECONNECT_CAP_MS,
        }
    }
}

/// What an open link is to do about silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepaliveAction {
    /// Nothing before this instant.
    SleepUntil(Duration),
    /// Send a ping now.
    Ping,
    /// Nobody is there any more.
    Dead,
}

impl Timers {
    /// Looks at an open link: `last_heard` is when anything at all last arrived, `last_ping` when
    /// a ping was last sent. Both are the time of opening at first.
    #[must_use]
    pub fn keepalive(
        &self,
        last_heard: Duration,
        last_ping: Duration,
        now: Duration,
    ) -> KeepaliveAction {
        let dead_at = last_heard.saturating_add(self.dead_after);
        let ping_at = last_ping.saturating_add(self.ping_every);
        if now >= dead_at {
            KeepaliveAction::Dead
        } else if now >= ping_at {
            KeepaliveAction::Ping
        } else {
            KeepaliveAction::SleepUntil(ping_at.min(dead_at))
        }
    }
}
