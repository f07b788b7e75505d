//! One identity: a configuration and a daemon directory, and the command line in its name.

use super::process::Process;
use super::{eventually, text};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(super) const BINARY: &str = env!("CARGO_BIN_EXE_claudemesh");

/// Timers short enough for tests; the same code as with the long ones.
pub(super) const QUICK: &str = "[link]\nbackoff_cap_ms = 200\n[outbox]\nbackoff_cap_ms = 400\n";

/// One identity: configuration and daemon directory in a temp dir.
pub struct Home {
    dir: TempDir,
}

impl Home {
    /// An empty one, with short timers.
    pub fn new() -> Self {
        Self::with_config(QUICK)
    }

    /// One with this `config.toml`.
    pub fn with_config(toml: &str) -> Self {
        // Directly under /tmp: socket paths have room for about 100 bytes.
        let dir = tempfile::Builder::new().prefix("cm").tempdir_in("/tmp").expect("a temp dir");
        let daemon_dir = dir.path().join("daemon");
        std::fs::create_dir(&daemon_dir).expect("creates");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&daemon_dir, private).expect("is ours");
        std::fs::write(daemon_dir.join("config.toml"), toml).expect("writes");
        Self { dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn daemon_dir(&self) -> PathBuf {
        self.path().join("daemon")
    }

    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(args).arg("--home").arg(self.path()).env_clear().stdin(Stdio::null());
        command
    }

    /// Runs the command line to its end.
    pub fn cli(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("runs")
    }

    /// Runs the command line; `None` if it has not ended after `limit`, and then it is killed.
    pub fn cli_within(&self, limit: Duration, args: &[&str]) -> Option<Output> {
        let mut command = self.command(args);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        let mut process = Process { child };
        let deadline = Instant::now() + limit;
        while process.is_running() {
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        process.child.stdout.take()?.read_to_end(&mut stdout).expect("reads");
        process.child.stderr.take()?.read_to_end(&mut stderr).expect("reads");
        let status = process.child.wait().expect("waits");
        Some(Output { status, stdout, stderr })
    }

    /// Runs the command line, which must succeed, and reads its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.cli(&[args, &["--json"]].concat());
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{args:?}: {out}{err}");
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{args:?}: {out}"))
    }

    /// Replaces the `config.toml` of the daemon.
    pub fn configure(&self, toml: &str) {
        std::fs::write(self.daemon_dir().join("config.toml"), toml).expect("writes");
    }

    /// Everything in `daemon.log`.
    pub fn log(&self) -> String {
        text(&std::fs::read(self.daemon_dir().join("daemon.log")).unwrap_or_default())
    }

    /// Waits until the log holds a line with `words`, and gives all such lines.
    pub fn wait_for_log(&self, words: &str) -> Vec<String> {
        eventually(&format!("`{words}` in the log"), || {
            let log = self.log();
            let lines: Vec<String> =
                log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect();
            (!lines.is_empty()).then_some(lines)
        })
    }

    /// The port of the daemon's HTTP listener, once it says so.
    pub fn http_port(&self) -> u16 {
        let path = self.daemon_dir().join("http.port");
        eventually("the HTTP port", || std::fs::read_to_string(&path).ok()?.trim().parse().ok())
    }

    /// Makes every mesh of `config.json` reach its broker through `port`.
    pub fn reach_broker_through(&self, port: u16) {
        self.change_meshes(|mesh| mesh["brokerUrl"] = format!("ws://127.0.0.1:{port}/ws").into());
    }

    /// The same for one mesh.
    pub fn reach_broker_of(&self, slug: &str, port: u16) {
        self.change_meshes(|mesh| {
            if mesh["slug"] == slug {
                mesh["brokerUrl"] = format!("ws://127.0.0.1:{port}/ws").into();
            }
        });
    }

    fn change_meshes(&self, change: impl FnMut(&mut Value)) {
        let path = self.path().join("config.json");
        let config = std::fs::read_to_string(&path).expect("reads");
        let mut config: Value = serde_json::from_str(&config).expect("is JSON");
        config["meshes"].as_array_mut().expect("meshes").iter_mut().for_each(change);
        std::fs::write(&path, config.to_string()).expect("writes");
    }
}
