//! How old a row may look, and when the clock cannot be asked (§4.6, §4.9).

use claudemesh_base::runtime::Runtime;
use claudemesh_fsm::id::Millis;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Wall time that moves this much against monotonic time has jumped.
const CLOCK_JUMP_MS_MIN: u64 = 2_000;

/// What the drain knows of the clock from one claim to the next.
pub(super) struct ExpiryGuard(Mutex<ClockOffset>);

struct ClockOffset {
    /// Wall time minus monotonic time: constant until the clock jumps.
    offset_ms: i64,
    /// Monotonic time from which a row's age means something.
    trusted_from: Duration,
}

impl ExpiryGuard {
    pub(super) fn new(runtime: &Runtime) -> Self {
        Self(Mutex::new(ClockOffset {
            offset_ms: runtime.wall_offset_ms(),
            trusted_from: Duration::ZERO,
        }))
    }

    /// Rows accepted before the first are too old; the second says whether the clock jumped, by a
    /// suspend or by somebody who set it, and says so until [`acknowledge_jump`](Self::acknowledge_jump).
    ///
    /// A jump may make any row look old, so nothing expires until as much time as a row may wait
    /// has really passed since.
    pub(super) fn expiry_cutoff(&self, runtime: &Runtime, max_age_ms: u64) -> (Millis, bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let offset_ms = runtime.wall_offset_ms();
        let jumped = offset_ms.abs_diff(known.offset_ms) > CLOCK_JUMP_MS_MIN;
        if jumped {
            known.trusted_from = runtime.monotonic() + Duration::from_millis(max_age_ms);
        }
        let expired_before = if runtime.monotonic() < known.trusted_from {
            Millis(i64::MIN)
        } else {
            Millis(runtime.now().0.saturating_sub_unsigned(max_age_ms))
        };
        (expired_before, jumped)
    }

    /// Every waiting row is due by the clock as it is now: only then is a jump over.
    pub(super) fn acknowledge_jump(&self, runtime: &Runtime) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).offset_ms = runtime.wall_offset_ms();
    }
}
