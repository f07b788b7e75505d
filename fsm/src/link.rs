//! How the connection to one broker lives and dies (§15.5).
//!
//! ```text
//! Offline ──▶ Dialing ──▶ Greeting ──▶ Negotiating ──▶ Open
//!             ▲    │         │              │            │
//!             │    ▼         ▼              ▼            ▼
//!             Waiting ◀──────┴──────────────┴────────────┤   tried again by itself
//!                            │              │            ▼
//!                            └──────────────┴───────▶ Refused   until an operator acts
//! ```
//!
//! Each state is a type that its moves consume. From [`Greeting`] on a state holds the socket `T`,
//! so that "open" and "can send" are one value: a link that reports open has something to send
//! with, and a link that lost its socket has nothing to report open with. The link does no I/O and
//! knows no clock: what happened comes in, with the monotonic time and the jitter where they
//! matter, and what is next comes out. A move that leaves a state drops its socket; whoever wants
//! to say goodbye does so first, through `socket_mut`.
//!
//! Stopping and re-dialling at once (shutdown, a reload, a clock jump) are the driver's: it drops
//! what it holds and starts over from [`Offline`]. An operator who acts gives a [`Refused`] link the
//! same fresh start.

mod cause;
mod down;
mod timers;

pub use cause::{Cause, RetryPolicy};
pub use down::{NextState, Refused, Waiting};
pub use timers::{
    DEAD_AFTER, HELLO_MAX, KeepaliveAction, NEGOTIATION_MAX, PING_EVERY, SLOW_CAPS, STABLE_AFTER,
    Timers,
};

use down::RetryState;

use crate::negotiate::{self, MaxAgeRefused, Negotiated};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use core::time::Duration;

/// The states by name, for `status` and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the state of the same name")]
pub enum LinkState {
    Offline,
    Dialing,
    Greeting,
    Negotiating,
    Open,
    Waiting,
    Refused,
}

impl LinkState {
    /// Every state, in the order of the graph.
    pub const ALL: [Self; 7] = [
        Self::Offline,
        Self::Dialing,
        Self::Greeting,
        Self::Negotiating,
        Self::Open,
        Self::Waiting,
        Self::Refused,
    ];

    /// The word in `status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Dialing => "dialing",
            Self::Greeting => "greeting",
            Self::Negotiating => "negotiating",
            Self::Open => "open",
            Self::Waiting => "waiting",
            Self::Refused => "refused",
        }
    }
}

/// How a socket ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closed {
    /// The code of the close frame; `None` if the connection just went away.
    pub code: Option<u16>,
    /// The reason of the close frame, or what went wrong locally.
    pub reason: String,
}

/// A broker's `error` frame in answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HelloError {
    /// Its `code`.
    pub code: String,
    /// By how much our clock is ahead of the broker's, in milliseconds, if it said what time it is.
    pub ahead_ms: Option<i64>,
}

impl HelloError {
    fn reason(&self) -> String {
        let code = &self.code;
        match self.ahead_ms.filter(|_| Cause::of_hello(code) == Cause::ClockSkew) {
            None => format!("hello rejected: {code}"),
            Some(ms) => {
                let (seconds, way) =
                    (ms.unsigned_abs() / 1000, if ms < 0 { "behind" } else { "ahead of" });
                format!(
                    "hello rejected: {code}: this host's clock is {seconds} s {way} the broker's"
                )
            }
        }
    }
}

/// Not connected, and not trying.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Offline {
    retry_state: RetryState,
}

impl Offline {
    /// A link that has never been tried.
    pub const fn new(timers: Timers) -> Self {
        Self { retry_state: RetryState { timers, failures: 0 } }
    }

    /// Starts to connect.
    pub fn dial(self) -> Dialing {
        Dialing { retry_state: self.retry_state }
    }
}

/// Connecting.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Dialing {
    retry_state: RetryState,
}

impl Dialing {
    /// There is a socket, and the hello was sent at `now`.
    pub fn connected<T>(self, socket: T, now: Duration) -> Greeting<T> {
        let deadline = now.saturating_add(self.retry_state.timers.hello_max);
        Greeting { retry_state: self.retry_state, socket, deadline }
    }

    /// There is none; `why` in words.
    pub fn failed(self, why: &str, jitter: u32) -> Waiting {
        self.retry_state.wait(Cause::DialFailed, format!("cannot connect: {why}"), jitter)
    }
}

/// Connected, the hello unanswered.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Greeting<T> {
    retry_state: RetryState,
    socket: T,
    deadline: Duration,
}

impl<T> Greeting<T> {
    /// When the broker is too late.
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The socket.
    pub const fn socket_mut(&mut self) -> &mut T {
        &mut self.socket
    }

    /// The broker knows us, and the negotiation was asked for at `now`.
    pub fn greeted(self, now: Duration) -> Negotiating<T> {
        let deadline = now.saturating_add(self.retry_state.timers.negotiation_max);
        Negotiating { retry_state: self.retry_state, socket: self.socket, deadline }
    }

    /// The broker does not want us. Its close frame may follow, and says nothing more.
    pub fn rejected(self, error: &HelloError, jitter: u32) -> NextState {
        self.retry_state.next(Cause::of_hello(&error.code), None, error.reason(), jitter)
    }

    /// The broker said nothing in time.
    pub fn timed_out(self, jitter: u32) -> Waiting {
        self.retry_state.wait(
            Cause::HelloTimeout,
            "hello was not answered in time".to_owned(),
            jitter,
        )
    }

    /// The socket ended.
    pub fn closed(self, closed: &Closed, jitter: u32) -> NextState {
        self.retry_state.closed(closed, jitter)
    }
}

/// Greeted, the negotiation unanswered. What it leads to is [`negotiate`]'s to say.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Negotiating<T> {
    retry_state: RetryState,
    socket: T,
    deadline: Duration,
}

impl<T> Negotiating<T> {
    /// When the broker counts as silent ([`negotiate::on_no_answer`]).
    #[must_use]
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The socket.
    pub const fn socket_mut(&mut self) -> &mut T {
        &mut self.socket
    }

    /// Both sides agree.
    pub fn agreed(self, negotiated: Negotiated, now: Duration) -> Open<T> {
        Open {
            retry_state: self.retry_state,
            socket: self.socket,
            negotiated,
            opened_at: now,
            delivered: false,
        }
    }

    /// The broker's features will not do: say so with [`negotiate::CLOSE_CODE`].
    pub fn refused(self, refusal: &negotiate::NegotiationError) -> Refused {
        let (code, remedy) = (Some(negotiate::CLOSE_CODE), refusal.remedy().to_owned());
        self.retry_state.refused(Cause::Negotiation, code, refusal.to_string(), remedy)
    }

    /// The broker said that it negotiates, and did not answer in time.
    pub fn timed_out(self, jitter: u32) -> Waiting {
        let reason = "the broker did not answer the negotiation in time".to_owned();
        self.retry_state.wait(Cause::NegotiationTimeout, reason, jitter)
    }

    /// Our own `outbox.max_age_hours` will not do with this broker (§4.9).
    pub fn max_age_refused(self, refused: MaxAgeRefused) -> Refused {
        let remedy = format!("set outbox.max_age_hours to {} or less", refused.hours_max);
        self.retry_state.refused(Cause::MaxAge, None, refused.to_string(), remedy)
    }

    /// The socket ended.
    pub fn closed(self, closed: &Closed, jitter: u32) -> NextState {
        self.retry_state.closed(closed, jitter)
    }
}

/// In use.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Open<T> {
    retry_state: RetryState,
    socket: T,
    negotiated: Negotiated,
    opened_at: Duration,
    delivered: bool,
}

impl<T> Open<T> {
    /// The socket.
    pub const fn socket(&self) -> &T {
        &self.socket
    }

    /// The socket.
    pub const fn socket_mut(&mut self) -> &mut T {
        &mut self.socket
    }

    /// What was agreed.
    pub const fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Since when it is open.
    #[must_use]
    pub const fn opened_at(&self) -> Duration {
        self.opened_at
    }

    /// Something got through, in either direction: this connection is worth coming back to.
    pub const fn note_delivery(&mut self) {
        self.delivered = true;
    }

    /// The socket ended.
    pub fn closed(self, closed: &Closed, now: Duration, jitter: u32) -> NextState {
        self.into_retry_state(now).closed(closed, jitter)
    }

    /// Nothing was heard for too long ([`Timers::keepalive`]).
    pub fn dead(self, now: Duration, jitter: u32) -> Waiting {
        let reason = "nothing heard from the broker for too long".to_owned();
        self.into_retry_state(now).wait(Cause::Dead, reason, jitter)
    }

    /// A `member_revoked` or `keypair_revoked` push was about us (§15.6); `event` is its name.
    pub fn revoked(self, event: &str) -> Refused {
        let remedy = Cause::Revoked.remedy().unwrap_or_default().to_owned();
        self.retry_state.refused(Cause::Revoked, None, format!("the broker says {event}"), remedy)
    }

    fn into_retry_state(self, now: Duration) -> RetryState {
        let stable = now.saturating_sub(self.opened_at) >= self.retry_state.timers.stable_after;
        let failures = if stable || self.delivered { 0 } else { self.retry_state.failures };
        RetryState { failures, ..self.retry_state }
    }
}

#[cfg(test)]
mod tests;
