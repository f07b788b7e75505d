//! `daemon status`: how the daemon, its links and its stores are.

use super::command::{Command, Parsed};
use super::print::{Tone, age, columns, inline};
use super::{Context, Failure, exit};
use crate::client;
use claudemesh_base::size::size;
use claudemesh_daemon::api::bodies::{Health, MeshHealth, Version};
use claudemesh_daemon::lock;
use serde_json::json;

/// The narrowest first column of the status: `daemon` and a space.
const NAME_WIDTH_MIN: usize = 7;
/// What is printed where no mesh is joined.
pub(super) const NO_MESH: &str =
    "no mesh joined yet: `claudemesh join <link>`, or `claudemesh mesh create <slug>`";

pub(super) const STATUS: Command = Command {
    name: "daemon status",
    aliases: &["daemon ps", "status"],
    about: "is it running, and how are its links and its outbox",
    details: "Exits 3 when the daemon is not running.",
    examples: &["claudemesh daemon status", "claudemesh daemon status --json"],
    ..Command::new(status)
};

fn status(context: &Context, _: &Parsed) -> Result<u8, Failure> {
    let answers = context.block_on(async {
        let client = context.client();
        Ok((client.health().await, client.version().await))
    })?;
    let (health, version) = match answers {
        (Ok(health), Ok(version)) => (health, version),
        (Err(error), _) | (_, Err(error)) => return status_without_answer(context, error),
    };
    let tcp = tcp_address(context);
    let value = json!({
        "running": true, "pid": health.pid, "version": version.daemon_version,
        "tcp": tcp, "health": health, "meshes": version.meshes,
    });
    context.print.answer(&value, || status_text(context, &health, &version, tcp.as_deref()))
}

fn status_without_answer(context: &Context, error: client::Error) -> Result<u8, Failure> {
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

fn status_text(context: &Context, health: &Health, version: &Version, tcp: Option<&str>) -> String {
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

/// The line that says how full the outbox and the disk are, and whether the databases are whole.
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

/// One line per mesh: its name, its link, how much waits, and why nothing is sent.
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

/// The TCP address of the daemon, by its port file.
fn tcp_address(context: &Context) -> Option<String> {
    let text = std::fs::read_to_string(context.paths.http_port()).ok()?;
    let port: u16 = text.trim().parse().ok()?;
    Some(format!("127.0.0.1:{port}"))
}

/// The uptime in words.
fn uptime(health: &Health) -> String {
    format!("up {}", age(health.uptime_seconds))
}
