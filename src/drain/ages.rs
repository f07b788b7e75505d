//! How old a row may look, and when the clock cannot be asked (§4.6, §4.9).

use crate::clock::Clock;
use claudemesh_fsm::id::Millis;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Wall time that moves this much against monotonic time has jumped.
const CLOCK_JUMP_MS_MIN: u64 = 2_000;

/// What the drain knows of the clock from one claim to the next.
pub(super) struct Ages(Mutex<Seen>);

struct Seen {
    /// Wall time minus monotonic time: constant until the clock jumps.
    offset_ms: i64,
    /// Monotonic time from which a row's age means something.
    trusted_from: Duration,
}

impl Ages {
    pub(super) fn new(clock: &Clock) -> Self {
        Self(Mutex::new(Seen { offset_ms: offset_ms(clock), trusted_from: Duration::ZERO }))
    }

    /// Rows accepted before the first are too old; the second says whether the clock jumped, by a
    /// suspend or by somebody who set it, and says so until [`dealt_with`](Self::dealt_with).
    ///
    /// A jump may make any row look old, so nothing expires until as much time as a row may wait
    /// has really passed since.
    pub(super) fn look(&self, clock: &Clock, max_age_ms: u64) -> (Millis, bool) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offset_ms = offset_ms(clock);
        let jumped = offset_ms.abs_diff(seen.offset_ms) > CLOCK_JUMP_MS_MIN;
        if jumped {
            seen.trusted_from = clock.monotonic() + Duration::from_millis(max_age_ms);
        }
        let expired_before = if clock.monotonic() < seen.trusted_from {
            Millis(i64::MIN)
        } else {
            Millis(clock.now().0.saturating_sub_unsigned(max_age_ms))
        };
        (expired_before, jumped)
    }

    /// Every waiting row is due by the clock as it is now: only then is a jump over.
    pub(super) fn dealt_with(&self, clock: &Clock) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).offset_ms = offset_ms(clock);
    }
}

fn offset_ms(clock: &Clock) -> i64 {
    clock.now().0 - i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX)
}
