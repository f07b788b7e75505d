//! What a broker is told before it runs.

use crate::rate_limit::Rate;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Where the broker listens when nothing is said (§17).
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7900);

/// The broker's settings, with their defaults (§1.2, §17).
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How long a push may stay unacknowledged before it is pushed again, in milliseconds.
    pub lease_ms: u64,
    /// How long a closed connection counts as present, in milliseconds.
    pub presence_lease_ms: u64,
    /// How fast one member may send; `None`: as fast as it can.
    pub rate: Option<Rate>,
    /// How long ids are remembered; `None`: for ever.
    pub dedupe_retention_days: Option<u32>,
    /// How long messages are kept, delivered or not.
    pub undelivered_days: u32,
    /// Connections of one mesh.
    pub connections_per_mesh_max: usize,
    /// What must stay free on the disk for a message to be taken, in bytes; 0 leaves it to the disk
    /// to say no.
    pub disk_reserved_bytes: u64,
    /// Behaves like the legacy network, faults included: for tests of clients.
    pub faithful: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            presence_lease_ms: 90_000,
            rate: None,
            dedupe_retention_days: Some(365),
            undelivered_days: 30,
            connections_per_mesh_max: 1024,
            disk_reserved_bytes: 64 << 20,
            faithful: false,
        }
    }
}

/// ReceiptNotice the bound address once the broker accepts connections.
pub type OnReady = Box<dyn FnOnce(SocketAddr) + Send>;

/// How to run a broker.
pub struct Options {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The broker's directory; created with mode 0700.
    pub data_dir: PathBuf,
    /// `host:port` as others reach it, for invites; by default the bound address.
    pub public_authority: Option<String>,
    /// Everything else.
    pub settings: Settings,
    /// Called once, when connections are accepted.
    pub on_ready: Option<OnReady>,
}
