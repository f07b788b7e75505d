//! `daemon status`, `daemon version`, `daemon down` and `daemon reload`.

use super::args::Parsed;
use super::context::Context;
use super::detach::{LOOK_PAUSE, uptime};
use super::exit;
use super::failure::Failure;
use super::print::{Tone, age, columns, inline};
use crate::client;
use claudemesh_base::size::size;
use claudemesh_daemon::api::bodies::{Health, MeshHealth, Version};
use claudemesh_daemon::config::Settings;
use claudemesh_daemon::lock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::time::Duration;

/// The daemon finishes what is in flight (5 s) and checkpoints its stores.
const DOWN_TIMEOUT: Duration = Duration::from_secs(20);
/// As wide as `daemon`, and a little.
const NAME_WIDTH_MIN: usize = 7;
/// What to say where no mesh is joined.
pub(super) const NO_MESH: &str =
    "no mesh joined yet: `claudemesh join <link>`, or `claudemesh mesh create <slug>`";

/// `daemon status`
pub(super) fn status(context: &Context, _: &Parsed) -> Result<u8, Failure> {
    let asked = context.block_on(async {
        let client = context.client();
        Ok((client.health().await, client.version().await))
    })?;
    let (health, version) = match asked {
        (Ok(health), Ok(version)) => (health, version),
        (Err(error), _) | (_, Err(error)) => return status_of_silence(context, error),
    };
    let tcp = tcp_address(context);
    let value = json!({
        "running": true, "pid": health.pid, "version": version.daemon_version,
        "tcp": tcp, "health": health, "meshes": version.meshes,
    });
    context.print.answer(&value, || screen(context, &health, &version, tcp.as_deref()))?;
    Ok(exit::OK)
}

fn status_of_silence(context: &Context, error: client::Error) -> Result<u8, Failure> {
    match lock::running(&context.paths).map_err(Failure::failed)? {
        Some(pid) => {
            let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            let failure = Failure::new(
                exit::FAILED,
                "daemon_unanswered",
                format!("the daemon runs{who} and does not answer: {error}"),
            );
            let log = context.paths.log();
            Err(failure.with("running", true).hint(format!("see {}", log.display())))
        }
        None => {
            let start = context.command("daemon up");
            context.print.answer(&json!({ "running": false }), || {
                format!("daemon   not running; start it with `{start}`")
            })?;
            Ok(exit::NOT_RUNNING)
        }
    }
}

fn screen(context: &Context, health: &Health, version: &Version, tcp: Option<&str>) -> String {
    let mut about = format!(
        "running, pid {}, {}, {}",
        health.pid,
        inline(&version.daemon_version),
        uptime(health)
    );
    if let Some(tcp) = tcp {
        about += &format!(", tcp {tcp}");
    }
    if health.status != "ok" {
        about += &format!(", {}", context.print.paint(Tone::Bad, &inline(&health.status)));
    }
    let outbox = &health.outbox;
    let mut depth = format!(
        "{} pending, {} in flight, {} done, {} dead, {} aborted",
        outbox.pending, outbox.inflight, outbox.done, outbox.dead, outbox.aborted
    );
    if let Some(oldest) = outbox.oldest_pending_age_seconds {
        depth += &format!("; the oldest pending for {}", age(oldest));
    }
    let width = name_width(health);
    let links = if health.meshes.is_empty() { NO_MESH.to_owned() } else { link_lines(health) };
    let mut lines = vec![format!("{:<width$}  {about}", "daemon")];
    let why = |word, texts: &[String]| {
        texts.iter().map(|text| format!("{word:<width$}  {}", inline(text))).collect::<Vec<_>>()
    };
    lines.extend(why("why", &health.reasons));
    lines.extend(why("warning", &health.warnings));
    lines.push(format!("{:<width$}  {}", "store", store_line(health)));
    lines.push(format!("{:<width$}  {depth}", "outbox"));
    lines.push(links);
    lines.join("\n")
}

/// How full the outbox and the disk are, and whether the databases are whole.
fn store_line(health: &Health) -> String {
    let outbox = &health.outbox;
    let (used, max) = (size(outbox.bytes), size(outbox.max_bytes));
    let mut line = format!("outbox {used} of {max} ({} %)", outbox.percent);
    if let (Some(free), Some(percent)) = (health.disk.free_bytes, health.disk.used_percent) {
        line += &format!(", disk {} free ({percent} % used)", size(free));
    }
    match (health.stores.outbox.as_str(), health.stores.inbox.as_str()) {
        ("whole", "whole") => line + ", checked",
        (outbox, inbox) => {
            line + &format!(", outbox.db {}, inbox.db {}", inline(outbox), inline(inbox))
        }
    }
}

fn name_width(health: &Health) -> usize {
    let longest = health.meshes.iter().map(|mesh| inline(&mesh.mesh).chars().count()).max();
    longest.unwrap_or_default().max(NAME_WIDTH_MIN)
}

/// Per mesh: its name, its link, what waits, and why nothing moves.
pub(super) fn link_lines(health: &Health) -> String {
    let width = name_width(health);
    let row = |mesh: &MeshHealth| {
        let mut depth = format!("{} pending, {} in flight", mesh.pending, mesh.inflight);
        if let Some(oldest) = mesh.oldest_pending_age_seconds {
            depth += &format!(", oldest {}", age(oldest));
        }
        let mut cells = vec![format!("{:<width$}", inline(&mesh.mesh)), inline(&mesh.link), depth];
        let why = [&mesh.reason, &mesh.remedy].into_iter().flatten();
        let why = why.map(|text| inline(text)).collect::<Vec<_>>().join(": ");
        if !why.is_empty() {
            cells.push(why);
        }
        cells
    };
    columns(&health.meshes.iter().map(row).collect::<Vec<_>>())
}

/// Where the daemon listens on TCP, as it says in its file.
fn tcp_address(context: &Context) -> Option<String> {
    let text = std::fs::read_to_string(context.paths.http_port()).ok()?;
    let port: u16 = text.trim().parse().ok()?;
    Some(format!("127.0.0.1:{port}"))
}

/// `daemon version`
pub(super) fn version(context: &Context, _: &Parsed) -> Result<u8, Failure> {
    let version = context.block_on(async {
        context.client().version().await.map_err(|error| context.explain(error))
    })?;
    context.print.answer(&json!(version), || {
        let (daemon, ipc) = (inline(&version.daemon_version), inline(&version.ipc_api));
        format!("daemon {daemon} (ipc {ipc}, schema {})", version.schema_version)
    })?;
    Ok(exit::OK)
}

/// `daemon down`
pub(super) fn down(context: &Context, _: &Parsed) -> Result<u8, Failure> {
    let Some(pid) = running_pid(context)? else {
        context.print.answer(&json!({ "stopped": false, "reason": "not_running" }), || {
            "daemon not running".to_owned()
        })?;
        return Ok(exit::OK);
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
            context.runtime.sleep(LOOK_PAUSE).await;
        }
        Ok(())
    })?;
    let value = json!({ "stopped": true, "pid": pid });
    context.print.answer(&value, || format!("daemon stopped (was pid {pid})"))?;
    Ok(exit::OK)
}

/// The pid of the daemon that holds the lock: what its socket says, else its file.
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

/// `daemon reload`
pub(super) fn run_reload(context: &Context, _: &Parsed) -> Result<u8, Failure> {
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
    })?;
    Ok(exit::OK)
}

/// Tells a running daemon to read `config.json` again; whether one runs.
pub(super) fn reload(context: &Context) -> Result<bool, Failure> {
    match running_pid(context)? {
        Some(pid) => signal(pid, Signal::HUP).map(|()| true),
        None => Ok(false),
    }
}
