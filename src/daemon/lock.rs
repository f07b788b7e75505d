//! One daemon per directory: `daemon.lock` is the truth, `daemon.pid` is for people (§1.1).

use crate::error::DaemonError;
use claudemesh_base::paths::{Paths, write_private};
use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Held for the daemon's life; the operating system lets go of it whatever way the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    pid_file: PathBuf,
    /// What the pid file said before.
    pid_found: Option<Vec<u8>>,
}

impl Lock {
    /// Takes the lock and writes the pid.
    ///
    /// # Errors
    /// [`DaemonError::AlreadyRunning`] when another daemon holds it.
    pub fn take(paths: &Paths) -> Result<Self, DaemonError> {
        let path = paths.lock();
        let failed = |error: &dyn std::fmt::Display| {
            DaemonError::Failed(format!("cannot lock {}: {error}", path.display()))
        };
        let mut options = OpenOptions::new();
        let file =
            options.create(true).append(true).mode(0o600).open(&path).map_err(|e| failed(&e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DaemonError::AlreadyRunning(pid(paths))),
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let pid_file = paths.pid();
        let pid_found = std::fs::read(&pid_file).ok();
        write_private(&pid_file, std::process::id().to_string().as_bytes())
            .map_err(|error| DaemonError::Failed(error.to_string()))?;
        Ok(Self { _file: file, pid_file, pid_found })
    }

    /// Lets go because something else is in our place: an earlier daemon, which knows no lock, is
    /// stopped by the pid it wrote, so that is put back.
    pub fn release_and_restore_pid(self) {
        let put_back = match &self.pid_found {
            Some(found) => write_private(&self.pid_file, found).map_err(|error| error.to_string()),
            None => std::fs::remove_file(&self.pid_file).map_err(|error| error.to_string()),
        };
        if let Err(error) = put_back {
            tracing::warn!(error, "daemon.pid could not be put back");
        }
    }
}

/// Whether a daemon holds the lock, and its pid as its file says.
///
/// # Errors
/// When the lock file cannot be read.
pub fn running(paths: &Paths) -> std::io::Result<Option<Option<u32>>> {
    let file = match File::open(paths.lock()) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(pid(paths))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn pid(paths: &Paths) -> Option<u32> {
    std::fs::read_to_string(paths.pid()).ok()?.trim().parse().ok()
}
