//! What the broker counts (§10), for `GET /metrics` and for tests.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The broker's counters since it started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepts: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) fingerprint_mismatches: Counter,
    pub(crate) refusals: Counter,
    pub(crate) rate_limit_rejections: Counter,
    pub(crate) rate_limit_consumed_then_b2_rejected: Counter,
    pub(crate) pushes: Counter,
    pub(crate) leases_expired: Counter,
    pub(crate) client_acks: Counter,
    pub(crate) malformed_frames: Counter,
    pub(crate) hello_refusals: Counter,
    pub(crate) rosters_cut: Counter,
    pub(crate) orphan_checks: Counter,
    pub(crate) orphans_found: Counter,
}

impl Counters {
    /// The counters as Prometheus text, with the number of open connections.
    pub(crate) fn render(&self, connections: usize) -> String {
        let counters = [
            ("accepts_total", &self.accepts),
            ("dedupe_duplicate_total", &self.duplicates),
            ("dedupe_fingerprint_mismatch_total", &self.fingerprint_mismatches),
            ("dedupe_orphan_check_total", &self.orphan_checks),
            ("dedupe_orphan_found", &self.orphans_found),
            ("refusals_total", &self.refusals),
            ("rate_limit_rejection_total", &self.rate_limit_rejections),
            (
                "rate_limit_consumed_then_b2_rejected_total",
                &self.rate_limit_consumed_then_b2_rejected,
            ),
            ("pushes_total", &self.pushes),
            ("leases_expired_total", &self.leases_expired),
            ("client_acks_total", &self.client_acks),
            ("malformed_frames_total", &self.malformed_frames),
            ("hello_refusals_total", &self.hello_refusals),
            ("rosters_cut_total", &self.rosters_cut),
        ];
        let mut text =
            format!("# TYPE cm_broker_connections gauge\ncm_broker_connections {connections}\n");
        for (name, counter) in counters {
            let count = counter.get();
            text.push_str(&format!("# TYPE cm_broker_{name} counter\ncm_broker_{name} {count}\n"));
        }
        text
    }
}
