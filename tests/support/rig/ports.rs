//! Ports that stay a test's own while nothing listens on them.
//!
//! A port that the system chose can be given to another process as soon as its listener ends: a
//! daemon whose broker is down would then dial the broker of another test. These ports lie below
//! the range that systems choose from, and no two callers of one process get the same.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// A port that nobody uses now and that the system gives to nobody.
///
/// # Panics
/// When all of them are taken.
pub fn unused_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes begin at different places: several checkouts may be tested at once.
    let begin = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + (begin.wrapping_add(step) % u32::from(COUNT)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free")
}
