//! Where log lines go: JSON lines in `daemon.log`, which this program rotates itself (§1.1, §10).
//!
//! A log that cannot be written never stops the daemon, and never grows without bound.

mod file;

use file::RotatingFile;
use std::io::{self};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends every log line of this process to `path`, and to standard error too if `also_stderr`.
/// `level` is `error`, `warn`, `info`, `debug` or `trace`.
///
/// A second call in one process changes nothing.
///
/// # Errors
/// When the file cannot be opened.
pub fn start(path: &Path, level: &str, also_stderr: bool) -> io::Result<()> {
    let file = RotatingFile::open(path)?;
    // Other crates speak up only when something is wrong with them.
    let filter = EnvFilter::new(format!("warn,claudemesh={level}"));
    let to_file = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(file);
    let to_stderr = also_stderr.then(|| {
        tracing_subscriber::fmt::layer().compact().with_writer(io::stderr).with_ansi(false)
    });
    let started =
        tracing_subscriber::registry().with(filter).with(to_file).with(to_stderr).try_init();
    // Only tests start a second daemon in one process; they share the first one's log.
    drop(started);
    Ok(())
}

/// A panic is logged with its backtrace before the process ends (§14).
pub fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(%panic, %backtrace, "panic");
        before(panic);
    }));
}

/// A condition that may repeat for ever: it is logged when it begins and when it ends, and counted
/// in between (§10).
#[derive(Debug, Default)]
pub struct Repeated(AtomicU64);

impl Repeated {
    /// It happened. Whether to log it: only the first time since it last ended.
    pub fn happened(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// It ended, if it was going on: how often it happened.
    pub fn ended(&self) -> Option<u64> {
        Some(self.0.swap(0, Ordering::Relaxed)).filter(|count| *count > 0)
    }
}

/// The least time between two lines that a [`Throttled`] admits.
const THROTTLE: Duration = Duration::from_secs(60);

/// Something that happens again and again and does not end: one line a minute says it (§10).
#[derive(Default)]
pub struct Throttled(Mutex<Option<LastLine>>);

struct LastLine {
    at: Duration,
    suppressed: u64,
}

impl Throttled {
    /// It happened at `now`, in monotonic time. If it is to be logged: how often it happened without
    /// a line since the last one.
    pub fn admit(&self, now: Duration) -> Option<u64> {
        let mut last_line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last_line {
            Some(last_line) if now < last_line.at + THROTTLE => {
                last_line.suppressed += 1;
                None
            }
            last => {
                let suppressed = last.as_ref().map_or(0, |last_line| last_line.suppressed);
                *last = Some(LastLine { at: now, suppressed: 0 });
                Some(suppressed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_logged_once_and_then_counted() {
        let failing = Repeated::default();
        assert_eq!(failing.ended(), None);
        assert!(failing.happened());
        assert!(!failing.happened());
        assert_eq!(failing.ended(), Some(2));
        assert!(failing.happened());
    }

    #[test]
    fn what_does_not_end_is_said_once_a_minute_and_counted() {
        let refusals = Throttled::default();
        let at = Duration::from_secs;
        assert_eq!(refusals.admit(at(5)), Some(0));
        assert_eq!((refusals.admit(at(5)), refusals.admit(at(64))), (None, None));
        assert_eq!(refusals.admit(at(65)), Some(2));
        assert_eq!(refusals.admit(at(125)), Some(0));
    }
}
