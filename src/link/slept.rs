//! Whether the host slept: its wall clock moved ahead of its monotonic one (§14).
//!
//! Nothing wakes up for this: it is asked when a link looks around anyway.

use crate::clock::Clock;

/// Wall time that gains this much on monotonic time, in milliseconds, was slept through, or the
/// clock was set. Less is a clock being corrected, or a sleep that a connection survives.
const SLEPT_MS_MIN: i64 = 5_000;

/// What was last seen of the two clocks.
pub(super) struct Slept {
    /// Wall time minus monotonic time, in milliseconds.
    offset_ms: i64,
}

impl Slept {
    pub(super) fn new(clock: &Clock) -> Self {
        Self { offset_ms: offset_ms(clock) }
    }

    /// Whether the host slept since this was last asked.
    pub(super) fn noticed(&mut self, clock: &Clock) -> bool {
        let before = self.offset_ms;
        self.forget(clock);
        self.offset_ms.saturating_sub(before) >= SLEPT_MS_MIN
    }

    /// What was until now does not count.
    pub(super) fn forget(&mut self, clock: &Clock) {
        self.offset_ms = offset_ms(clock);
    }
}

fn offset_ms(clock: &Clock) -> i64 {
    let monotonic_ms = i64::try_from(clock.monotonic().as_millis()).unwrap_or(i64::MAX);
    clock.now().0.saturating_sub(monotonic_ms)
}
