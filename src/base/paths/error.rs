//! Why a path cannot be used, with the remedy in the text.

use super::{
    CONFIG_DIR_VARIABLE, DAEMON_DIR_VARIABLE, HOME_VARIABLE, SOCKET_PATH_BYTES_MAX, files,
};
use std::path::{Path, PathBuf};

/// Something that is not right but does not stop us; its text holds the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// `CLAUDEMESH_CONFIG_DIR` names a directory that does not exist and is ignored.
    #[error("{CONFIG_DIR_VARIABLE} names {}, which does not exist: ignored; unset it", .0.display())]
    ConfigDirMissing(PathBuf),
    /// Other users can read a file that holds a secret.
    #[error(
        "{} holds a secret and other users can read it; fix: chmod 600 {}",
        .0.display(), files::quoted(.0)
    )]
    ReadableByOthers(PathBuf),
}

/// Why a path cannot be used. Each text names the path and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// Neither `--home`, nor the environment, nor `HOME` says where to look.
    #[error("no home directory: set HOME, {HOME_VARIABLE}, or pass --home <dir>")]
    NoHome,
    /// Exists, but is no directory.
    #[error("{} is not a directory; move it aside", .0.display())]
    NotADirectory(PathBuf),
    /// A directory that belongs to somebody else.
    #[error(
        "{} belongs to user id {owner}, not to you\n\
         fix:   sudo chown -R \"$(id -u)\" {q} && chmod 700 {q}",
        .dir.display(), q = files::quoted(.dir)
    )]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// Its owner's user id.
        owner: u32,
    },
    /// A directory that other users can write to.
    #[error(
        "{} can be written by other users\nfix:   chmod 700 {}",
        .0.display(), files::quoted(.0)
    )]
    WritableByOthers(PathBuf),
    /// Longer than the platform lets a Unix socket's path be.
    #[error(
        "the socket path {} has {} bytes, this system allows {SOCKET_PATH_BYTES_MAX}: \
         choose a shorter --home or {DAEMON_DIR_VARIABLE}",
        .0.display(), .0.as_os_str().len()
    )]
    SocketPathTooLong(PathBuf),
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: `read`, `write`, `create`, `lock`.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}

impl PathsError {
    /// Wraps what the operating system said about `path`.
    #[must_use]
    pub fn io(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }
}
