//! Whether this is still the host the keys were made on (§2.2).
//!
//! It catches restored backups, copied home directories and cloned images. It does not stop an
//! attacker, who can write the file as well as we can. Nothing here reads the machine, hashes, or
//! touches the file: facts in, verdict out.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The schema this version writes.
pub const SCHEMA: i64 = 2;

/// The `host_id` prefix of a random id, made where the machine tells nothing about itself. It
/// identifies the file, not the host, so it is never compared.
pub const RANDOM_PREFIX: &str = "random:";

/// What a host is known by. Unknown parts are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The operating system's id for the installation, e.g. `linux:<machine-id>`.
    pub host_id: String,
    /// The address of one network interface.
    pub stable_mac: String,
}

impl Sources {
    fn known_host_id(&self) -> Option<&str> {
        let known = !self.host_id.is_empty() && !self.host_id.starts_with(RANDOM_PREFIX);
        known.then_some(self.host_id.as_str())
    }

    fn known_mac(&self) -> Option<&str> {
        (!self.stable_mac.is_empty()).then_some(self.stable_mac.as_str())
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.known_host_id().is_none() && self.known_mac().is_none()
    }

    /// What a rewritten file holds: what is known now, and what was known before where nothing is.
    #[must_use]
    pub fn over(self, stored: Self) -> Self {
        let Self { host_id, stable_mac } = self;
        let host_id = if host_id.is_empty() { stored.host_id } else { host_id };
        let stable_mac = if stable_mac.is_empty() { stored.stable_mac } else { stable_mac };
        Self { host_id, stable_mac }
    }
}

/// What the machine tells about itself now, by the rules of both schemas: they choose the network
/// interface differently, and schema 1 knew no `host_id` on macOS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// By the rules of schema 1.
    pub v1: Sources,
    /// By the rules of schema 2.
    pub v2: Sources,
}

/// `host_fingerprint.json`, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// There is none.
    Absent,
    /// It cannot be read, is no JSON, lacks a field, or its hash is not that of its fields. Says
    /// which.
    Broken(String),
    /// It was read.
    Stored {
        /// Its `schema_version`.
        schema: i64,
        /// What it holds.
        sources: Sources,
    },
}

/// Whether this is the same host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a cloned host must not go on unseen"]
pub enum HostDecision {
    /// The same. With `rewrite`, write [`Sources::over`] the stored ones in schema 2.
    Match {
        /// Whether the file is out of date.
        rewrite: bool,
    },
    /// Nothing to compare with yet: write the file and go on.
    FirstRun,
    /// Another host: apply the policy.
    Mismatch {
        /// What differs.
        what: Difference,
    },
    /// Nothing on both sides can be compared: go on with one warning. If there is no file, write
    /// one with a random id.
    DetectionOff,
    /// The file cannot be used and must not be overwritten: refuse with the remedy.
    Unavailable(Unavailable),
}

/// What differs between the stored host and this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The operating system's id.
    HostId {
        /// In the file.
        stored: String,
        /// Now.
        observed: String,
    },
    /// The network interface; only asked where an id is unknown.
    Mac {
        /// In the file.
        stored: String,
        /// Now.
        observed: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, stored, observed) = match self {
            Self::HostId { stored, observed } => ("host id", stored, observed),
            Self::Mac { stored, observed } => ("network address", stored, observed),
        };
        write!(f, "the {what} was {stored} and is {observed}")
    }
}

/// Why the file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// It is damaged; says how.
    Broken(String),
    /// A later version wrote it.
    UnknownSchema(i64),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => write!(f, "it is damaged: {why}"),
            Self::UnknownSchema(schema) => {
                write!(f, "it has schema {schema}, and this version knows 1 and {SCHEMA}")
            }
        }
    }
}

/// Judges the stored host against the observed one.
pub fn decide(file: &File, observed: &Observed) -> HostDecision {
    let (stored, schema) = match file {
        File::Absent if observed.v2.is_unknown() => return HostDecision::DetectionOff,
        File::Absent => return HostDecision::FirstRun,
        File::Broken(why) => return HostDecision::Unavailable(Unavailable::Broken(why.clone())),
        File::Stored { schema, sources } => (sources, *schema),
    };
    let now = match schema {
        1 => &observed.v1,
        SCHEMA => &observed.v2,
        other => return HostDecision::Unavailable(Unavailable::UnknownSchema(other)),
    };
    if stored.is_unknown() && !observed.v2.is_unknown() {
        return HostDecision::FirstRun;
    }
    match compare(stored, now) {
        Compared::Differ(what) => HostDecision::Mismatch { what },
        Compared::NothingInCommon => HostDecision::DetectionOff,
        Compared::Same => {
            let outdated = schema != SCHEMA || observed.v2.clone().over(stored.clone()) != *stored;
            HostDecision::Match { rewrite: outdated }
        }
    }
}

enum Compared {
    Same,
    Differ(Difference),
    NothingInCommon,
}

fn compare(stored: &Sources, now: &Sources) -> Compared {
    let owned = |stored: &str, observed: &str| (stored.into(), observed.into());
    if let (Some(was), Some(is)) = (stored.known_host_id(), now.known_host_id()) {
        let (stored, observed) = owned(was, is);
        return if was == is {
            Compared::Same
        } else {
            Compared::Differ(Difference::HostId { stored, observed })
        };
    }
    match (stored.known_mac(), now.known_mac()) {
        (Some(was), Some(is)) if was.eq_ignore_ascii_case(is) => Compared::Same,
        (Some(was), Some(is)) => {
            let (stored, observed) = owned(was, is);
            Compared::Differ(Difference::Mac { stored, observed })
        }
        _ => Compared::NothingInCommon,
    }
}

/// The bytes whose SHA-256 is the `fingerprint` of schema 1.
#[must_use]
pub fn preimage_v1(sources: &Sources) -> Vec<u8> {
    format!("{}\0{}", sources.host_id, sources.stable_mac).into_bytes()
}

/// The bytes whose SHA-256 is the `fingerprint` of schema 2.
#[must_use]
pub fn preimage_v2(sources: &Sources) -> Vec<u8> {
    format!("v2\0{}\0{}", sources.host_id, sources.stable_mac).into_bytes()
}

/// One network interface, as the operating system lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its address, `aa:bb:cc:dd:ee:ff`.
    pub mac: String,
    /// Whether it only reaches the host itself.
    pub is_loopback: bool,
}

/// Interfaces that come and go with software; compared without case.
const IGNORED: [&str; 14] = [
    "lo",
    "docker",
    "br-",
    "veth",
    "tap",
    "tun",
    "tailscale",
    "wg",
    "utun",
    "ppp",
    "vboxnet",
    "vmnet",
    "awdl",
    "llw",
];
/// What schema 2 ignores besides; and `ap` with a digit.
const IGNORED_V2: [&str; 2] = ["bridge", "anpi"];

/// The address schema 1 takes: of the first interface by name. Empty if there is none.
#[must_use]
pub fn select_mac_v1(interfaces: &[Interface]) -> String {
    first_by_name(interfaces, |interface| !is_ignored(&interface.name)).unwrap_or_default()
}

/// The address schema 2 takes: a hardware address before a locally administered one, which the
/// system may make up anew; then the first by name. Empty if there is none.
#[must_use]
pub fn select_mac_v2(interfaces: &[Interface]) -> String {
    let stays =
        |interface: &Interface| !is_ignored(&interface.name) && !is_ignored_v2(&interface.name);
    first_by_name(interfaces, |interface| stays(interface) && is_hardware(&interface.mac))
        .or_else(|| first_by_name(interfaces, stays))
        .unwrap_or_default()
}

fn first_by_name(interfaces: &[Interface], wanted: impl Fn(&Interface) -> bool) -> Option<String> {
    interfaces
        .iter()
        .filter(|interface| !interface.is_loopback && is_real(&interface.mac) && wanted(interface))
        .min_by(|a, b| a.name.cmp(&b.name))
        .map(|interface| interface.mac.to_ascii_lowercase())
}

fn is_ignored(name: &str) -> bool {
    IGNORED.iter().any(|prefix| rest_after(name, prefix).is_some())
}

fn is_ignored_v2(name: &str) -> bool {
    IGNORED_V2.iter().any(|prefix| rest_after(name, prefix).is_some())
        || rest_after(name, "ap").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// What follows `prefix` in `name`, compared without case.
fn rest_after<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = name.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn is_real(mac: &str) -> bool {
    first_byte(mac).is_some() && mac.bytes().any(|byte| byte.is_ascii_hexdigit() && byte != b'0')
}

fn is_hardware(mac: &str) -> bool {
    first_byte(mac).is_some_and(|byte| byte & 0x02 == 0)
}

fn first_byte(mac: &str) -> Option<u8> {
    u8::from_str_radix(mac.split(':').next()?, 16).ok()
}

#[cfg(test)]
mod tests;
