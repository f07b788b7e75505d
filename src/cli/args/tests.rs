//! What each command line is read as.

use super::super::command::{MESH, one};
use super::*;
use crate::table::COMMANDS;
use std::time::Duration;

const WAIT: Flag = one("wait", "", "");
const META: Flag = one("meta", "", "");
const LIMIT: Flag = one("limit", "", "");

fn read(line: &str) -> Result<Invocation, Failure> {
    parse(COMMANDS, line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect())
}

fn run(line: &str) -> Parsed {
    match read(line) {
        Ok(Invocation::Run { parsed, .. }) => parsed,
        other => panic!("{line}: {other:?}"),
    }
}

fn wrong(line: &str) -> (String, String) {
    let failure = read(line).expect_err(line);
    assert_eq!(failure.exit, super::super::exit::USAGE, "{line}");
    (failure.message, failure.hint.unwrap_or_default())
}

#[test]
fn flags_stand_anywhere_behind_their_command_and_global_ones_anywhere() {
    for line in [
        "send bob hi --wait=5s --mesh demo",
        "send --wait=5s --mesh=demo bob hi",
        "--json send bob --wait=5s hi --mesh demo",
        "send bob --json --mesh demo --wait=5s -- hi",
    ] {
        let parsed = run(line);
        assert_eq!(parsed.command.name, "send", "{line}");
        assert_eq!(parsed.operands, ["bob", "hi"], "{line}");
        assert_eq!(parsed.value(MESH), Some("demo"));
        assert_eq!(parsed.duration(WAIT).expect("good"), Some(Duration::from_secs(5)));
    }
    let args = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
    assert!(wants_json(&args("send bob hi --json")) && wants_json(&args("--json status")));
    assert!(!wants_json(&args("send bob -- --json")));
}

#[test]
fn an_optional_value_never_swallows_a_word() {
    let parsed = run("send --wait bob hi");
    assert!(parsed.has(WAIT));
    assert_eq!((parsed.value(WAIT), parsed.operands.len()), (None, 2));
}

#[test]
fn a_flag_may_repeat_and_otherwise_the_last_counts() {
    let parsed = run("send bob hi --meta a=1 --meta b=2 --mesh x --mesh y");
    assert_eq!(parsed.values(META), ["a=1", "b=2"]);
    assert_eq!(parsed.value(MESH), Some("y"));
}

#[test]
fn aliases_are_the_same_command() {
    for (alias, name) in [
        ("daemon ps", "daemon status"),
        ("outbox list --failed", "daemon outbox list"),
        ("daemon outbox requeue 7", "daemon outbox requeue"),
        ("outbox requeue 7", "daemon outbox requeue"),
    ] {
        assert_eq!(run(alias).command.name, name, "{alias}");
    }
}

#[test]
fn home_help_and_version_are_understood_everywhere() {
    let Ok(Invocation::Run { home, .. }) = read("daemon --home /h status") else { panic!() };
    assert_eq!(home, Some(PathBuf::from("/h")));
    for line in ["-h", "--help", "send --help", "daemon -h", "send bob -h"] {
        assert!(matches!(read(line), Ok(Invocation::Help { .. })), "{line}");
    }
    for line in ["-V", "--version", "send --version"] {
        assert!(matches!(read(line), Ok(Invocation::Version)), "{line}");
    }
}

#[test]
fn what_is_misspelt_is_suggested() {
    for (line, complaint, hint) in [
        ("sned bob hi", "unknown command \"sned\"", "did you mean `send`?"),
        ("daemon statsu", "unknown command \"daemon statsu\"", "did you mean `daemon status`?"),
        ("send bob hi --mseh x", "`send` has no flag --mseh", "did you mean `--mesh`?"),
        ("inbox --jsno", "`inbox` has no flag --jsno", "did you mean `--json`?"),
        ("peers -x", "`peers` has no flag -x", "see `claudemesh peers --help`"),
        ("--mesh x send", "unknown flag --mesh before a command", "flags of a command come after"),
        ("xyzzy", "unknown command \"xyzzy\"", "see `claudemesh help`"),
        ("", "no command given", "see `claudemesh help`"),
        ("daemon", "`daemon` needs a subcommand", "see `claudemesh help daemon`"),
        ("daemon outbox", "`daemon outbox` needs a subcommand", "help daemon outbox"),
        ("send", "<to> is missing", "see `claudemesh send --help`"),
        ("send bob", "<message> is missing", "see `claudemesh send --help`"),
        ("daemon up now", "\"now\" is one argument too many", "see `claudemesh daemon up"),
        ("send bob hi --mesh", "missing argument for option '--mesh'", "see `claudemesh send"),
        ("inbox --follow=yes", "unexpected argument for option '--follow'", "see `claudemesh"),
    ] {
        let (message, said) = wrong(line);
        assert!(message.contains(complaint), "{line}: {message}");
        assert!(said.contains(hint), "{line}: {said}");
    }
}

#[test]
fn a_value_out_of_bounds_names_the_flag_and_what_was_expected() {
    let parsed = run("inbox --limit 0");
    let refused = parsed.count(LIMIT, 1000).expect_err("zero").message;
    assert_eq!(refused, "--limit is \"0\"; expected a whole number from 1 to 1000");
    let refused = run("send a b --wait=soon").duration(WAIT).expect_err("no time").message;
    assert_eq!(refused, "--wait is \"soon\"; expected a duration like 30s, 5m or 7d");
}

#[test]
fn no_two_commands_or_flags_share_a_name() {
    let mut names: Vec<_> = COMMANDS.iter().flat_map(Command::names).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    for command in COMMANDS {
        let mut flags: Vec<_> = command.flags.iter().map(|flag| flag.long).collect();
        flags.extend(GLOBAL_FLAGS.iter().map(|flag| flag.long));
        let count = flags.len();
        flags.sort_unstable();
        flags.dedup();
        assert_eq!(flags.len(), count, "{}", command.name);
        // Only the last operand may repeat, and an optional one is followed by no required one.
        let repeating = command.operands.iter().rev().skip(1).any(|operand| repeats(operand));
        assert!(!repeating, "{}", command.name);
        assert!(command.operands.is_sorted_by_key(|operand| !is_required(operand)));
    }
}
