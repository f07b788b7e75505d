//! `broker` runs the embedded broker in the foreground; `broker check` and `broker audit` examine it.

use super::command::{Command, Flag, Parsed, one, switch};
use super::print::{Tone, columns, inline};
use super::{Context, Failure, exit};
use async_signal::{Signal, Signals};
use claudemesh_base::runtime::{Shutdown, iso};
use claudemesh_broker::{Admin, AuditInfo, BrokerError, Check};
use claudemesh_daemon::config::Settings;
use claudemesh_fsm::id::Millis;
use claudemesh_fsm::retry::DedupeWindow;
use futures_lite::{StreamExt, future};
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The hint where there is no ledger, or one without a mesh.
pub(super) const NO_LEDGER_HINT: &str =
    "name its data directory with --data, or make one: claudemesh mesh create";

/// What every command that administers a broker takes.
pub(super) const DATA: Flag = one("data", "dir", "the broker's data directory");
/// What every command that administers a mesh takes.
pub(super) const ITS_MESH: Flag = one("mesh", "slug", "in this mesh, where the broker has several");

const LISTEN: Flag = one("listen", "addr", "where it listens (127.0.0.1:7900)");
const OWN_DATA: Flag = one("data", "dir", "its data directory; else ~/.claudemesh/daemon/broker");
const FAITHFUL: Flag =
    switch("faithful", "behave like today's network, faults included (for tests)");

pub(super) const BROKER: Command = Command {
    name: "broker",
    flags: &[LISTEN, OWN_DATA, FAITHFUL],
    about: "run a broker",
    details: "Stays until SIGTERM or Ctrl-C. One broker can carry many meshes.",
    examples: &["claudemesh broker", "claudemesh broker --listen 0.0.0.0:7900 --data /srv/mesh"],
    ..Command::new(run)
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let settings = Settings::load(&context.paths.config_toml())?;
    let listen = parsed
        .parsed(LISTEN, "an address like 127.0.0.1:7900", |text| text.parse::<SocketAddr>().ok())?;
    let print = context.print.clone();
    let data_dir = data_dir(context, parsed);
    let shown_dir = data_dir.display().to_string();
    let options = claudemesh_broker::Options {
        listen: listen.unwrap_or(settings.broker.listen),
        data_dir,
        public_authority: None,
        settings: claudemesh_broker::Settings {
            faithful: parsed.has(FAITHFUL),
            ..settings_of(&settings)
        },
        on_ready: Some(Box::new(move |bound| {
            let url = format!("ws://{bound}/ws");
            let value = json!({ "ok": true, "listen": bound.to_string(), "url": url });
            // Whoever started us may have gone; the broker's work has not.
            let _ = print.answer(&value, || format!("broker at {url}, data in {shown_dir}"));
        })),
    };
    let mut signals = Signals::new([Signal::Term, Signal::Int])
        .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    let (trigger, shutdown) = Shutdown::new();
    context.run(async {
        let stopping = async {
            signals.next().await;
            trigger.fire();
            future::pending().await
        };
        let running = Box::pin(claudemesh_broker::run(options, context.runtime.clone(), shutdown));
        future::or(running, stopping).await.map_err(Failure::from)
    })?;
    Ok(exit::OK)
}

pub(super) const CHECK: Command = Command {
    name: "broker check",
    flags: &[DATA],
    about: "prove that the broker's tables agree",
    details: "Exits 1 when they do not.",
    examples: &["claudemesh broker check", "claudemesh broker check --json"],
    ..Command::new(check)
};

fn check(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let dir = data_dir(context, parsed);
    let found = context.block_on(async {
        let admin = Admin::open(&dir, &context.runtime).await?;
        Ok(admin.check().await?)
    })?;
    let mut value = json!(found);
    value["ok"] = found.is_whole().into();
    context.print.answer(&value, || {
        let Check { messages, dedupe, deliveries, .. } = found;
        let sizes = format!("{messages} messages, {dedupe} dedupe rows, {deliveries} deliveries");
        match found.complaints() {
            complaints if complaints.is_empty() => {
                context.print.paint(Tone::Good, &format!("ok: {sizes}, 0 orphans"))
            }
            complaints => {
                let text = format!("damaged: {sizes}\n{}", complaints.join("\n"));
                context.print.paint(Tone::Bad, &text)
            }
        }
    })?;
    Ok(if found.is_whole() { exit::OK } else { exit::FAILED })
}

pub(super) const AUDIT: Command = Command {
    name: "broker audit",
    flags: &[ITS_MESH, DATA],
    about: "who did what to a mesh, newest first",
    examples: &["claudemesh broker audit --mesh demo"],
    ..Command::new(audit)
};

fn audit(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let dir = data_dir(context, parsed);
    let (mesh, acts) = context.block_on(async {
        let (admin, mesh) = open(context, &dir, parsed).await?;
        let acts = admin.audit(&mesh).await?;
        Ok((mesh, acts))
    })?;
    let shown = |act: &AuditInfo| {
        json!({
            "at": iso(Millis(act.at_ms)), "actor": act.actor, "act": act.act,
            "subject": act.subject, "detail": act.detail,
        })
    };
    let items: Vec<_> = acts.iter().map(shown).collect();
    context.print.answer(&json!({ "mesh": mesh, "acts": items }), || {
        let row = |act: &AuditInfo| {
            let detail = inline(act.detail.as_deref().unwrap_or_default());
            let at = iso(Millis(act.at_ms));
            vec![at, act.actor.clone(), act.act.clone(), act.subject.clone(), detail]
        };
        columns(&acts.iter().map(row).collect::<Vec<_>>())
    })
}

/// Opens the broker's administration. The mesh is the flag's, or else the only one.
pub(super) async fn open(
    context: &Context,
    dir: &Path,
    parsed: &Parsed,
) -> Result<(Admin, String), Failure> {
    let admin = Admin::open(dir, &context.runtime).await?;
    if let Some(mesh) = parsed.value(ITS_MESH) {
        return Ok((admin, mesh.to_owned()));
    }
    let meshes = admin.meshes().await?;
    match &meshes[..] {
        [] => Err(Failure::failed(format!("the broker of {} has no mesh", dir.display()))
            .hint(NO_LEDGER_HINT)),
        [one] => Ok((admin, one.slug.clone())),
        several => {
            let slugs: Vec<_> = several.iter().map(|mesh| mesh.slug.as_str()).collect();
            let words = format!("which mesh? this broker has {}", slugs.join(", "));
            Err(Failure::usage(words).hint("choose one with --mesh <slug>"))
        }
    }
}

/// `--data`, or the daemon's own broker directory.
pub(super) fn data_dir(context: &Context, parsed: &Parsed) -> PathBuf {
    parsed.value(DATA).map_or_else(|| context.paths.broker_dir(), PathBuf::from)
}

/// The broker's settings from `config.toml`.
pub(super) fn settings_of(settings: &Settings) -> claudemesh_broker::Settings {
    let disk_reserved_bytes = settings.disk.reserved_bytes;
    let settings = &settings.broker;
    claudemesh_broker::Settings {
        lease_ms: settings.lease_ms,
        presence_lease_ms: settings.presence_lease_ms,
        rate: (settings.rate_burst > 0).then(|| claudemesh_broker::Rate {
            burst: settings.rate_burst,
            per_second: f64::from(settings.rate_per_s),
        }),
        dedupe_retention_days: match settings.retention_days {
            DedupeWindow::Permanent => None,
            DedupeWindow::Days(days) => Some(days),
        },
        undelivered_days: settings.mail_days,
        connections_per_mesh_max: settings.connections_max,
        disk_reserved_bytes,
        faithful: false,
    }
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        let is_elsewhere = matches!(error, BrokerError::NoLedger(_));
        let (exit, code) = match &error {
            BrokerError::NoLedger(_) => (exit::FAILED, "no_ledger"),
            BrokerError::AlreadyRunning(_) => (exit::CONFLICT, "broker_already_running"),
            BrokerError::AddressTaken(_) => (exit::CONFLICT, "address_taken"),
            BrokerError::Conflict(_) => (exit::CONFLICT, "conflict"),
            BrokerError::Ledger(_) => (exit::CONFLICT, "ledger"),
            BrokerError::Invalid(_) => (exit::USAGE, "invalid"),
            BrokerError::NotFound(_) => (exit::FAILED, "not_found"),
            BrokerError::Unreachable(_) => (exit::FAILED, "broker_unreachable"),
            BrokerError::NotRunning(_) => (exit::FAILED, "broker_not_running"),
            BrokerError::Io(_) => (exit::FAILED, "io"),
        };
        let failure = Self::new(exit, code, error);
        if is_elsewhere {
            return failure.hint(NO_LEDGER_HINT);
        }
        failure
    }
}
