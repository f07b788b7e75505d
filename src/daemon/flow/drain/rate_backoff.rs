//! How a broker's rate limit slows the link (§4.6): each refusal in a row doubles the pause.

use claudemesh_fsm::retry::doubling;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a first rate-limit answer stops the link; each further one doubles it.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest a rate-limit answer stops the link.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What the drain knows of the broker's patience.
#[derive(Debug, Default)]
pub(super) struct RateBackoff(Mutex<BackoffState>);

#[derive(Debug, Default)]
struct BackoffState {
    refusals: u32,
    paused_until: Duration,
}

impl RateBackoff {
    /// Until when nothing is claimed, on the monotonic clock.
    pub(super) fn paused_until(&self) -> Duration {
        self.lock().paused_until
    }

    /// The broker took a message: it is patient again.
    pub(super) fn on_accepted(&self) {
        self.lock().refusals = 0;
    }

    /// The broker said at `now` that we are too fast: how long the refused row waits.
    pub(super) fn on_rate_limited(&self, now: Duration) -> Duration {
        let mut state = self.lock();
        // Answers to sends that were under way together count as one.
        let rest = state.paused_until.saturating_sub(now);
        if !rest.is_zero() {
            return rest;
        }
        state.refusals = state.refusals.saturating_add(1);
        let pause = doubling(PAUSE, state.refusals, PAUSE_MAX);
        state.paused_until = now + pause;
        pause
    }

    fn lock(&self) -> MutexGuard<'_, BackoffState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_sends_that_were_under_way_together_count_as_one() {
        let rate_backoff = RateBackoff::default();
        let now = Duration::from_secs(100);
        assert_eq!(rate_backoff.on_rate_limited(now), PAUSE);
        for more in 1..256 {
            let later = now + Duration::from_millis(more);
            assert_eq!(later + rate_backoff.on_rate_limited(later), now + PAUSE);
        }
        assert_eq!(rate_backoff.paused_until(), now + PAUSE);
    }

    #[test]
    fn a_broker_that_stays_impatient_is_asked_less_and_less_often() {
        let rate_backoff = RateBackoff::default();
        let mut now = Duration::ZERO;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(rate_backoff.on_rate_limited(now), Duration::from_secs(seconds));
            now = rate_backoff.paused_until();
        }
        rate_backoff.on_accepted();
        assert_eq!(rate_backoff.on_rate_limited(now), PAUSE);
    }
}
