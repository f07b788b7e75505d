//! The demo's sandbox: a temporary directory, in which this program runs as a broker, as daemons and
//! as short commands.
//!
//! Dropping the sandbox kills the processes that still run, each by its own pid, waits for them, and
//! removes the directory. The processes inherit nothing from the caller's environment, so they cannot
//! touch the caller's files.

use super::process::{POLL_INTERVAL, Process, WAIT_MAX};
use crate::client::Client;
use crate::{Context, Failure};
use claudemesh_base::paths::{
    DEFAULT_DIR, Paths, check_socket_path, ensure_private_dir, write_private,
};
use claudemesh_base::runtime::Runtime;
use rustix::process::Signal;
use std::fs::{DirBuilder, File};
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the directory goes when `TMPDIR` is too long for a Unix socket.
const SHORT_TEMP_DIR: &str = "/tmp";
const PRIVATE_DIR_MODE: u32 = 0o700;
/// How many lines of each process are shown when the demo fails.
const LAST_LINES_SHOWN: usize = 5;
/// Reconnecting and sending again take tenths of seconds here, where a real daemon backs off for
/// up to half a minute and five.
const SETTINGS: &str = "[link]\nbackoff_cap_ms = 250\n\n[outbox]\nbackoff_cap_ms = 250\n";

/// One of the demo's two hosts: a home directory, and the daemon that serves it while it runs.
pub(super) struct DemoHost {
    pub(super) name: &'static str,
    pub(super) paths: Paths,
    pub(super) client: Client,
    pub(super) daemon: Option<Process>,
}

/// Everything the demo made. Processes are dropped before the directory in which they write.
pub(super) struct Sandbox {
    pub(super) alice: DemoHost,
    pub(super) bob: DemoHost,
    broker: Option<Process>,
    program: PathBuf,
    pub(super) runtime: Runtime,
    pub(super) dir: TemporaryDir,
}

/// Removed when dropped.
pub(super) struct TemporaryDir(pub(super) PathBuf);

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // Nobody is left to tell; what stays is in the system's directory for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Sandbox {
    pub(super) fn new(context: &Context) -> Result<Self, Failure> {
        let runtime = context.runtime.clone();
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
        let dir = temporary_dir(&runtime)?;
        let alice = DemoHost::new(&dir.0, "alice", &runtime)?;
        let bob = DemoHost::new(&dir.0, "bob", &runtime)?;
        Ok(Self { alice, bob, broker: None, program, runtime, dir })
    }

    /// The broker's directory.
    pub(super) fn broker_dir(&self) -> PathBuf {
        self.dir.0.join("broker")
    }

    /// Starts the broker and waits until it listens: at a port of the system's choice the first
    /// time, at the same one from then on. The address, and the pid.
    pub(super) async fn start_broker(&mut self) -> Result<(SocketAddr, u32), Failure> {
        let dir = self.broker_dir();
        let port = claudemesh_broker::stored_port(&dir).unwrap_or(0);
        let mut command = self.command(&self.dir.0);
        command.args(["--json", "broker", "--listen", &format!("127.0.0.1:{port}")]);
        command.arg("--data").arg(&dir);
        let mut process = self.spawn("broker", command)?;
        let output = self.output_of("broker");
        let address = self.until("the broker listens", || {
            process.check_runs()?;
            let output_text = std::fs::read_to_string(&output).unwrap_or_default();
            let first = output_text.lines().next().filter(|_| output_text.contains('\n'));
            let first = first.and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            Ok(first.and_then(|line| line["listen"].as_str()?.parse().ok()))
        });
        let address = address.await?;
        let pid = process.pid();
        self.broker = Some(process);
        Ok((address, pid))
    }

    /// Asks the broker to end, as a service manager would.
    pub(super) async fn stop_broker(&mut self) -> Result<(), Failure> {
        match self.broker.take() {
            Some(broker) => broker.end(Signal::TERM, &self.runtime).await.map(drop),
            None => Ok(()),
        }
    }

    /// Starts a host's daemon; its pid. It may not answer yet.
    pub(super) fn start_daemon(&self, host: &DemoHost) -> Result<Process, Failure> {
        let mut command = self.command(&self.dir.0.join(host.name));
        command.args(["daemon", "up", "--foreground", "--no-tcp", "--persistent"]);
        self.spawn(host.name, command)
    }

    /// Runs a short command as `host`; what it answered.
    pub(super) async fn run(&self, host: &DemoHost, args: &[&str]) -> Result<String, Failure> {
        let mut command = self.command(&self.dir.0.join(host.name));
        command.args(args);
        let name = format!("{}-command", host.name);
        let status = self.spawn(&name, command)?.ended(&self.runtime).await?;
        let output_text = std::fs::read_to_string(self.output_of(&name)).unwrap_or_default();
        if status.success() {
            return Ok(output_text.trim_end().to_owned());
        }
        let words = args.join(" ");
        Err(Failure::failed(format!(
            "`claudemesh {words}` ended with {status}: {}",
            output_text.trim()
        )))
    }

    /// Looks until `look` finds something.
    pub(super) async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        self.until_async(what, || std::future::ready(look())).await
    }

    /// Looks until `look` finds something.
    pub(super) async fn until_async<T, F>(
        &self,
        what: &str,
        mut look: impl FnMut() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Option<T>, Failure>>,
    {
        let deadline = self.runtime.monotonic() + WAIT_MAX;
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            if self.runtime.monotonic() >= deadline {
                let seconds = WAIT_MAX.as_secs();
                return Err(Failure::failed(format!("{what}: not within {seconds} s")));
            }
            self.runtime.sleep(POLL_INTERVAL).await;
        }
    }

    /// Every process that runs now.
    pub(super) fn pids(&self) -> Vec<u32> {
        let daemons = [&self.alice.daemon, &self.bob.daemon];
        [&self.broker].into_iter().chain(daemons).flatten().map(Process::pid).collect()
    }

    /// The end of what each process wrote, for a failure's message.
    pub(super) fn recent_output(&self) -> String {
        let mut words = String::new();
        for name in ["broker", self.alice.name, self.bob.name] {
            let output_text = std::fs::read_to_string(self.output_of(name)).unwrap_or_default();
            let lines: Vec<_> = output_text.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST_LINES_SHOWN)..] {
                words += &format!("\n{name}: {line}");
            }
        }
        words
    }

    /// This program, with `home` as its home directory and nothing else in its environment.
    fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", home).current_dir("/");
        command
    }

    /// Starts `command` in a process group of its own, so that Ctrl-C reaches the demo alone and
    /// the demo decides.
    fn spawn(&self, name: &str, mut command: Command) -> Result<Process, Failure> {
        let failed =
            |error: std::io::Error| Failure::failed(format!("cannot start {name}: {error}"));
        let output = File::create(self.output_of(name)).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let child = command.spawn().map_err(failed)?;
        Ok(Process { name: name.to_owned(), child })
    }

    fn output_of(&self, name: &str) -> PathBuf {
        self.dir.0.join(format!("{name}.out"))
    }
}

impl DemoHost {
    fn new(dir: &Path, name: &'static str, runtime: &Runtime) -> Result<Self, Failure> {
        let paths = Paths::under(&dir.join(name).join(DEFAULT_DIR))?;
        ensure_private_dir(&paths.home)?;
        ensure_private_dir(&paths.daemon_dir)?;
        write_private(&paths.config_toml(), SETTINGS.as_bytes())?;
        let client = Client::new(&paths, runtime);
        Ok(Self { name, paths, client, daemon: None })
    }
}

/// A new directory of ours alone, with a path short enough for the sockets in it.
fn temporary_dir(runtime: &Runtime) -> Result<TemporaryDir, Failure> {
    let id = runtime.mint_id().to_lowercase();
    // The end of an id is its random part.
    let name = format!("cm-demo-{}", &id[id.len() - 8..]);
    let mut dir = std::env::temp_dir().join(&name);
    let longest = Paths::under(&dir.join("alice").join(DEFAULT_DIR))?.socket();
    if check_socket_path(&longest).is_err() || !dir.is_absolute() {
        dir = Path::new(SHORT_TEMP_DIR).join(&name);
    }
    DirBuilder::new().mode(PRIVATE_DIR_MODE).create(&dir).map_err(|error| {
        Failure::failed(format!("cannot create {}: {error}", dir.display()))
            .hint("TMPDIR says where temporary directories go")
    })?;
    Ok(TemporaryDir(dir))
}
