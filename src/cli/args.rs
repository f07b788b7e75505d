//! Reads a command line by the declarations of the commands. Touches nothing and runs nothing.

use super::Failure;
use super::command::{Command, Flag, FlagValue, GLOBAL_FLAGS, Parsed, is_required, repeats};
use claudemesh_base::nearest;
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;
use std::path::PathBuf;

/// A name further away than this many edits is not suggested.
const SUGGESTION_DISTANCE_MAX: usize = 3;

/// What a command line asks for.
#[derive(Debug)]
pub(super) enum Invocation {
    /// A command, or a group of them, explained.
    Help { words: Vec<String> },
    /// The version.
    Version,
    /// A command.
    Run { home: Option<PathBuf>, parsed: Parsed },
}

/// Whether the answer is to be JSON: asked of the whole line, so that an error in it is JSON too.
pub(super) fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// Reads a command line.
pub(super) fn parse(
    commands: &'static [Command],
    args: Vec<OsString>,
) -> Result<Invocation, Failure> {
    let mut parser = Parser::from_args(args);
    let mut line = CommandLine { commands, ..CommandLine::default() };
    while let Some(arg) = parser.next().map_err(|error| line.malformed(&error))? {
        match arg {
            Arg::Value(word) => {
                let word = word.into_string().map_err(not_utf8)?;
                line.take_word(word)?;
            }
            Arg::Short('h') => line.wants_help = true,
            Arg::Short('V') => line.wants_version = true,
            Arg::Short(letter) => return Err(line.unknown_flag(&format!("-{letter}"))),
            Arg::Long(name) => {
                let name = name.to_owned();
                line.take_flag(&name, &mut parser)?;
            }
        }
    }
    line.finish()
}

fn not_utf8(word: OsString) -> Failure {
    Failure::usage(format!("{:?} is not UTF-8 text", word.to_string_lossy()))
}

/// A command line as far as it was read.
#[derive(Default)]
struct CommandLine {
    commands: &'static [Command],
    words: Vec<String>,
    command: Option<&'static Command>,
    operands: Vec<String>,
    flags: Vec<(Flag, Option<String>)>,
    home: Option<PathBuf>,
    wants_help: bool,
    wants_version: bool,
}

impl CommandLine {
    fn take_word(&mut self, word: String) -> Result<(), Failure> {
        if let Some(command) = self.command {
            if let Some(longer) = self.continued_by(&word) {
                self.words.push(word);
                self.command = Some(longer);
                return Ok(());
            }
            let takes = command.operands.len();
            if self.operands.len() >= takes && !command.operands.iter().any(|last| repeats(last)) {
                let failure = Failure::usage(format!("{word:?} is one argument too many"));
                return Err(failure.hint(self.see_help()));
            }
            self.operands.push(word);
            return Ok(());
        }
        self.words.push(word);
        self.command = self.commands.iter().find(|command| command.is_called(&self.words));
        let leads_on = self.commands.iter().any(|command| command.begins_with(&self.words));
        if self.command.is_some() || leads_on { Ok(()) } else { Err(self.unknown_command()) }
    }

    /// The command that a word makes of one that takes no operands: `broker`, then `broker check`.
    fn continued_by(&self, word: &str) -> Option<&'static Command> {
        if !self.flags.is_empty() || self.command.is_none_or(|it| !it.operands.is_empty()) {
            return None;
        }
        let words: Vec<String> = self.words.iter().cloned().chain([word.to_owned()]).collect();
        self.commands.iter().find(|command| command.is_called(&words))
    }

    fn take_flag(&mut self, name: &str, parser: &mut Parser) -> Result<(), Failure> {
        match name {
            "help" => self.wants_help = true,
            "version" => self.wants_version = true,
            // Already asked of the whole line.
            "json" => {}
            "home" => {
                let dir = parser.value().map_err(|error| self.malformed(&error))?;
                self.home = Some(dir.into());
            }
            _ => {
                let flag = self.command.and_then(|command| find(command.flags, name));
                let flag = flag.ok_or_else(|| self.unknown_flag(&format!("--{name}")))?;
                let value = match flag.takes {
                    FlagValue::Nothing => None,
                    FlagValue::Maybe(_) => parser.optional_value(),
                    FlagValue::One(_) | FlagValue::Many(_) => {
                        Some(parser.value().map_err(|error| self.malformed(&error))?)
                    }
                };
                let value = value.map(|value| value.string()).transpose();
                self.flags.push((*flag, value.map_err(|error| self.malformed(&error))?));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Invocation, Failure> {
        if self.wants_help {
            return Ok(Invocation::Help { words: self.words });
        }
        if self.wants_version {
            return Ok(Invocation::Version);
        }
        let Some(command) = self.command else {
            if self.words.is_empty() {
                let failure = Failure::usage("no command given");
                return Err(failure.hint("see `claudemesh help`"));
            }
            let group = self.words.join(" ");
            let failure = Failure::usage(format!("`{group}` needs a subcommand"));
            return Err(failure.hint(format!("see `claudemesh help {group}`")));
        };
        if let Some(missing) =
            command.operands.iter().skip(self.operands.len()).find(|operand| is_required(operand))
        {
            let failure = Failure::usage(format!("{} is missing", missing.trim_end_matches("...")));
            return Err(failure.hint(self.see_help()));
        }
        let Self { commands, operands, flags, home, .. } = self;
        Ok(Invocation::Run { home, parsed: Parsed { commands, command, operands, flags } })
    }

    fn see_help(&self) -> String {
        match self.command {
            Some(command) => format!("see `claudemesh {} --help`", command.name),
            None => "see `claudemesh help`".to_owned(),
        }
    }

    fn malformed(&self, error: &lexopt::Error) -> Failure {
        Failure::usage(error).hint(self.see_help())
    }

    fn unknown_command(&self) -> Failure {
        let line = self.words.join(" ");
        // Compared up to where we are: `daemon statsu` with `daemon status`, `sned` with `send`.
        let length = self.words.len();
        let names = self.commands.iter().flat_map(Command::names);
        let names = names.map(|name| name.split(' ').take(length).collect::<Vec<_>>().join(" "));
        let failure = Failure::usage(format!("unknown command {line:?}"));
        match suggestion(&line, names) {
            Some(name) => failure.hint(format!("did you mean `{name}`?")),
            None => failure.hint("see `claudemesh help`"),
        }
    }

    fn unknown_flag(&self, flag: &str) -> Failure {
        let Some(command) = self.command else {
            let failure = Failure::usage(format!("unknown flag {flag} before a command"));
            return failure.hint("flags of a command come after it; see `claudemesh help`");
        };
        let known =
            command.shown_flags().chain(GLOBAL_FLAGS).map(|flag| format!("--{}", flag.long));
        let failure = Failure::usage(format!("`{}` has no flag {flag}", command.name));
        match suggestion(flag, known) {
            Some(name) => failure.hint(format!("did you mean `{name}`?")),
            None => failure.hint(self.see_help()),
        }
    }
}

fn find(flags: &'static [Flag], name: &str) -> Option<&'static Flag> {
    flags.iter().find(|flag| flag.long == name)
}

/// The nearest of `known`, unless it is too far to be meant.
fn suggestion(text: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let (distance, name) = nearest(text, known)?;
    (distance <= SUGGESTION_DISTANCE_MAX && distance < text.chars().count()).then_some(name)
}

#[cfg(test)]
mod tests;
