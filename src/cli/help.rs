//! `help` and `version`. A help page is made from the declarations of the commands.

use super::command::{Command, Flag, FlagValue, GLOBAL_FLAGS, Parsed};
use super::print::Printer;
use super::{Context, Failure, exit};
use serde_json::json;
use std::fmt::Write as _;

/// The version that every part of this build reports.
const NUMBER: &str = env!("CARGO_PKG_VERSION");
const OPENING: &str = "claudemesh: makes this host a peer on a message mesh\n\n\
                       Usage: claudemesh <command> [flags]\n";
/// Lines of prose are broken here.
const LINE_CHARACTERS_MAX: usize = 78;

pub(super) const VERSION: Command = Command {
    name: "version",
    about: "print the version",
    ..Command::new(|context, _| version(&context.print))
};

pub(super) const HELP: Command = Command {
    name: "help",
    operands: &["[command]..."],
    about: "explain a command",
    ..Command::new(help)
};

/// Prints the version.
pub(super) fn version(print: &Printer) -> Result<u8, Failure> {
    print.answer(&json!({ "version": NUMBER }), || format!("claudemesh {NUMBER}"))
}

fn help(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    context.print.text(&page(parsed.commands, &parsed.operands)?).map(|()| exit::OK)
}

/// The page for `words`: everything, a group, or one command.
///
/// A failure when there is no such command.
pub(super) fn page(commands: &[Command], words: &[String]) -> Result<String, Failure> {
    if words.is_empty() {
        return Ok(overview(commands.iter(), OPENING));
    }
    if let Some(command) = commands.iter().find(|command| command.is_called(words)) {
        return Ok(of_command(commands, command));
    }
    let in_group = || commands.iter().filter(|command| command.begins_with(words));
    if in_group().next().is_some() {
        let opening = format!("Usage: claudemesh {} <command> [flags]\n", words.join(" "));
        return Ok(overview(in_group(), &opening));
    }
    let failure = Failure::usage(format!("no help for {:?}", words.join(" ")));
    Err(failure.hint("see `claudemesh help`"))
}

fn overview<'a>(commands: impl Iterator<Item = &'a Command>, opening: &str) -> String {
    let mut page = format!("{opening}\nCommands:\n");
    columns(&mut page, commands.map(|command| (command.name.to_owned(), command.about)));
    page.push_str("\nFlags of every command:\n");
    columns(&mut page, GLOBAL_FLAGS.iter().map(|flag| (spelling(flag), flag.about)));
    page.push_str("\n`claudemesh help <command>` says more.\n");
    page
}

fn of_command(commands: &[Command], command: &Command) -> String {
    let mut page = format!("{}\n\nUsage: {}\n", command.about, usage(command));
    for alias in command.aliases {
        page.push_str(&format!("Also:  claudemesh {alias}\n"));
    }
    for longer in commands {
        if longer.name.strip_prefix(command.name).is_some_and(|rest| rest.starts_with(' ')) {
            page.push_str(&format!("See also: claudemesh {}\n", longer.name));
        }
    }
    if !command.details.is_empty() {
        page.push('\n');
        command.details.lines().for_each(|line| wrap(&mut page, line));
    }
    if !command.flags.is_empty() {
        page.push_str("\nFlags:\n");
        columns(&mut page, command.shown_flags().map(|flag| (spelling(flag), flag.about)));
    }
    page.push_str("\nFlags of every command:\n");
    columns(&mut page, GLOBAL_FLAGS.iter().map(|flag| (spelling(flag), flag.about)));
    if !command.examples.is_empty() {
        page.push_str("\nExamples:\n");
        command.examples.iter().for_each(|example| page.push_str(&format!("  {example}\n")));
    }
    page
}

/// The command with what stands behind it.
fn usage(command: &Command) -> String {
    let mut line = format!("claudemesh {}", command.name);
    for operand in command.operands {
        line.push(' ');
        line.push_str(operand);
    }
    if !command.flags.is_empty() {
        line.push_str(" [flags]");
    }
    line
}

fn spelling(flag: &Flag) -> String {
    match flag.takes {
        FlagValue::Nothing => format!("--{}", flag.long),
        FlagValue::One(value) | FlagValue::Many(value) => format!("--{} <{value}>", flag.long),
        FlagValue::Maybe(value) => format!("--{}[={value}]", flag.long),
    }
}

fn columns<'a>(page: &mut String, rows: impl Iterator<Item = (String, &'a str)>) {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, about) in rows {
        writeln!(page, "  {name:width$}  {about}").expect("a string takes every byte");
    }
}

fn wrap(page: &mut String, text: &str) {
    let mut used = 0;
    for word in text.split_whitespace() {
        let size = word.chars().count();
        if used > 0 && used + 1 + size > LINE_CHARACTERS_MAX {
            page.push('\n');
            used = 0;
        } else if used > 0 {
            page.push(' ');
            used += 1;
        }
        page.push_str(word);
        used += size;
    }
    page.push('\n');
}
