//! When a row is due again, and when it is too old (§4.6, §4.9). Pure: the jitter and the time are
//! arguments.

use core::time::Duration;

/// The first back-off step.
pub const BACKOFF_BASE_MS: u64 = 500;
/// The longest back-off of a row where `outbox.backoff_cap_ms` does not say otherwise; the drain
/// applies the setting.
pub const BACKOFF_CAP_MS: u64 = 5 * 60 * 1000;
/// The longest back-off of a link where `link.backoff_cap_ms` does not say otherwise (§15.5).
pub const RECONNECT_CAP_MS: u64 = 30 * 1000;
const RECONNECT_BASE_MS: u64 = 1000;

/// How many hours a message is kept trying when nothing narrower applies (§4.9).
pub const MAX_AGE_HOURS_DEFAULT: u64 = 168;
/// The longest an operator may ask for (§4.9).
pub const MAX_AGE_HOURS_MAX: u64 = 720;

/// How long to wait after attempt number `attempts` (1 is the first): full jitter over
/// `500 ms · 2^n`, at most `cap_ms`. `jitter` is uniform over all of `u32`.
///
/// The delay is never zero: a row that comes straight back is a loop.
#[must_use]
pub fn backoff_ms(attempts: u32, cap_ms: u64, jitter: u32) -> u64 {
    full_jitter(BACKOFF_BASE_MS, attempts, cap_ms, jitter)
}

/// How long to wait before dialling again after `failures` failures in a row (1 is the first):
/// full jitter over 1, 2, 4, 8, 16, 30 s, at most `cap_ms` (§15.5).
#[must_use]
pub fn reconnect_ms(failures: u32, cap_ms: u64, jitter: u32) -> u64 {
    full_jitter(RECONNECT_BASE_MS, failures, cap_ms, jitter)
}

/// The pause after failure number `nth` (1 is the first): `base`, twice as long after each further
/// failure, at most `cap`.
#[must_use]
pub fn doubling(base: Duration, nth: u32, cap: Duration) -> Duration {
    let doublings = nth.saturating_sub(1).min(31);
    base.saturating_mul(1 << doublings).min(cap)
}

fn full_jitter(base_ms: u64, nth: u32, cap_ms: u64, jitter: u32) -> u64 {
    let [base, cap] = [base_ms, cap_ms].map(Duration::from_millis);
    let share = (doubling(base, nth, cap).as_millis() * u128::from(jitter)) >> 32;
    (share as u64).max(1)
}

/// A broker's promise to remember ids, as negotiated (§15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DedupeWindow {
    /// Ids are forgotten after this many days (at least 3).
    Days(u32),
    /// Ids are never forgotten.
    Permanent,
}

/// An `outbox.max_age_hours` that the mesh's dedupe window cannot cover (§4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AboveWindow {
    /// The most this mesh allows, in hours.
    pub hours_max: u64,
}

/// How old a row may get before it expires, in hours (§4.9).
///
/// # Errors
/// When the override is above what the broker's dedupe window allows.
pub fn max_age_hours(
    retention: DedupeWindow,
    override_hours: Option<u64>,
) -> Result<u64, AboveWindow> {
    let (default, ceiling) = match retention {
        DedupeWindow::Permanent => (MAX_AGE_HOURS_DEFAULT, MAX_AGE_HOURS_MAX),
        DedupeWindow::Days(days) => {
            let window = u64::from(days) * 24;
            let margin = 24.max(window.div_ceil(10));
            let formula = 72.max(window.saturating_sub(margin));
            let ceiling = window.saturating_sub(1);
            (MAX_AGE_HOURS_DEFAULT.min(formula).min(ceiling), MAX_AGE_HOURS_MAX.min(ceiling))
        }
    };
    match override_hours {
        None => Ok(default),
        Some(hours) if hours > ceiling => Err(AboveWindow { hours_max: ceiling }),
        Some(hours) => Ok(hours),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_the_cap_and_is_never_zero() {
        let ceilings: [u64; 5] = core::array::from_fn(|n| backoff_ms(n as u32 + 1, 3000, u32::MAX));
        assert_eq!(ceilings, [499, 999, 1999, 2999, 2999]);
        assert_eq!(backoff_ms(1, BACKOFF_CAP_MS, 0), 1);
        assert_eq!(backoff_ms(u32::MAX, BACKOFF_CAP_MS, u32::MAX), BACKOFF_CAP_MS - 1);
        assert_eq!(reconnect_ms(6, RECONNECT_CAP_MS, u32::MAX), RECONNECT_CAP_MS - 1);
    }

    #[test]
    fn max_age_follows_its_formula() {
        assert_eq!(max_age_hours(DedupeWindow::Days(365), None), Ok(168));
        assert_eq!(max_age_hours(DedupeWindow::Days(7), None), Ok(144));
        assert_eq!(max_age_hours(DedupeWindow::Days(3), None), Ok(71));
        assert_eq!(max_age_hours(DedupeWindow::Permanent, None), Ok(168));
        assert_eq!(max_age_hours(DedupeWindow::Permanent, Some(720)), Ok(720));
        assert_eq!(
            max_age_hours(DedupeWindow::Days(7), Some(168)),
            Err(AboveWindow { hours_max: 167 })
        );
    }
}
