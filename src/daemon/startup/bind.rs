//! The two listening sockets of the local API (§1.1, §3.1).

use super::failed;
use crate::error::DaemonError;
use claudemesh_base::http::Listener;
use claudemesh_base::paths::{Paths, write_public};
use rustix::fs::Mode;
use smol::net::TcpListener;
use smol::net::unix::UnixListener;
use std::net::Ipv4Addr;
use std::path::Path;

/// Binds the Unix socket, mode 0600 from its first moment. The lock is held, so a file that is
/// there is left over.
pub(super) fn unix(path: &Path) -> Result<Listener, DaemonError> {
    let _ = std::fs::remove_file(path);
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let bound = bound.map_err(|error| failed(&format!("listen on {}", path.display()), &error))?;
    Ok(Listener::Unix(bound))
}

/// Binds loopback TCP. A port that is taken, by another user's daemon mostly, is not fatal: the
/// system chooses one, and `http.port` says which.
pub(super) async fn tcp(paths: &Paths, port: u16) -> Result<Listener, DaemonError> {
    let bound = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::warn!(port, "the TCP port is taken: the system chooses another");
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
        }
        bound => bound,
    };
    let bound = bound.map_err(|error| failed("listen on loopback TCP", &error))?;
    let address = bound.local_addr().map_err(|error| failed("read the TCP port", &error))?;
    write_public(&paths.http_port(), format!("{}\n", address.port()).as_bytes())?;
    Ok(Listener::Tcp(bound))
}
