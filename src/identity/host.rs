//! The host fingerprint's hash (§2.2). Only the formula: reading the host's parts
//! and judging a difference happen elsewhere.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

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
