//! `daemon up`: flags, files and detection to the daemon's options; then run it here, or start it
//! in the background.

use super::args::Parsed;
use super::context::Context;
use super::detect::{self, Host};
use super::failure::Failure;
use super::{broker, detach, exit, recover};
use claudemesh_daemon::config::{Origin, Settings};
use claudemesh_daemon::error::DaemonError;
use claudemesh_daemon::join;
use claudemesh_daemon::startup::{self, LocalBroker};
use std::net::SocketAddr;

const TCP: &str = "ipc.tcp_enabled";
const LEGACY: &str = "allow-legacy-broker";
const LEGACY_KEY: &str = "features.allow_legacy_broker";

/// `daemon up`
pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let host = detect::detect(&|name| std::env::var_os(name), &|path| path.exists());
    let (options, choice) = options(context, parsed, host)?;
    if !parsed.has("foreground") {
        // What is wrong with flags and files was said here; the child reads them again.
        return detach::start(context, &child_args(context, parsed), choice.as_deref());
    }
    if let Some(choice) = choice.filter(|_| !parsed.has("detached")) {
        context.print.note(&choice);
    }
    match startup::run(options) {
        Ok(()) => Ok(exit::OK),
        Err(DaemonError::AlreadyRunning(_)) => detach::report_running(context),
        Err(error @ DaemonError::StoreDamaged(_)) => Err(damaged(context, error)),
        Err(error) => Err(Failure::new(error.exit_code(), code_of(&error), error)),
    }
}

/// A store is damaged: what can be done about it (§4.11).
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

/// The daemon's options, and what to say about a choice that nobody made.
fn options(
    context: &Context,
    parsed: &Parsed,
    host: Option<Host>,
) -> Result<(startup::DaemonOptions, Option<String>), Failure> {
    let mut settings = Settings::load(&context.paths.config_toml())?;
    let choice = choose_tcp(&mut settings, parsed, host)?;
    if let Some(name) = parsed.value("name") {
        settings.set("daemon.display_name", name, Origin::Flag)?;
    }
    if parsed.has("public-health") {
        settings.set("ipc.public_health_check", true, Origin::Flag)?;
    }
    allow_legacy_brokers(&mut settings, parsed)?;
    let listen = parsed.parsed("listen", "an address like 127.0.0.1:7900", |text| {
        text.parse::<SocketAddr>().ok()
    })?;
    if listen.is_some() && !parsed.has("local") {
        let failure = Failure::usage("--listen is for the embedded broker");
        return Err(failure.hint("add --local, or run `claudemesh broker --listen …`"));
    }
    let local_broker = parsed.has("local").then(|| LocalBroker {
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
        log_to_stderr: !parsed.has("detached"),
    };
    Ok((options, choice))
}

/// `--allow-legacy-broker` is for every mesh, `--allow-legacy-broker=<slug>` for one more than the
/// file names.
fn allow_legacy_brokers(settings: &mut Settings, parsed: &Parsed) -> Result<(), Failure> {
    let given = parsed.flags().iter().filter(|(name, _)| *name == LEGACY);
    let slugs: Option<Vec<String>> = given.map(|(_, slug)| slug.clone()).collect();
    match slugs {
        None => settings.set(LEGACY_KEY, true, Origin::Flag)?,
        Some(slugs) if !slugs.is_empty() => settings.add(LEGACY_KEY, slugs)?,
        Some(_) => {}
    }
    Ok(())
}

/// Decides on TCP: a flag, else `config.toml`, else what kind of host this is. Yields what to say
/// about a choice nobody made.
fn choose_tcp(
    settings: &mut Settings,
    parsed: &Parsed,
    host: Option<Host>,
) -> Result<Option<String>, Failure> {
    let (wanted, unwanted) = (parsed.has("tcp"), parsed.has("no-tcp"));
    if wanted && unwanted {
        return Err(Failure::usage("--tcp and --no-tcp contradict each other"));
    }
    if wanted || unwanted {
        settings.set(TCP, wanted, Origin::Flag)?;
        return Ok(None);
    }
    let Some(host) = host else { return Ok(None) };
    let is_undone = matches!(host, Host::Ci(_)) && parsed.has("persistent");
    if is_undone || settings.origin(TCP) != Some(Origin::Default) {
        return Ok(None);
    }
    settings.set(TCP, false, Origin::Detection)?;
    let words = host.words();
    Ok(Some(format!(
        "this looks like {words}: listening on the Unix socket alone; --tcp undoes it"
    )))
}

fn only_meshes(context: &Context, parsed: &Parsed) -> Result<Vec<String>, Failure> {
    let wanted: Vec<String> = parsed.values("mesh").into_iter().map(str::to_owned).collect();
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
    for (name, value) in parsed.flags() {
        let mut arg = format!("--{name}");
        if let Some(value) = value {
            arg = format!("{arg}={value}");
        }
        args.push(arg.into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Globals, Invocation, parse};
    use crate::print::Printer;

    fn tcp(flags: &[&str], toml: &str, host: Option<Host>) -> (bool, bool) {
        let line = ["daemon", "up"].iter().chain(flags).map(Into::into).collect();
        let Ok(Invocation::Run { parsed, .. }) = parse(line) else { panic!("{flags:?}") };
        let mut settings = Settings::parse(toml).expect("good settings");
        let said = choose_tcp(&mut settings, &parsed, host).expect("no contradiction");
        (settings.ipc.tcp_enabled, said.is_some())
    }

    #[test]
    fn a_daemon_in_the_background_finds_a_home_that_was_named_from_here() {
        let line = ["daemon", "up"].iter().map(Into::into).collect();
        let Ok(Invocation::Run { parsed, .. }) = parse(line) else { panic!("a command") };
        let globals = Globals { home: Some("somewhere".into()) };
        let context = Context::new(Printer::of_process(false), globals).expect("a context");
        let args = child_args(&context, &parsed);
        let given = args.iter().skip_while(|arg| *arg != "--home").nth(1).expect("a home");
        assert_eq!(std::path::Path::new(given), context.paths.home);
    }

    #[test]
    fn legacy_brokers_are_allowed_for_all_meshes_or_for_the_named_ones() {
        let allowed = |flags: &[&str], toml: &str| {
            let line = ["daemon", "up"].iter().chain(flags).map(Into::into).collect();
            let Ok(Invocation::Run { parsed, .. }) = parse(line) else { panic!("{flags:?}") };
            let mut settings = Settings::parse(toml).expect("good settings");
            allow_legacy_brokers(&mut settings, &parsed).expect("good flags");
            ["old", "older", "new"].map(|slug| settings.features.allow_legacy_broker.allows(slug))
        };
        let file = "[features]\nallow_legacy_broker = [\"old\"]";
        let all = "[features]\nallow_legacy_broker = true";
        assert_eq!(allowed(&[], ""), [false, false, false]);
        assert_eq!(allowed(&[], file), [true, false, false]);
        assert_eq!(allowed(&["--allow-legacy-broker"], file), [true, true, true]);
        assert_eq!(allowed(&["--allow-legacy-broker=old"], ""), [true, false, false]);
        assert_eq!(allowed(&["--allow-legacy-broker=older"], file), [true, true, false]);
        assert_eq!(allowed(&["--allow-legacy-broker=older"], all), [true, true, true]);
    }

    #[test]
    fn a_flag_counts_before_the_file_and_the_file_before_detection() {
        let (ci, container) = (Some(Host::Ci("CI")), Some(Host::Container("CONTAINER")));
        let on = "[ipc]\ntcp_enabled = true";
        let off = "[ipc]\ntcp_enabled = false";
        for (flags, toml, host, expected) in [
            (&[][..], "", None, (true, false)),
            (&[], "", ci, (false, true)),
            (&[], "", container, (false, true)),
            (&["--persistent"], "", ci, (true, false)),
            (&["--persistent"], "", container, (false, true)),
            (&["--tcp"], "", container, (true, false)),
            (&["--tcp"], off, ci, (true, false)),
            (&["--no-tcp"], on, None, (false, false)),
            (&[], on, container, (true, false)),
            (&[], off, None, (false, false)),
        ] {
            assert_eq!(tcp(flags, toml, host), expected, "{flags:?} {toml:?} {host:?}");
        }
    }
}
