//! Where everything lies (§1.1), and how a file with a secret comes into being: with its final
//! mode, never `chmod`ed afterwards, and whole or not at all.
//!
//! Resolution takes the flag and the environment as arguments ([`Inputs`]), so that a test needs
//! neither a home directory nor a process of its own. Nothing here reads what a file means.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

mod error;
mod files;

pub use error::{PathsError, Warning};

pub use files::{
    check_socket_path, ensure_private_dir, readable_by_others, write_private, write_public,
};

/// Moves configuration and daemon directory together, like `--home`.
pub const HOME_VARIABLE: &str = "CLAUDEMESH_HOME";
/// Moves the configuration directory alone.
pub const CONFIG_DIR_VARIABLE: &str = "CLAUDEMESH_CONFIG_DIR";
/// Moves the daemon directory alone.
pub const DAEMON_DIR_VARIABLE: &str = "CLAUDEMESH_DAEMON_DIR";
/// The directory in the user's home that everything lies in by default.
pub const DEFAULT_DIR: &str = ".claudemesh";
/// The longest Unix socket path, in bytes, without the closing NUL of `sun_path`.
pub const SOCKET_PATH_BYTES_MAX: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// What the paths are made from.
pub struct Inputs<'a> {
    /// The value of `--home`.
    pub home_flag: Option<PathBuf>,
    /// Looks an environment variable up; an empty value counts as unset.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Inputs<'static> {
    /// `--home` as given, and this process's environment.
    #[must_use]
    pub fn from_process(home_flag: Option<PathBuf>) -> Self {
        Self { home_flag, env: &|name| std::env::var_os(name) }
    }
}

impl Inputs<'_> {
    fn directory(&self, name: &str) -> Option<PathBuf> {
        (self.env)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }
}

/// Where everything of one installation lies (§1.1). All absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// What `--home` names, or `~/.claudemesh`.
    pub home: PathBuf,
    /// Holds `config.json`, which is shared with today's network's own CLI.
    pub config_dir: PathBuf,
    /// Holds everything that is ours.
    pub daemon_dir: PathBuf,
}

macro_rules! files {
    ($($(#[$meta:meta])* $name:ident = $dir:ident / $file:literal;)*) => {
        $($(#[$meta])* #[must_use] pub fn $name(&self) -> PathBuf { self.$dir.join($file) })*
    };
}

impl Paths {
    /// Finds the directories: `--home`, then `CLAUDEMESH_HOME`, which move both together; else
    /// `CLAUDEMESH_CONFIG_DIR` (ignored with a warning when it does not exist: older launchers
    /// leave it behind) and `CLAUDEMESH_DAEMON_DIR`, each over `~/.claudemesh`.
    ///
    /// # Errors
    /// When nothing says where home is, or a relative path has no current directory to start from.
    pub fn resolve(inputs: &Inputs<'_>) -> Result<(Self, Vec<Warning>), PathsError> {
        let moved = inputs.home_flag.clone().filter(|dir| !dir.as_os_str().is_empty());
        if let Some(home) = moved.or_else(|| inputs.directory(HOME_VARIABLE)) {
            return Ok((Self::under(&home)?, Vec::new()));
        }
        let mut warnings = Vec::new();
        let config_dir = inputs.directory(CONFIG_DIR_VARIABLE).filter(|dir| {
            let exists = dir.is_dir();
            if !exists {
                warnings.push(Warning::ConfigDirMissing(dir.clone()));
            }
            exists
        });
        let daemon_dir = inputs.directory(DAEMON_DIR_VARIABLE);
        let mut paths = match (inputs.directory("HOME"), &config_dir, &daemon_dir) {
            (Some(home), _, _) => Self::under(&home.join(DEFAULT_DIR))?,
            // Nothing is left for HOME to say.
            (None, Some(config), Some(_)) => Self::under(config)?,
            (None, _, _) => return Err(PathsError::NoHome),
        };
        if let Some(dir) = config_dir {
            paths.config_dir = absolute(&dir)?;
        }
        if let Some(dir) = daemon_dir {
            paths.daemon_dir = absolute(&dir)?;
        }
        Ok((paths, warnings))
    }

    /// Everything under `home`, as `--home` lays it out.
    ///
    /// # Errors
    /// When `home` is relative and there is no current directory.
    pub fn under(home: &Path) -> Result<Self, PathsError> {
        let home = absolute(home)?;
        Ok(Self { config_dir: home.clone(), daemon_dir: home.join("daemon"), home })
    }

    files! {
        /// The joined meshes and their keys; 0600.
        config_json = config_dir / "config.json";
        /// Locked while `config.json` is rewritten; 0600, empty.
        config_lock = config_dir / "config.json.lock";
        /// Locked for the daemon's life: the truth about "is one running"; 0600.
        lock = daemon_dir / "daemon.lock";
        /// The daemon's pid, for people; 0600, never trusted.
        pid = daemon_dir / "daemon.pid";
        /// The IPC socket; 0600.
        socket = daemon_dir / "daemon.sock";
        /// The bearer token of the TCP listener; 0600.
        local_token = daemon_dir / "local-token";
        /// The TCP port actually bound; 0644.
        http_port = daemon_dir / "http.port";
        /// The store of what is sent; 0600.
        outbox_db = daemon_dir / "outbox.db";
        /// The store of what arrived; 0600.
        inbox_db = daemon_dir / "inbox.db";
        /// The last roster of each mesh, so that names survive a restart.
        roster = daemon_dir / "roster.json";
        /// The session key pair of each mesh; 0600.
        session_keys = daemon_dir / "session-keys.json";
        /// The settings (§13); 0644, optional.
        config_toml = daemon_dir / "config.toml";
        /// The embedded broker's data, lock and admin socket (§17.3); 0700.
        broker_dir = daemon_dir / "broker";
        /// JSON lines, rotated by the daemon; 0600.
        log = daemon_dir / "daemon.log";
    }

    /// Every file with a secret that other users can read now.
    #[must_use]
    pub fn exposed_secrets(&self) -> Vec<Warning> {
        let secret = [
            self.config_json(),
            self.local_token(),
            self.session_keys(),
            self.outbox_db(),
            self.inbox_db(),
            self.log(),
        ];
        secret.iter().filter_map(|file| readable_by_others(file)).collect()
    }
}

fn absolute(path: &Path) -> Result<PathBuf, PathsError> {
    std::path::absolute(path).map_err(|error| PathsError::io("find", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(flag: Option<&str>, env: &[(&str, &str)]) -> Result<(Paths, Vec<Warning>), String> {
        let lookup = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        let inputs = Inputs { home_flag: flag.map(PathBuf::from), env: &lookup };
        Paths::resolve(&inputs).map_err(|error| error.to_string())
    }

    fn dirs(flag: Option<&str>, env: &[(&str, &str)]) -> (String, String) {
        let (paths, warnings) = resolve(flag, env).expect("resolvable");
        assert_eq!(warnings, []);
        (paths.config_dir.display().to_string(), paths.daemon_dir.display().to_string())
    }

    #[test]
    fn home_moves_configuration_and_daemon_together() {
        let everything = [
            ("HOME", "/h"),
            (HOME_VARIABLE, "/e"),
            (CONFIG_DIR_VARIABLE, "/"),
            (DAEMON_DIR_VARIABLE, "/d"),
        ];
        assert_eq!(dirs(Some("/f"), &everything), ("/f".into(), "/f/daemon".into()));
        assert_eq!(dirs(None, &everything), ("/e".into(), "/e/daemon".into()));
    }

    #[test]
    fn the_daemon_directory_does_not_follow_the_configuration_directory() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().to_str().expect("text");
        let moved = [("HOME", "/h"), (CONFIG_DIR_VARIABLE, root)];
        assert_eq!(dirs(None, &moved), (root.into(), "/h/.claudemesh/daemon".into()));
        let apart = [("HOME", "/h"), (HOME_VARIABLE, ""), (DAEMON_DIR_VARIABLE, "/d")];
        assert_eq!(dirs(None, &apart), ("/h/.claudemesh".into(), "/d".into()));
        let homeless = [(CONFIG_DIR_VARIABLE, root), (DAEMON_DIR_VARIABLE, "/d")];
        assert_eq!(dirs(None, &homeless), (root.into(), "/d".into()));
    }

    #[test]
    fn a_configuration_directory_that_is_gone_is_ignored_with_a_warning() {
        let env = [("HOME", "/h"), (CONFIG_DIR_VARIABLE, "/nonexistent/config")];
        let (paths, warnings) = resolve(None, &env).expect("resolvable");
        assert_eq!(paths.config_json(), Path::new("/h/.claudemesh/config.json"));
        assert_eq!(warnings, [Warning::ConfigDirMissing("/nonexistent/config".into())]);
        assert!(resolve(None, &[]).expect_err("no home").contains("--home"));
    }

    #[test]
    fn a_relative_home_becomes_absolute() {
        let (paths, _) = resolve(Some("somewhere"), &[]).expect("resolvable");
        assert!(paths.socket().is_absolute());
        assert!(paths.socket().ends_with("somewhere/daemon/daemon.sock"));
    }
}
