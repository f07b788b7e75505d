//! Where log lines go: JSON lines in `daemon.log`, which this program rotates itself (§1.1, §10).
//!
//! A log that cannot be written never stops the daemon, and never grows without bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How large one file may become.
pub const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// How many files there are at the most, the current one included.
pub const FILES_MAX: usize = 5;

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
pub struct Throttled(Mutex<Option<Said>>);

struct Said {
    at: Duration,
    suppressed: u64,
}

impl Throttled {
    /// It happened at `now`, in monotonic time. If it is to be logged: how often it happened without
    /// a line since the last one.
    pub fn admit(&self, now: Duration) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *said {
            Some(said) if now < said.at + THROTTLE => {
                said.suppressed += 1;
                None
            }
            last => {
                let suppressed = last.as_ref().map_or(0, |said| said.suppressed);
                *last = Some(Said { at: now, suppressed: 0 });
                Some(suppressed)
            }
        }
    }
}

/// A file that makes room for itself. Cheap to clone.
#[derive(Clone)]
struct RotatingFile(Arc<Mutex<Current>>);

struct Current {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl RotatingFile {
    fn open(path: &Path) -> io::Result<Self> {
        let (file, bytes) = append_to(path)?;
        Ok(Self(Arc::new(Mutex::new(Current { path: path.to_path_buf(), file, bytes }))))
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

impl Current {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > FILE_BYTES_MAX {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// `daemon.log` becomes `daemon.log.1`, and so on; the oldest is overwritten.
    fn rotate(&mut self) -> io::Result<()> {
        for age in (1..FILES_MAX).rev() {
            let from = if age == 1 { self.path.clone() } else { aged(&self.path, age - 1) };
            if from.exists() {
                std::fs::rename(from, aged(&self.path, age))?;
            }
        }
        (self.file, self.bytes) = append_to(&self.path)?;
        Ok(())
    }
}

fn aged(path: &Path, age: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{age}"));
    PathBuf::from(name)
}

impl<'a> MakeWriter<'a> for RotatingFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for RotatingFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.write(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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

    #[test]
    fn the_log_is_bounded_whatever_is_written() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let path = dir.path().join("daemon.log");
        let mut log = RotatingFile::open(&path).expect("opens");
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..80 {
            log.write_all(&line).expect("writes");
        }
        let sizes: Vec<u64> = std::fs::read_dir(dir.path())
            .expect("reads")
            .map(|entry| entry.expect("an entry").metadata().expect("metadata").len())
            .collect();
        assert_eq!(sizes.len(), FILES_MAX);
        assert!(sizes.iter().all(|size| *size <= FILE_BYTES_MAX), "{sizes:?}");
    }
}
