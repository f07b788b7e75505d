//! Where a link is that is down: waiting for its next try, or for an operator.

use super::{Cause, Closed, Dialing, Offline, RetryPolicy, SLOW_CAPS, Timers};
use crate::retry;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

/// Where a link goes that is not, or no longer, open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a link that goes nowhere stays down for ever"]
pub enum NextState {
    /// It is dialled again after a while.
    Wait(Waiting),
    /// It stays down until an operator acts.
    Refused(Refused),
}

/// What survives from one connection to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RetryState {
    pub(super) timers: Timers,
    pub(super) failures: u32,
}

impl RetryState {
    pub(super) fn next(
        self,
        cause: Cause,
        close_code: Option<u16>,
        reason: String,
        jitter: u32,
    ) -> NextState {
        match cause.retry_policy() {
            RetryPolicy::Never => {
                let remedy = cause.remedy().unwrap_or_default().to_owned();
                NextState::Refused(self.refused(cause, close_code, reason, remedy))
            }
            RetryPolicy::Backoff | RetryPolicy::Slow => {
                NextState::Wait(self.wait(cause, reason, jitter))
            }
        }
    }

    pub(super) fn wait(self, cause: Cause, reason: String, jitter: u32) -> Waiting {
        let failures = self.failures.saturating_add(1);
        let cap_ms = self.timers.cap_ms;
        let delay_ms = match cause.retry_policy() {
            RetryPolicy::Backoff => retry::reconnect_ms(failures, cap_ms, jitter),
            // Never near zero: what waits slowly is in somebody's way when it comes back.
            RetryPolicy::Slow | RetryPolicy::Never => {
                let half_ms = cap_ms.saturating_mul(SLOW_CAPS) / 2;
                let jitter_ms = (u128::from(half_ms) * u128::from(jitter)) >> 32;
                half_ms.saturating_add(jitter_ms as u64).max(1)
            }
        };
        Waiting { retry_state: Self { failures, ..self }, delay_ms, cause, reason }
    }

    pub(super) fn refused(
        self,
        cause: Cause,
        close_code: Option<u16>,
        reason: String,
        remedy: String,
    ) -> Refused {
        Refused { timers: self.timers, cause, close_code, reason, remedy }
    }

    pub(super) fn closed(self, closed: &Closed, jitter: u32) -> NextState {
        let cause = Cause::of_close(closed);
        let reason = match (closed.code, closed.reason.as_str()) {
            (None, "") => "the connection went away".to_owned(),
            (None, why) => why.to_owned(),
            (Some(code), "") => format!("closed by the broker: {code}"),
            (Some(code), why) => format!("closed by the broker: {code} {why}"),
        };
        self.next(cause, closed.code, reason, jitter)
    }
}

/// Down, and dialled again after a while.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Waiting {
    retry_state: RetryState,
    delay_ms: u64,
    cause: Cause,
    reason: String,
}

impl Waiting {
    /// How long to wait, in milliseconds; never zero.
    #[must_use]
    pub const fn delay_ms(&self) -> u64 {
        self.delay_ms
    }

    /// How many connections in a row failed.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.retry_state.failures
    }

    /// Why, as a word.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// Why, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What an operator can do, if anything.
    #[must_use]
    pub const fn remedy(&self) -> Option<&'static str> {
        self.cause.remedy()
    }

    /// The wait is over, or was cut short.
    pub fn redial(self) -> Dialing {
        Dialing { retry_state: self.retry_state }
    }
}

/// Down until an operator acts.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Refused {
    timers: Timers,
    cause: Cause,
    close_code: Option<u16>,
    reason: String,
    remedy: String,
}

impl Refused {
    /// Why, as a word.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// The close code it ended with, theirs or ours, if there was one.
    #[must_use]
    pub const fn close_code(&self) -> Option<u16> {
        self.close_code
    }

    /// Why, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What an operator can do.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// An operator acted: start over.
    pub fn reset(self) -> Offline {
        Offline::new(self.timers)
    }
}
