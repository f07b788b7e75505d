//! The broker's directory: lock, port, administration socket (§17.3).

use super::BrokerError;
use claudemesh_base::paths::write_public;
use smol::net::unix::UnixListener;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const LOCK_NAME: &str = "broker.lock";
const PORT_NAME: &str = "port";

/// The right to write this directory's ledger, for as long as it lives.
pub(crate) struct Lock(#[allow(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    /// Takes the lock, creating the directory if need be.
    pub(crate) fn take(dir: &Path) -> Result<Self, BrokerError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| BrokerError::io("cannot create", dir, &error))?;
        let path = dir.join(LOCK_NAME);
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = opened.map_err(|error| BrokerError::io("cannot open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(BrokerError::AlreadyRunning(dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(BrokerError::io("cannot lock", &path, &error)),
        }
    }
}

/// The port the broker of this directory was last bound to, if it ever ran.
#[must_use]
pub fn stored_port(dir: &Path) -> Option<u16> {
    std::fs::read_to_string(dir.join(PORT_NAME)).ok()?.trim().parse().ok()
}

/// Remembers the port for the next run and for whoever makes invites meanwhile.
pub(crate) fn store_port(dir: &Path, port: u16) -> Result<(), BrokerError> {
    let path = dir.join(PORT_NAME);
    write_public(&path, format!("{port}\n").as_bytes()).map_err(|e| BrokerError::Io(e.to_string()))
}

/// Binds the administration socket. Only whoever holds the lock may: what is there is stale.
pub(crate) fn bind_admin(path: &Path) -> Result<UnixListener, BrokerError> {
    let failed = |error: std::io::Error| BrokerError::io("cannot listen on", path, &error);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // The directory is ours alone (0700), so nobody could come before this line.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}
