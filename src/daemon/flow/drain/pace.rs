//! How a broker's rate limit slows the link (§4.6): each refusal in a row doubles the pause.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a first rate-limit answer stops the link; each further one doubles it.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest a rate-limit answer stops the link.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often the pause doubles at the most.
const DOUBLINGS_MAX: u32 = 5;

/// What the drain knows of the broker's patience.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Learned>);

#[derive(Debug, Default)]
struct Learned {
    refusals: u32,
    paused_until: Duration,
}

impl Pace {
    /// Until when nothing is claimed, on the monotonic clock.
    pub(super) fn paused_until(&self) -> Duration {
        self.lock().paused_until
    }

    /// The broker took a message: it is patient again.
    pub(super) fn accepted(&self) {
        self.lock().refusals = 0;
    }

    /// The broker said at `now` that we are too fast: how long the refused row waits.
    pub(super) fn limited(&self, now: Duration) -> Duration {
        let mut learned = self.lock();
        // Answers to sends that were under way together count as one.
        let rest = learned.paused_until.saturating_sub(now);
        if !rest.is_zero() {
            return rest;
        }
        let doublings = learned.refusals.min(DOUBLINGS_MAX);
        let pause = (PAUSE * (1 << doublings)).min(PAUSE_MAX);
        learned.refusals = learned.refusals.saturating_add(1);
        learned.paused_until = now + pause;
        pause
    }

    fn lock(&self) -> MutexGuard<'_, Learned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_sends_that_were_under_way_together_count_as_one() {
        let pace = Pace::default();
        let now = Duration::from_secs(100);
        assert_eq!(pace.limited(now), PAUSE);
        for more in 1..256 {
            let later = now + Duration::from_millis(more);
            assert_eq!(later + pace.limited(later), now + PAUSE);
        }
        assert_eq!(pace.paused_until(), now + PAUSE);
    }

    #[test]
    fn a_broker_that_stays_impatient_is_asked_less_and_less_often() {
        let pace = Pace::default();
        let mut now = Duration::ZERO;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(pace.limited(now), Duration::from_secs(seconds));
            now = pace.paused_until();
        }
        pace.accepted();
        assert_eq!(pace.limited(now), PAUSE);
    }
}
