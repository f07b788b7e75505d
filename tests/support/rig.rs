//! Real processes for black-box tests: a broker, daemons, and a relay between them.
//!
//! Every process gets a cleared environment and a home of its own in a temp dir, and is killed by
//! pid when its handle is dropped. Nothing here knows the code under test: requests are bytes on a
//! socket.

mod home;
mod http;
mod mesh;
mod ports;
mod process;
mod relay;

pub use home::Home;
pub use http::{Response, exchange, get, post};
pub use mesh::Mesh;
pub use ports::unused_port;
pub use process::{Broker, Daemon};
pub use relay::Relay;

use std::time::{Duration, Instant};

/// How long anything here is waited for before the test fails. Long, because it only matters to a
/// test that fails, and a machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `check` gives something.
///
/// # Panics
/// When it does not in [`PATIENCE`].
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
