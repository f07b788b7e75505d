//! Help pages, made from the table.

use super::failure::Failure;
use super::table::{COMMANDS, Command, Flag, GLOBAL_FLAGS, Takes};
use std::fmt::Write as _;

const OPENING: &str = "claudemesh: makes this host a peer on a message mesh\n\n\
                       Usage: claudemesh <command> [flags]\n";
/// Lines of prose are broken here.
const LINE_CHARACTERS_MAX: usize = 78;

/// The page for `words`: everything, a group, or one command.
///
/// A failure when there is no such command.
pub(super) fn page(words: &[String]) -> Result<String, Failure> {
    if words.is_empty() {
        return Ok(overview(COMMANDS.iter().filter(|command| !command.is_hidden), OPENING));
    }
    if let Some(command) = COMMANDS.iter().find(|command| command.is_called(words)) {
        return Ok(of_command(command));
    }
    let in_group = || COMMANDS.iter().filter(|command| command.begins_with(words));
    if in_group().next().is_some() {
        let opening = format!("Usage: claudemesh {} <command> [flags]\n", words.join(" "));
        return Ok(overview(in_group(), &opening));
    }
    let failure = Failure::usage(format!("no help for {:?}", words.join(" ")));
    Err(failure.hint("see `claudemesh help`"))
}

fn overview<'a>(commands: impl Iterator<Item = &'a Command>, opening: &str) -> String {
    let mut page = format!("{opening}\nCommands:\n");
    columns(&mut page, commands.map(|command| (command.words.join(" "), command.about)));
    page.push_str("\nFlags of every command:\n");
    columns(&mut page, GLOBAL_FLAGS.iter().map(|flag| (spelling(flag), flag.about)));
    page.push_str("\n`claudemesh help <command>` says more.\n");
    page
}

fn of_command(command: &Command) -> String {
    let mut page = format!("{}\n\nUsage: {}\n", command.about, usage(command));
    for alias in command.aliases {
        page.push_str(&format!("Also:  claudemesh {}\n", alias.join(" ")));
    }
    for longer in COMMANDS.iter().filter(|other| !other.is_hidden) {
        if longer.words != command.words && longer.words.starts_with(command.words) {
            page.push_str(&format!("See also: claudemesh {}\n", longer.words.join(" ")));
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
    let mut line = format!("claudemesh {}", command.words.join(" "));
    for operand in command.operands {
        let dots = if operand.repeats { "..." } else { "" };
        let (open, close) = if operand.required { ("<", ">") } else { ("[", "]") };
        write!(line, " {open}{}{close}{dots}", operand.name).expect("a string takes every byte");
    }
    if !command.flags.is_empty() {
        line.push_str(" [flags]");
    }
    line
}

fn spelling(flag: &Flag) -> String {
    match flag.takes {
        Takes::Nothing => format!("--{}", flag.long),
        Takes::One(value) | Takes::Many(value) => format!("--{} <{value}>", flag.long),
        Takes::Maybe(value) => format!("--{}[={value}]", flag.long),
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
