//! What flags, files and the kind of host make of the options.

use super::*;
use crate::args::{Invocation, parse};
use crate::print::Printer;
use crate::table::COMMANDS;

fn tcp(flags: &[&str], toml: &str, host: Option<HostKind>) -> (bool, bool) {
    let line = ["daemon", "up"].iter().chain(flags).map(Into::into).collect();
    let Ok(Invocation::Run { parsed, .. }) = parse(COMMANDS, line) else { panic!("{flags:?}") };
    let mut settings = Settings::parse(toml).expect("good settings");
    let said = choose_tcp(&mut settings, &parsed, host).expect("no contradiction");
    (settings.ipc.tcp_enabled, said.is_some())
}

#[test]
fn a_daemon_in_the_background_finds_a_home_that_was_named_from_here() {
    let line = ["daemon", "up"].iter().map(Into::into).collect();
    let Ok(Invocation::Run { parsed, .. }) = parse(COMMANDS, line) else { panic!("a command") };
    let home = Some("somewhere".into());
    let context = Context::new(Printer::of_process(false), home).expect("a context");
    let args = child_args(&context, &parsed);
    let given = args.iter().skip_while(|arg| *arg != "--home").nth(1).expect("a home");
    assert_eq!(std::path::Path::new(given), context.paths.home);
}

#[test]
fn legacy_brokers_are_allowed_for_all_meshes_or_for_the_named_ones() {
    let allowed = |flags: &[&str], toml: &str| {
        let line = ["daemon", "up"].iter().chain(flags).map(Into::into).collect();
        let Ok(Invocation::Run { parsed, .. }) = parse(COMMANDS, line) else { panic!("{flags:?}") };
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
    let (ci, container) = (Some(HostKind::Ci("CI")), Some(HostKind::Container("CONTAINER")));
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
