//! Arguments to plain data, by the [`table`](super::table). Touches nothing; acts on nothing.

use super::failure::Failure;
use super::table::{COMMANDS, Command, Flag, GLOBAL_FLAGS, Takes};
use claudemesh_daemon::config::distance;
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

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
    Run { globals: Globals, parsed: Parsed },
}

/// The flags every command takes and that are not about printing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Globals {
    pub(super) home: Option<PathBuf>,
}

/// A command and what was said to it.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) command: &'static Command,
    pub(super) operands: Vec<String>,
    flags: Vec<(&'static str, Option<String>)>,
}

impl Parsed {
    /// Whether a flag was given.
    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|(name, _)| *name == flag)
    }

    /// A flag's value; the last one counts.
    pub(super) fn value(&self, flag: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(name, _)| *name == flag)?.1.as_deref()
    }

    /// Every value of a flag that may be repeated.
    pub(super) fn values(&self, flag: &str) -> Vec<&str> {
        let of_flag = self.flags.iter().filter(|(name, _)| *name == flag);
        of_flag.filter_map(|(_, value)| value.as_deref()).collect()
    }

    /// Every flag as it was given, to be said again.
    pub(super) fn flags(&self) -> &[(&'static str, Option<String>)] {
        &self.flags
    }

    /// A flag's value as something else.
    pub(super) fn parsed<T>(
        &self,
        flag: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.value(flag) else { return Ok(None) };
        let wrong = || Failure::usage(format!("--{flag} is {text:?}; expected {expected}"));
        parse(text).map(Some).ok_or_else(wrong)
    }

    /// A whole number within bounds.
    pub(super) fn count(&self, flag: &str, max: usize) -> Result<Option<usize>, Failure> {
        let expected = format!("a whole number from 1 to {max}");
        self.parsed(flag, &expected, |text| {
            text.parse().ok().filter(|count| (1..=max).contains(count))
        })
    }

    /// A time like `30s`, `5m` or `7d`.
    pub(super) fn duration(&self, flag: &str) -> Result<Option<Duration>, Failure> {
        self.parsed(flag, "a duration like 30s, 5m or 7d", |text| {
            humantime::parse_duration(text).ok().filter(|time| !time.is_zero())
        })
    }
}

/// Whether the answer is to be JSON: asked of the whole line, so that an error in it is JSON too.
pub(super) fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// Reads a command line.
pub(super) fn parse(args: Vec<OsString>) -> Result<Invocation, Failure> {
    let mut parser = Parser::from_args(args);
    let mut line = Line::default();
    while let Some(arg) = parser.next().map_err(|error| line.misread(&error))? {
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
struct Line {
    words: Vec<String>,
    command: Option<&'static Command>,
    operands: Vec<String>,
    flags: Vec<(&'static str, Option<String>)>,
    globals: Globals,
    wants_help: bool,
    wants_version: bool,
}

impl Line {
    fn take_word(&mut self, word: String) -> Result<(), Failure> {
        if let Some(command) = self.command {
            if let Some(longer) = self.continued_by(&word) {
                self.words.push(word);
                self.command = Some(longer);
                return Ok(());
            }
            let takes = command.operands.len();
            if self.operands.len() >= takes && !command.operands.iter().any(|last| last.repeats) {
                let failure = Failure::usage(format!("{word:?} is one argument too many"));
                return Err(failure.hint(self.see_help()));
            }
            self.operands.push(word);
            return Ok(());
        }
        self.words.push(word);
        self.command = COMMANDS.iter().find(|command| command.is_called(&self.words));
        let leads_on = COMMANDS.iter().any(|command| command.begins_with(&self.words));
        if self.command.is_some() || leads_on { Ok(()) } else { Err(self.unknown_command()) }
    }

    /// The command that a word makes of one that takes no operands: `broker`, then `broker check`.
    fn continued_by(&self, word: &str) -> Option<&'static Command> {
        if !self.flags.is_empty() || self.command.is_none_or(|it| !it.operands.is_empty()) {
            return None;
        }
        let words: Vec<String> = self.words.iter().cloned().chain([word.to_owned()]).collect();
        COMMANDS.iter().find(|command| command.is_called(&words))
    }

    fn take_flag(&mut self, name: &str, parser: &mut Parser) -> Result<(), Failure> {
        match name {
            "help" => self.wants_help = true,
            "version" => self.wants_version = true,
            // Already asked of the whole line.
            "json" => {}
            "home" => {
                let dir = parser.value().map_err(|error| self.misread(&error))?;
                self.globals.home = Some(dir.into());
            }
            _ => {
                let flag = self.command.and_then(|command| find(command.flags, name));
                let flag = flag.ok_or_else(|| self.unknown_flag(&format!("--{name}")))?;
                let value = match flag.takes {
                    Takes::Nothing => None,
                    Takes::Maybe(_) => parser.optional_value(),
                    Takes::One(_) | Takes::Many(_) => {
                        Some(parser.value().map_err(|error| self.misread(&error))?)
                    }
                };
                let value = value.map(|value| value.string()).transpose();
                self.flags.push((flag.long, value.map_err(|error| self.misread(&error))?));
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
            command.operands.iter().skip(self.operands.len()).find(|o| o.required)
        {
            let failure = Failure::usage(format!("<{}> is missing", missing.name));
            return Err(failure.hint(self.see_help()));
        }
        let Self { operands, flags, globals, .. } = self;
        Ok(Invocation::Run { globals, parsed: Parsed { command, operands, flags } })
    }

    fn see_help(&self) -> String {
        match self.command {
            Some(command) => format!("see `claudemesh {} --help`", command.words.join(" ")),
            None => "see `claudemesh help`".to_owned(),
        }
    }

    fn misread(&self, error: &lexopt::Error) -> Failure {
        Failure::usage(error).hint(self.see_help())
    }

    fn unknown_command(&self) -> Failure {
        let line = self.words.join(" ");
        let all = COMMANDS.iter().filter(|command| !command.is_hidden);
        // Compared up to where we are: `daemon statsu` with `daemon status`, `sned` with `send`.
        let names = all
            .flat_map(Command::names)
            .map(|name| name.iter().take(self.words.len()).copied().collect::<Vec<_>>().join(" "));
        let failure = Failure::usage(format!("unknown command {line:?}"));
        match nearest(&line, names) {
            Some(name) => failure.hint(format!("did you mean `{name}`?")),
            None => failure.hint("see `claudemesh help`"),
        }
    }

    fn unknown_flag(&self, flag: &str) -> Failure {
        let Some(command) = self.command else {
            let failure = Failure::usage(format!("unknown flag {flag} before a command"));
            return failure.hint("flags of a command come after it; see `claudemesh help`");
        };
        let words = command.words.join(" ");
        let known =
            command.shown_flags().chain(GLOBAL_FLAGS).map(|flag| format!("--{}", flag.long));
        let failure = Failure::usage(format!("`{words}` has no flag {flag}"));
        match nearest(flag, known) {
            Some(name) => failure.hint(format!("did you mean `{name}`?")),
            None => failure.hint(self.see_help()),
        }
    }
}

fn find(flags: &'static [Flag], name: &str) -> Option<&'static Flag> {
    flags.iter().find(|flag| flag.long == name)
}

/// The nearest of `known`, unless it is too far to be meant.
fn nearest(text: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let best = known.map(|name| (distance(text, &name), name)).min()?;
    (best.0 <= SUGGESTION_DISTANCE_MAX && best.0 < text.chars().count()).then_some(best.1)
}

#[cfg(test)]
mod tests;
