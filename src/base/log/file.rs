//! A log file that makes room for itself: it rotates by size and never grows without bound.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracing_subscriber::fmt::MakeWriter;

/// How large one file may become.
pub(super) const FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// How many files there are at the most, the current one included.
pub(super) const FILES_MAX: usize = 5;

/// A file that makes room for itself. Cheap to clone.
#[derive(Clone)]
pub(super) struct RotatingFile(Arc<Mutex<Current>>);

impl RotatingFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, bytes) = append_to(path)?;
        Ok(Self(Arc::new(Mutex::new(Current { path: path.to_path_buf(), file, bytes }))))
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

struct Current {
    path: PathBuf,
    file: File,
    bytes: u64,
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
