//! A small file system on a daemon directory, to be filled and emptied.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Set to 1 where mounting is known to work: then it must.
const REQUIRED: &str = "CLAUDEMESH_REQUIRE_MOUNT";

/// Unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// 3 MiB. `more` is put at the end of the `config.toml`. `None` where we may not mount.
    pub fn mount(at: &Path, more: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("a small disk needs root to mount it");
        }
        let config = std::fs::read_to_string(at.join("config.toml")).ok()?;
        let options = "size=3m,mode=700";
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status();
        if !mounted.is_ok_and(|status| status.success()) {
            return skip("this machine does not let us mount a small disk");
        }
        let disk = Self(at.to_path_buf());
        std::fs::write(at.join("config.toml"), config + more).expect("writes");
        Some(disk)
    }

    /// Takes all that is left.
    pub fn fill(&self) {
        self.fill_up_to(u64::MAX);
    }

    /// Takes about this much.
    pub fn fill_up_to(&self, bytes: u64) {
        let mut ballast = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.0.join("ballast"))
            .expect("opens");
        let mut left = bytes;
        for size in [64 * 1024, 512, 1] {
            while left >= size
                && std::io::Write::write_all(&mut ballast, &vec![7; size as usize]).is_ok()
            {
                left -= size;
            }
        }
    }

    /// Gives it all back.
    pub fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("removes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: the daemon that is killed after this still has its files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Says why a test proves nothing here, and fails if it had to.
fn skip(why: &str) -> Option<SmallDisk> {
    println!("skipped: {why}");
    assert_ne!(std::env::var(REQUIRED).as_deref(), Ok("1"), "{why}");
    None
}
