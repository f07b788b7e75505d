//! Which host this is, and the fingerprint's hash (§2.2). Judging a difference happens elsewhere.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Where a Linux host says which one it is, the first that does (§2.2).
const MACHINE_ID_FILES: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// Which host this is; `None` where nothing says. Reads one line of a small file.
#[must_use]
pub fn host_id() -> Option<String> {
    let read = |path: &&str| std::fs::read_to_string(path).ok();
    let ids = MACHINE_ID_FILES.iter().filter_map(read).map(|id| id.trim().to_owned());
    ids.into_iter().find(|id| !id.is_empty()).map(|id| format!("linux:{id}"))
}

/// Schema 2, ours: `sha256("v2" 00 host_id 00 mac)` as hex. An unknown part is empty.
#[must_use]
pub fn fingerprint(host_id: &str, mac: &str) -> String {
    hash(&["v2", host_id, mac])
}

/// Schema 1, of older daemons: `sha256(host_id 00 mac)` as hex.
#[must_use]
pub fn fingerprint_schema_1(host_id: &str, mac: &str) -> String {
    hash(&[host_id, mac])
}

fn hash(parts: &[&str]) -> String {
    HEXLOWER.encode(&Sha256::digest(parts.join("\0")))
}
