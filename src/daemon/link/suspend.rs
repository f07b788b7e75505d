//! Whether the host slept: its wall clock moved ahead of its monotonic one (§14).
//!
//! Nothing wakes up for this: it is asked when a link looks around anyway.

use claudemesh_base::runtime::Runtime;

/// Wall time that gains this much on monotonic time, in milliseconds, was slept through, or the
/// clock was set. Less is a clock being corrected, or a sleep that a connection survives.
const SUSPENDED_MS_MIN: i64 = 5_000;

/// What was last seen of the two clocks.
pub(super) struct SuspendDetector {
    /// Wall time minus monotonic time, in milliseconds.
    offset_ms: i64,
}

impl SuspendDetector {
    pub(super) fn new(runtime: &Runtime) -> Self {
        Self { offset_ms: runtime.wall_offset_ms() }
    }

    /// Whether the host slept since this was last asked.
    pub(super) fn has_suspended(&mut self, runtime: &Runtime) -> bool {
        let before = self.offset_ms;
        self.forget(runtime);
        self.offset_ms.saturating_sub(before) >= SUSPENDED_MS_MIN
    }

    /// What was until now does not count.
    pub(super) fn forget(&mut self, runtime: &Runtime) {
        self.offset_ms = runtime.wall_offset_ms();
    }
}
