//! How a process does, seen from outside: memory, open files, processor time, log lines. Linux only;
//! elsewhere the numbers are zero and prove nothing.

use crate::support::rig::{Daemon, Home};
use serde_json::Value;

/// What a daemon under attack may hold in memory.
pub const RSS_KIB_MAX: u64 = 64 * 1024;
/// What it may have open: its stores, its socket, and what a test has open at a time.
pub const FDS_MAX: usize = 100;

/// Resident memory, in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Open file descriptors.
pub fn fds(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// User and system time spent so far, in clock ticks of 10 ms.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold spaces; what follows it does not.
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    ticks(11) + ticks(12)
}

/// Commits that changed the database of this name, modulo 2^32: SQLite's own counter, in the header
/// of the index of its write-ahead log. 0 when nobody has it open.
pub fn commits(home: &Home, name: &str) -> u32 {
    const COUNTER_AT: usize = 8;
    let bytes = std::fs::read(home.daemon_dir().join(format!("{name}.db-shm"))).unwrap_or_default();
    let counter = bytes.get(COUNTER_AT..COUNTER_AT + 4).and_then(|four| four.try_into().ok());
    counter.map_or(0, u32::from_ne_bytes)
}

/// Lines of `daemon.log`.
pub fn log_lines(home: &Home) -> usize {
    home.log().lines().count()
}

/// The daemon answers, is small, has few files open, and wrote at most `lines_max` lines.
pub fn assert_healthy(daemon: &Daemon, home: &Home, pid: u32, lines_max: usize) {
    let health = daemon.get("/v1/health");
    assert_eq!(health.status(), 200, "{health:?}");
    let (rss, fds, lines) = (rss_kib(pid), fds(pid), log_lines(home));
    assert!(rss < RSS_KIB_MAX, "{rss} KiB resident");
    assert!(fds < FDS_MAX, "{fds} files open");
    assert!(lines <= lines_max, "{lines} lines logged:\n{}", tail(home));
}

/// No secret of this home stands in its log, and no panic.
pub fn assert_clean_log(home: &Home) {
    let log = home.log();
    assert!(!log.contains("panic"), "{}", tail(home));
    for secret in secrets(home) {
        assert!(!log.contains(&secret), "a secret is in the log:\n{}", tail(home));
    }
}

fn tail(home: &Home) -> String {
    let log = home.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Every secret the files of this home hold.
fn secrets(home: &Home) -> Vec<String> {
    let mut secrets = Vec::new();
    let read = |file: &str| std::fs::read_to_string(home.path().join(file)).unwrap_or_default();
    for file in ["config.json", "daemon/session-keys.json"] {
        collect(&serde_json::from_str(&read(file)).unwrap_or_default(), &mut secrets);
    }
    secrets.push(read("daemon/local-token").trim().to_owned());
    secrets.retain(|secret| secret.len() >= 16);
    secrets
}

fn collect(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| match value {
            // The seed is the first half; the second is the public key.
            Value::String(text) if name == "secretKey" => {
                into.push(text.chars().take(64).collect())
            }
            value => collect(value, into),
        }),
        Value::Array(values) => values.iter().for_each(|value| collect(value, into)),
        _ => {}
    }
}
