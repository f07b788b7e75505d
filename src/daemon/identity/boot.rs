//! Which boot of the host this is (§4.7): the one thing that tells a power cut, which forgets
//! commits that were not synced, from a crash of the process, which forgets nothing.

/// Where Linux says it: a number of its own for each boot.
#[cfg(target_os = "linux")]
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot; `None` where the host does not say. Blocks.
#[cfg(target_os = "linux")]
#[must_use]
pub fn boot_id() -> Option<String> {
    sound(&std::fs::read(BOOT_ID_FILE).ok()?)
}

/// The id of this boot; `None` where the host does not say. Blocks.
#[cfg(target_os = "macos")]
#[must_use]
pub fn boot_id() -> Option<String> {
    let mut command = std::process::Command::new("/usr/sbin/sysctl");
    let output = command.args(["-n", "kern.bootsessionuuid"]).env_clear().output().ok()?;
    sound(&output.stdout).filter(|_| output.status.success())
}

/// The id of this boot: this host does not say.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
#[must_use]
pub const fn boot_id() -> Option<String> {
    None
}

/// An id as a UUID is spelt; anything else identifies nothing.
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code))]
fn sound(bytes: &[u8]) -> Option<String> {
    let id = std::str::from_utf8(bytes).ok()?.trim();
    let is_part = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (id.len() == UUID_BYTES && id.bytes().all(is_part)).then(|| id.to_ascii_lowercase())
}

/// Length of a UUID as text.
const UUID_BYTES: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_has_one_id_and_rubbish_is_none() {
        assert_eq!(boot_id(), boot_id());
        let id = "6F9619FF-8B86-D011-B42D-00CF4FC964FF\n";
        assert_eq!(sound(id.as_bytes()), Some(id.trim().to_ascii_lowercase()));
        for rubbish in [&b""[..], b"\xff", b"unknown", b"6f9619ff-8b86-d011-b42d-00cf4fc964f'"] {
            assert_eq!(sound(rubbish), None);
        }
        #[cfg(target_os = "linux")]
        assert!(boot_id().is_some(), "Linux says it");
    }
}
