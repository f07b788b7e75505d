//! `daemon version`, `daemon down` and `daemon reload`.

use super::command::{Command, Parsed};
use super::detach::POLL_INTERVAL;
use super::print::inline;
use super::{Context, Failure, exit};
use claudemesh_daemon::config::Settings;
use claudemesh_daemon::lock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::time::Duration;

/// How long `down` waits: the daemon finishes what is in flight (5 s) and checkpoints its stores.
const DOWN_TIMEOUT: Duration = Duration::from_secs(20);
pub(super) const VERSION: Command = Command {
    name: "daemon version",
    about: "which daemon runs, and what it serves",
    examples: &["claudemesh daemon version --json"],
    ..Command::new(version)
};

fn version(context: &Context, _: &Parsed) -> Result<u8, Failure> {
    let version = context.block_on(async {
        context.client().version().await.map_err(|error| context.explain(error))
    })?;
    context.print.answer(&json!(version), || {
        let (daemon, ipc) = (inline(&version.daemon_version), inline(&version.ipc_api));
        format!("daemon {daemon} (ipc {ipc}, schema {})", version.schema_version)
    })
}

pub(super) const DOWN: Command = Command {
    name: "daemon down",
    aliases: &["daemon stop"],
    about: "stop the daemon, and wait until it is gone",
    details: "Exits 0 when there is nothing to stop.",
    examples: &["claudemesh daemon down"],
    ..Command::new(down)
};

fn down(context: &Context, _: &Parsed) -> Result<u8, Failure> {
    let Some(pid) = running_pid(context)? else {
        let value = json!({ "stopped": false, "reason": "not_running" });
        return context.print.answer(&value, || "daemon not running".to_owned());
    };
    signal(pid, Signal::TERM)?;
    context.block_on(async {
        let deadline = context.runtime.monotonic() + DOWN_TIMEOUT;
        let slow = context.runtime.monotonic() + Duration::from_secs(1);
        let mut was_told = false;
        while lock::running(&context.paths).map_err(Failure::failed)?.is_some() {
            if context.runtime.monotonic() >= deadline {
                let seconds = DOWN_TIMEOUT.as_secs();
                let failure = Failure::new(
                    exit::FAILED,
                    "shutdown_timeout",
                    format!("the daemon (pid {pid}) still runs after {seconds} s"),
                );
                return Err(failure.hint(format!("see {}", context.paths.log().display())));
            }
            if !was_told && context.runtime.monotonic() >= slow {
                was_told = true;
                context.print.progress("waiting for what is in flight…");
            }
            context.runtime.sleep(POLL_INTERVAL).await;
        }
        Ok(())
    })?;
    let value = json!({ "stopped": true, "pid": pid });
    context.print.answer(&value, || format!("daemon stopped (was pid {pid})"))
}

/// The pid of the daemon that holds the lock, by its answer or else by its pid file.
fn running_pid(context: &Context) -> Result<Option<u32>, Failure> {
    let Some(in_file) = lock::running(&context.paths).map_err(Failure::failed)? else {
        return Ok(None);
    };
    let answered = context.block_on(async { Ok(context.client().health().await.ok()) })?;
    match answered.map(|health| health.pid).or(in_file) {
        Some(pid) => Ok(Some(pid)),
        None => Err(Failure::failed(format!(
            "a daemon holds {}, and neither its socket nor {} says which process it is",
            context.paths.lock().display(),
            context.paths.pid().display()
        ))),
    }
}

fn signal(pid: u32, signal: Signal) -> Result<(), Failure> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let raw = raw.ok_or_else(|| Failure::failed(format!("{pid} is no process id")))?;
    match kill_process(raw, signal) {
        // Gone in the meantime: the lock says the rest.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Failure::failed(format!("cannot signal process {pid}: {error}"))),
    }
}

pub(super) const RELOAD: Command = Command {
    name: "daemon reload",
    about: "read config.toml and config.json again, and dial what is down",
    details: "Attaches meshes that were joined. Links that wait or were refused dial at once; \
                  open ones stay. Exits 3 when the daemon is not running.",
    examples: &["claudemesh daemon reload"],
    ..Command::new(run_reload)
};

fn run_reload(context: &Context, _: &Parsed) -> Result<u8, Failure> {
    let Some(pid) = running_pid(context)? else {
        context.print.answer(&json!({ "reloading": false, "reason": "not_running" }), || {
            format!("daemon not running; start it with `{}`", context.command("daemon up"))
        })?;
        return Ok(exit::NOT_RUNNING);
    };
    // What it cannot read it says in its log, and goes on as before: so the file is read here too.
    Settings::load(&context.paths.config_toml())?;
    signal(pid, Signal::HUP)?;
    context.print.answer(&json!({ "reloading": true, "pid": pid }), || {
        format!("the daemon (pid {pid}) reads its configuration again; `claudemesh daemon status` shows its links")
    })
}

/// Tells a running daemon to read `config.json` again. Returns whether one runs.
pub(super) fn reload(context: &Context) -> Result<bool, Failure> {
    match running_pid(context)? {
        Some(pid) => signal(pid, Signal::HUP).map(|()| true),
        None => Ok(false),
    }
}
