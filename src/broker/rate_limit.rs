//! The rate limit of phase B1: a token bucket per member, off unless configured (§17.1). Time is an
//! argument.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Ids remembered per member as already charged, so that a retry in the same window is free.
const CHARGED_MAX: usize = 1024;
/// Members whose buckets are kept; beyond it, full buckets are dropped.
const BUCKETS_MAX: usize = 4096;

/// How fast one member may send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Messages that may come at once.
    pub burst: u32,
    /// Messages per second after that.
    pub per_second: f64,
}

/// The buckets of all members.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    rate: Rate,
    buckets: Mutex<HashMap<i64, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Duration,
    charged: HashSet<String>,
}

impl RateLimiter {
    /// Full buckets at `rate`.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, buckets: Mutex::default() }
    }

    /// Takes a token for one message of `member`, unless its id was charged in this window.
    pub(crate) fn take(&self, member: i64, id: Option<&str>, now: Duration) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = f64::from(self.rate.burst);
        if buckets.len() >= BUCKETS_MAX {
            buckets.retain(|_, bucket| self.filled(bucket, now) < burst);
        }
        let new = Bucket { tokens: burst, filled_at: now, charged: HashSet::new() };
        let bucket = buckets.entry(member).or_insert(new);
        bucket.tokens = self.filled(bucket, now);
        bucket.filled_at = now;
        if bucket.tokens >= burst || bucket.charged.len() >= CHARGED_MAX {
            bucket.charged.clear();
        }
        if id.is_some_and(|id| bucket.charged.contains(id)) {
            return true;
        }
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        bucket.charged.extend(id.map(str::to_owned));
        true
    }

    fn filled(&self, bucket: &Bucket, now: Duration) -> f64 {
        let elapsed = now.saturating_sub(bucket.filled_at).as_secs_f64();
        (bucket.tokens + elapsed * self.rate.per_second).min(f64::from(self.rate.burst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_a_second_and_a_retry_is_free() {
        let limiter = RateLimiter::new(Rate { burst: 3, per_second: 1.0 });
        let second = Duration::from_secs;
        for id in ["a", "b", "c"] {
            assert!(limiter.take(1, Some(id), second(0)));
        }
        assert!(!limiter.take(1, Some("d"), second(0)), "the burst is used up");
        assert!(limiter.take(1, Some("a"), second(0)), "an id is charged once");
        assert!(limiter.take(2, Some("d"), second(0)), "members do not share a bucket");
        assert!(limiter.take(1, Some("d"), second(1)));
        assert!(!limiter.take(1, None, second(1)));
    }
}
