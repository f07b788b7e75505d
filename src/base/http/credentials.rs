//! Who is at the other end of a Unix socket (§3.1): our own user or root, nobody else.

use super::{Socket, Transport};
use rustix::process::geteuid;
use smol::net::unix::UnixStream;
use std::io;

const ROOT_UID: u32 = 0;

/// The transport of an accepted connection, or `None` if its peer may not speak to us.
pub(super) fn transport_of(socket: &Socket) -> Option<Transport> {
    match socket {
        Socket::Tcp(_) => Some(Transport::Tcp),
        Socket::Unix(stream) => {
            let uid = peer_uid(stream).ok()?;
            is_allowed_uid(uid, geteuid().as_raw()).then_some(Transport::Unix { uid })
        }
    }
}

const fn is_allowed_uid(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == own_uid || peer_uid == ROOT_UID
}

#[cfg(target_os = "linux")]
fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

#[cfg(target_os = "macos")]
fn peer_uid(stream: &UnixStream) -> io::Result<u32> {
    let (uid, _gid) = nix::unistd::getpeereid(stream)?;
    Ok(uid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_and_root_may_speak() {
        assert!(is_allowed_uid(1000, 1000));
        assert!(is_allowed_uid(0, 1000));
        assert!(!is_allowed_uid(1001, 1000));
        assert!(!is_allowed_uid(1000, 0));
    }

    #[test]
    fn our_own_connection_is_recognized() {
        let (near, _far) = UnixStream::pair().expect("a socket pair");
        let uid = geteuid().as_raw();
        assert_eq!(transport_of(&Socket::Unix(near)), Some(Transport::Unix { uid }));
    }
}
