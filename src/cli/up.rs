//! `daemon up`: makes the daemon's options from flags, files and the kind of host; then runs the
//! daemon in this process, or starts it in the background.

use super::command::{Command, Flag, Parsed, many, maybe, one, switch};
use super::detect::{self, HostKind};
use super::{Context, Failure, broker, detach, exit, recover};
use claudemesh_daemon::config::{Origin, Settings};
use claudemesh_daemon::error::DaemonError;
use claudemesh_daemon::join;
use claudemesh_daemon::startup::{self, LocalBroker};
use std::net::SocketAddr;

const TCP_KEY: &str = "ipc.tcp_enabled";
const LEGACY_KEY: &str = "features.allow_legacy_broker";

const FOREGROUND: Flag =
    switch("foreground", "stay, and write the log to standard error (services)");
const DETACHED: Flag = switch("detached", "");
const LOCAL: Flag = switch("local", "also run the embedded broker, with a mesh `local`");
const LISTEN: Flag = one("listen", "addr", "where the embedded broker listens (with --local)");
const MESH: Flag = many("mesh", "slug", "serve only this mesh; may be repeated");
const NAME: Flag = one("name", "name", "the name peers see");
const NO_TCP: Flag = switch("no-tcp", "listen on the Unix socket alone");
const TCP: Flag = switch("tcp", "listen on loopback TCP too, also in a container or in CI");
const PERSISTENT: Flag = switch("persistent", "in CI, behave as anywhere else");
const PUBLIC_HEALTH: Flag =
    switch("public-health", "answer GET /v1/health on TCP without the token");
const ALLOW_LEGACY_BROKER: Flag =
    maybe("allow-legacy-broker", "slug", "accept a broker that does not deduplicate");

pub(super) const UP: Command = Command {
    name: "daemon up",
    aliases: &["daemon start"],
    flags: &[
        FOREGROUND,
        DETACHED,
        LOCAL,
        LISTEN,
        MESH,
        NAME,
        NO_TCP,
        TCP,
        PERSISTENT,
        PUBLIC_HEALTH,
        ALLOW_LEGACY_BROKER,
    ],
    about: "start the daemon",
    details: "Detaches, and returns once the daemon answers and every link has its first \
                  verdict (at most 5 s). A daemon that already runs is left alone.",
    examples: &["claudemesh daemon up", "claudemesh daemon up --local"],
    ..Command::new(run)
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let host = detect::detect(&|name| std::env::var_os(name), &|path| path.exists());
    let (options, choice) = options(context, parsed, host)?;
    if !parsed.has(FOREGROUND) {
        // What is wrong with flags and files was said here; the child reads them again.
        return detach::start(context, &child_args(context, parsed), choice.as_deref());
    }
    if let Some(choice) = choice.filter(|_| !parsed.has(DETACHED)) {
        context.print.note(&choice);
    }
    match startup::run(options) {
        Ok(()) => Ok(exit::OK),
        Err(DaemonError::AlreadyRunning(_)) => detach::report_running(context),
        Err(error @ DaemonError::StoreDamaged(_)) => Err(damaged(context, error)),
        Err(error) => Err(Failure::new(error.exit_code(), code_of(&error), error)),
    }
}

/// The failure of a damaged store, with what can be done about it (§4.11).
pub(super) fn damaged(context: &Context, why: impl std::fmt::Display) -> Failure {
    Failure::new(exit::CONFLICT, "store_damaged", why).hint(recover::hints(context))
}

const fn code_of(error: &DaemonError) -> &'static str {
    match error {
        DaemonError::AlreadyRunning(_) => "already_running",
        DaemonError::StoreDamaged(_) => "store_damaged",
        DaemonError::Conflict(_) => "conflict",
        DaemonError::Refused(_) => "refused",
        DaemonError::Failed(_) => "failed",
    }
}

/// The daemon's options, and a note if the kind of host decided something.
fn options(
    context: &Context,
    parsed: &Parsed,
    host: Option<HostKind>,
) -> Result<(startup::DaemonOptions, Option<String>), Failure> {
    let mut settings = Settings::load(&context.paths.config_toml())?;
    let choice = choose_tcp(&mut settings, parsed, host)?;
    if let Some(name) = parsed.value(NAME) {
        settings.set("daemon.display_name", name, Origin::Flag)?;
    }
    if parsed.has(PUBLIC_HEALTH) {
        settings.set("ipc.public_health_check", true, Origin::Flag)?;
    }
    allow_legacy_brokers(&mut settings, parsed)?;
    let listen = parsed
        .parsed(LISTEN, "an address like 127.0.0.1:7900", |text| text.parse::<SocketAddr>().ok())?;
    if listen.is_some() && !parsed.has(LOCAL) {
        let failure = Failure::usage("--listen is for the embedded broker");
        return Err(failure.hint("add --local, or run `claudemesh broker --listen …`"));
    }
    let local_broker = parsed.has(LOCAL).then(|| LocalBroker {
        listen,
        default_listen: settings.broker.listen,
        settings: broker::settings_of(&settings),
        member_name: settings.daemon.display_name.clone().unwrap_or_else(Context::default_name),
    });
    let options = startup::DaemonOptions {
        paths: context.paths.clone(),
        settings,
        only_meshes: only_meshes(context, parsed)?,
        local_broker,
        // In the background standard error is a file that nobody rotates.
        log_to_stderr: !parsed.has(DETACHED),
    };
    Ok((options, choice))
}

/// Applies `--allow-legacy-broker`, which is for every mesh, and `--allow-legacy-broker=<slug>`,
/// which adds one mesh to those of the file.
fn allow_legacy_brokers(settings: &mut Settings, parsed: &Parsed) -> Result<(), Failure> {
    let given = parsed.flags.iter().filter(|(flag, _)| flag.long == ALLOW_LEGACY_BROKER.long);
    let slugs: Option<Vec<String>> = given.map(|(_, slug)| slug.clone()).collect();
    match slugs {
        None => settings.set(LEGACY_KEY, true, Origin::Flag)?,
        Some(slugs) if !slugs.is_empty() => settings.allow_legacy_brokers(slugs)?,
        Some(_) => {}
    }
    Ok(())
}

/// Decides whether to listen on TCP: by a flag, else `config.toml`, else the kind of host, which
/// yields a note.
fn choose_tcp(
    settings: &mut Settings,
    parsed: &Parsed,
    host: Option<HostKind>,
) -> Result<Option<String>, Failure> {
    let (wanted, unwanted) = (parsed.has(TCP), parsed.has(NO_TCP));
    if wanted && unwanted {
        return Err(Failure::usage("--tcp and --no-tcp contradict each other"));
    }
    if wanted || unwanted {
        settings.set(TCP_KEY, wanted, Origin::Flag)?;
        return Ok(None);
    }
    let Some(host) = host else { return Ok(None) };
    let is_undone = matches!(host, HostKind::Ci(_)) && parsed.has(PERSISTENT);
    if is_undone || settings.origin(TCP_KEY) != Some(Origin::Default) {
        return Ok(None);
    }
    settings.set(TCP_KEY, false, Origin::Detection)?;
    let words = host.words();
    Ok(Some(format!(
        "this looks like {words}: listening on the Unix socket alone; --tcp undoes it"
    )))
}

fn only_meshes(context: &Context, parsed: &Parsed) -> Result<Vec<String>, Failure> {
    let wanted: Vec<String> = parsed.values(MESH).into_iter().map(str::to_owned).collect();
    if wanted.is_empty() {
        return Ok(wanted);
    }
    let joined = join::joined(&context.paths)?;
    for slug in &wanted {
        if !joined.iter().any(|mesh| mesh.slug == *slug) {
            let known: Vec<_> = joined.iter().map(|mesh| mesh.slug.as_str()).collect();
            let failure = Failure::usage(format!("--mesh {slug:?} is no mesh joined here"));
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(failure.hint(format!("joined: {known}")));
        }
    }
    Ok(wanted)
}

/// The command line of the daemon in the background.
fn child_args(context: &Context, parsed: &Parsed) -> Vec<std::ffi::OsString> {
    let start = ["daemon", "up", "--foreground", "--detached"];
    let mut args: Vec<std::ffi::OsString> = start.map(Into::into).into();
    if context.home.is_some() {
        // Not as it was written: the daemon starts in the root directory.
        args.extend(["--home".into(), context.paths.home.clone().into()]);
    }
    for (flag, value) in &parsed.flags {
        let mut arg = format!("--{}", flag.long);
        if let Some(value) = value {
            arg = format!("{arg}={value}");
        }
        args.push(arg.into());
    }
    args
}

#[cfg(test)]
mod tests;
