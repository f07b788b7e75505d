//! Private directories, files that appear whole, and what modes must be.

use super::{PathsError, SOCKET_PATH_BYTES_MAX, Warning};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const PRIVATE_DIR_MODE: u32 = 0o700;
const PRIVATE_FILE_MODE: u32 = 0o600;
const PUBLIC_FILE_MODE: u32 = 0o644;
const WRITABLE_BY_OTHERS: u32 = 0o022;
const OPEN_TO_OTHERS: u32 = 0o077;

/// Creates `dir` (and what is missing above it) with mode 0700, or checks the one that is there.
///
/// # Errors
/// When it is not ours, or other users can write to it: the error holds the command to run. A
/// directory of the wrong mode is never repaired silently; somebody may already have been in it.
pub fn ensure_private_dir(dir: &Path) -> Result<(), PathsError> {
    let mut builder = DirBuilder::new();
    match builder.recursive(true).mode(PRIVATE_DIR_MODE).create(dir) {
        Ok(()) => {}
        Err(error)
            if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotADirectory) =>
        {
            return Err(PathsError::NotADirectory(dir.into()));
        }
        Err(error) => return Err(PathsError::io("create", dir, error)),
    }
    let found = fs::metadata(dir).map_err(|error| PathsError::io("read", dir, error))?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(PathsError::NotOurs { dir: dir.into(), owner: found.uid() });
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(PathsError::WritableByOthers(dir.into()));
    }
    Ok(())
}

/// Puts `bytes` into `path` with mode 0600: a reader sees the old file or the new one, also after
/// a power cut, and nobody else ever sees either.
///
/// # Errors
/// When the operating system refuses; the old file is then still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), PathsError> {
    write(path, bytes, PRIVATE_FILE_MODE)
}

/// As [`write_private`], with mode 0644 (less what the umask takes).
///
/// # Errors
/// As [`write_private`].
pub fn write_public(path: &Path, bytes: &[u8]) -> Result<(), PathsError> {
    write(path, bytes, PUBLIC_FILE_MODE)
}

/// A warning if users other than the owner may do anything with this file; a missing file is fine.
#[must_use]
pub fn readable_by_others(path: &Path) -> Option<Warning> {
    let mode = fs::metadata(path).ok()?.mode();
    (mode & OPEN_TO_OTHERS != 0).then(|| Warning::ReadableByOthers(path.into()))
}

/// Checks that a Unix socket can be bound at `path`.
///
/// # Errors
/// When the path is longer than [`SOCKET_PATH_BYTES_MAX`]; the error names both.
pub fn check_socket_path(path: &Path) -> Result<(), PathsError> {
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(PathsError::SocketPathTooLong(path.into()));
    }
    Ok(())
}

/// A path as one word of a shell command.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PathsError> {
    // A symbolic link stays one: what it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let temporary = temporary_beside(&target);
    let written = write_whole(&temporary, &target, bytes, mode);
    if written.is_err() {
        // Best effort: the error that matters is the one already in hand.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_whole(temporary: &Path, target: &Path, bytes: &[u8], mode: u32) -> Result<(), PathsError> {
    let failed = |error| PathsError::io("write", target, error);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(temporary, target).map_err(failed)?;
    // The rename itself is only durable once the directory is.
    let dir = target.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// A name of our own, so that two writers never share a half-written file.
fn temporary_beside(target: &Path) -> PathBuf {
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let nth = WRITES.fetch_add(1, Ordering::Relaxed);
    let mut name = target.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{nth}.tmp", std::process::id()));
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    #[test]
    fn a_private_directory_is_private_from_the_start() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("a/b");
        ensure_private_dir(&dir).expect("created");
        ensure_private_dir(&dir).expect("still good");
        assert_eq!((mode(&dir), mode(&root.path().join("a"))), (0o700, 0o700));
    }

    #[test]
    fn a_directory_others_can_write_to_is_refused_with_the_command_to_run() {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join("it's here");
        fs::create_dir(&dir).expect("created");
        for open in [0o770, 0o702] {
            set_mode(&dir, open);
            let refused = ensure_private_dir(&dir).expect_err("refused").to_string();
            let fix = format!("chmod 700 '{}/it'\\''s here'", root.path().display());
            assert!(refused.ends_with(&fix), "{refused}");
        }
        set_mode(&dir, 0o755);
        ensure_private_dir(&dir).expect("readable is not writable");
        let file = root.path().join("file");
        fs::write(&file, "").expect("written");
        assert!(matches!(ensure_private_dir(&file), Err(PathsError::NotADirectory(_))));
        let below = file.join("below");
        assert!(matches!(ensure_private_dir(&below), Err(PathsError::NotADirectory(_))));
    }

    #[test]
    fn a_secret_file_is_replaced_whole_and_private() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("secret");
        fs::write(&file, "old").expect("written");
        set_mode(&file, 0o644);
        assert_eq!(readable_by_others(&file), Some(Warning::ReadableByOthers(file.clone())));
        write_private(&file, b"new").expect("written");
        assert_eq!((fs::read(&file).expect("read"), mode(&file)), (b"new".to_vec(), 0o600));
        assert_eq!(readable_by_others(&file), None);
        assert_eq!(readable_by_others(&root.path().join("none")), None);
        assert_eq!(fs::read_dir(root.path()).expect("listed").count(), 1, "nothing left behind");
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let root = tempfile::tempdir().expect("a directory");
        let taken = root.path().join("taken");
        fs::create_dir_all(taken.join("full")).expect("created");
        let refused = write_private(&taken, b"x").expect_err("a directory is in the way");
        assert!(refused.to_string().contains("taken"));
        assert_eq!(fs::read_dir(root.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_link_to_a_file_elsewhere_stays_a_link() {
        let root = tempfile::tempdir().expect("a directory");
        let (real, link) = (root.path().join("real"), root.path().join("link"));
        fs::write(&real, "old").expect("written");
        symlink(&real, &link).expect("linked");
        write_public(&link, b"new").expect("written");
        assert!(fs::symlink_metadata(&link).expect("exists").is_symlink());
        assert_eq!(fs::read(&real).expect("read"), b"new");
    }

    #[test]
    fn a_socket_path_is_measured_in_bytes() {
        let longest = PathBuf::from("/".to_string() + &"x".repeat(SOCKET_PATH_BYTES_MAX - 1));
        check_socket_path(&longest).expect("fits");
        let long = longest.with_file_name("é".repeat(SOCKET_PATH_BYTES_MAX.div_ceil(2)));
        let refused = check_socket_path(&long).expect_err("too long").to_string();
        assert!(refused.contains(&SOCKET_PATH_BYTES_MAX.to_string()), "{refused}");
        // What the check lets through, the system does too.
        let root = tempfile::tempdir().expect("a directory");
        let room = SOCKET_PATH_BYTES_MAX - root.path().as_os_str().len() - 1;
        let socket = root.path().join("s".repeat(room));
        check_socket_path(&socket).expect("fits");
        std::os::unix::net::UnixListener::bind(&socket).expect("binds");
    }
}
