//! Why a link is down, how soon it may be tried again, and what an operator can do about it: the
//! table of close codes (`specs/wire.md`) and §15.6, once.

use super::Closed;
use crate::negotiate;

/// How soon a link may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    /// After the usual back-off.
    Backoff,
    /// After minutes: trying sooner hurts somebody, or cannot help.
    Slow,
    /// Not before an operator acts.
    Never,
}

/// Why a link is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No connection could be made.
    DialFailed,
    /// The hello was not answered in time.
    HelloTimeout,
    /// A broker that negotiates did not answer the negotiation in time.
    NegotiationTimeout,
    /// The connection ended, and nothing says why.
    Closed,
    /// The broker is going away.
    ShuttingDown,
    /// Nothing was heard for too long.
    Dead,
    /// Another connection took our session. Waits slowly: two owners of one session would throw
    /// each other out for ever, and the other may be our own successor.
    SessionReplaced,
    /// Our clock and the broker's disagree.
    ClockSkew,
    /// The broker is full.
    Capacity,
    /// The broker knows no such member. Waits slowly: membership can come back without us.
    Unauthorized,
    /// The broker rejects our hello. Waits slowly: broker and keys may be put right without us.
    HelloRejected,
    /// A frame of ours was too large; the row that it carried must not be sent again.
    FrameTooLarge,
    /// An admin closed this connection.
    Kicked,
    /// Our membership was revoked or banned.
    Revoked,
    /// A newer connection of our member key took over (4003).
    ReplacedByNewer,
    /// An older connection of our member key stays (4004).
    AlreadyConnected,
    /// The broker's features will not do (4010).
    Negotiation,
    /// `outbox.max_age_hours` is more than the broker's dedupe window covers.
    MaxAge,
    /// The broker closed with a code of its own that we do not know.
    UnknownCode,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 19] = [
        Self::DialFailed,
        Self::HelloTimeout,
        Self::NegotiationTimeout,
        Self::Closed,
        Self::ShuttingDown,
        Self::Dead,
        Self::SessionReplaced,
        Self::ClockSkew,
        Self::Capacity,
        Self::Unauthorized,
        Self::HelloRejected,
        Self::FrameTooLarge,
        Self::Kicked,
        Self::Revoked,
        Self::ReplacedByNewer,
        Self::AlreadyConnected,
        Self::Negotiation,
        Self::MaxAge,
        Self::UnknownCode,
    ];

    /// The word for metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DialFailed => "dial_failed",
            Self::HelloTimeout => "hello_timeout",
            Self::NegotiationTimeout => "negotiation_timeout",
            Self::Closed => "closed",
            Self::ShuttingDown => "broker_shutting_down",
            Self::Dead => "dead",
            Self::SessionReplaced => "session_replaced",
            Self::ClockSkew => "clock_skew",
            Self::Capacity => "capacity",
            Self::Unauthorized => "unauthorized",
            Self::HelloRejected => "hello_rejected",
            Self::FrameTooLarge => "frame_too_large",
            Self::Kicked => "kicked",
            Self::Revoked => "revoked",
            Self::ReplacedByNewer => "replaced_by_newer_connection",
            Self::AlreadyConnected => "member_already_connected",
            Self::Negotiation => "negotiation",
            Self::MaxAge => negotiate::MAX_AGE_REASON,
            Self::UnknownCode => "unknown_close_code",
        }
    }

    /// How soon to try again.
    #[must_use]
    pub const fn retry_policy(self) -> RetryPolicy {
        match self {
            Self::DialFailed
            | Self::HelloTimeout
            | Self::NegotiationTimeout
            | Self::Closed
            | Self::ShuttingDown
            | Self::Dead
            | Self::ClockSkew
            | Self::FrameTooLarge => RetryPolicy::Backoff,
            Self::SessionReplaced
            | Self::Capacity
            | Self::Unauthorized
            | Self::HelloRejected
            | Self::UnknownCode => RetryPolicy::Slow,
            Self::Kicked
            | Self::Revoked
            | Self::ReplacedByNewer
            | Self::AlreadyConnected
            | Self::Negotiation
            | Self::MaxAge => RetryPolicy::Never,
        }
    }

    /// What an operator can do; `None` where time alone will help.
    #[must_use]
    pub const fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::Closed | Self::ShuttingDown | Self::Dead => return None,
            Self::DialFailed => "check the network, and the broker's address in config.json",
            Self::HelloTimeout => "check that the address is a claudemesh broker's",
            Self::NegotiationTimeout => {
                "the broker is slow: if it stays so, raise link.negotiation_ms in config.toml"
            }
            Self::SessionReplaced => {
                "stop the other program that uses this session; `claudemesh daemon reload` if there is none"
            }
            Self::ClockSkew => "set this host's clock: it must be within 60 s of the broker's",
            Self::Capacity => {
                "the mesh is full: disconnect other clients, or ask the broker's operator"
            }
            Self::Unauthorized => {
                "this key is not a member of the mesh: take the mesh out of config.json, `claudemesh join <invite>`, then `claudemesh daemon down` and `claudemesh daemon up`"
            }
            Self::HelloRejected => {
                "check the mesh's keys in config.json; or take the mesh out of it, `claudemesh join <invite>`, then `claudemesh daemon down` and `claudemesh daemon up`"
            }
            Self::FrameTooLarge => "send smaller messages: one was larger than the broker accepts",
            Self::Kicked => {
                "an admin disconnected this daemon; `claudemesh daemon reload` tries again, or `daemon up` where it has ended"
            }
            Self::Revoked => {
                "ask an admin of the mesh for a new invite, take the mesh out of config.json, `claudemesh join <invite>`, then `claudemesh daemon down` and `claudemesh daemon up`"
            }
            Self::ReplacedByNewer | Self::AlreadyConnected => {
                "another install uses this member key. If this is the right one: stop the other, then `claudemesh daemon reload`, or `claudemesh daemon up` where the daemon has ended. If this is a copy: ask an admin of the mesh for an invite, then `claudemesh join <invite> --home <new directory>` and `claudemesh daemon up --home <new directory>`"
            }
            Self::Negotiation => "ask the broker's operator which features it expects",
            Self::MaxAge => "lower outbox.max_age_hours",
            Self::UnknownCode => {
                "look the code up with the broker's operator, or update this daemon"
            }
        })
    }

    /// What the code of an `error` frame in answer to a hello means (`specs/wire.md`). The
    /// reason of a close 1008 is the same word.
    #[must_use]
    pub fn of_hello(code: &str) -> Self {
        match code {
            // An attestation is made anew for each connection: only a clock can spoil it.
            "timestamp_skew" | "expired" | "ttl_too_long" => Self::ClockSkew,
            "capacity" => Self::Capacity,
            "unauthorized" => Self::Unauthorized,
            // The broker's own trouble, and nothing of ours.
            "unavailable" | "busy" => Self::Closed,
            "revoked" | "banned" => Self::Revoked,
            "member_already_connected" => Self::AlreadyConnected,
            _ => Self::HelloRejected,
        }
    }

    /// What a close frame, or its absence, means.
    #[must_use]
    pub fn of_close(closed: &Closed) -> Self {
        match closed.code {
            Some(1000) if closed.reason == "session_replaced" => Self::SessionReplaced,
            Some(1001) => Self::ShuttingDown,
            Some(1008) => Self::of_hello(&closed.reason),
            Some(1009) => Self::FrameTooLarge,
            Some(4001) => Self::Kicked,
            Some(4002) => Self::Revoked,
            Some(4003) => Self::ReplacedByNewer,
            Some(4004) => Self::AlreadyConnected,
            Some(negotiate::CLOSE_CODE) => Self::Negotiation,
            Some(4000..) => Self::UnknownCode,
            Some(_) | None => Self::Closed,
        }
    }
}
