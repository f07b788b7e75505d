//! What a round of a benchmark came to: how many a second, and how long one took.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its part")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::time::Duration;

/// What a round came to.
#[derive(Clone, Copy)]
pub struct Figure {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Figure {
    pub fn of(mut latencies_us: Vec<f64>, count: u64, elapsed: Duration) -> Self {
        latencies_us.sort_by(f64::total_cmp);
        let at = |share: f64| latencies_us[((latencies_us.len() - 1) as f64 * share) as usize];
        let per_second = count as f64 / elapsed.as_secs_f64();
        Self { per_second, p50_us: at(0.50), p99_us: at(0.99) }
    }

    pub fn print(&self, name: &str) {
        let Self { per_second, p50_us, p99_us } = self;
        println!("{name:<34} {per_second:>10.0} {p50_us:>10.0} {p99_us:>10.0}");
    }
}
