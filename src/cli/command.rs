//! What a command is, what a flag is, and what a command line said. This module knows no command:
//! each is declared beside the function that runs it, and [`table`](super::table) lists them.

mod parsed;

use super::{Context, Failure};
pub(crate) use parsed::Parsed;

/// Runs a command and returns its exit code.
pub(crate) type Run = fn(&Context, &Parsed) -> Result<u8, Failure>;

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    /// Its name, like `mesh create`.
    pub(crate) name: &'static str,
    /// Its other names.
    pub(crate) aliases: &'static [&'static str],
    /// The words after the name, as help shows them: `<to>` is required, `[id]` is not, and
    /// `<message>...` takes all words that are left.
    pub(crate) operands: &'static [&'static str],
    pub(crate) flags: &'static [Flag],
    /// One line.
    pub(crate) about: &'static str,
    /// What the line leaves open.
    pub(crate) details: &'static str,
    pub(crate) examples: &'static [&'static str],
    pub(crate) run: Run,
}

impl Command {
    /// A command without a name and without anything that need not be said.
    pub(crate) const fn new(run: Run) -> Self {
        Self {
            name: "",
            aliases: &[],
            operands: &[],
            flags: &[],
            about: "",
            details: "",
            examples: &[],
            run,
        }
    }

    /// Its name and its aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// The flags that help shows.
    pub(crate) fn shown_flags(&self) -> impl Iterator<Item = &'static Flag> + use<> {
        self.flags.iter().filter(|flag| !flag.about.is_empty())
    }

    /// Whether these words are its name, or one of its aliases.
    pub(crate) fn is_called(&self, words: &[String]) -> bool {
        self.names().any(|name| name.split(' ').eq(words))
    }

    /// Whether one of its names begins with these words and goes on.
    pub(crate) fn begins_with(&self, words: &[String]) -> bool {
        let goes_on = |name: &str| name.split(' ').count() > words.len();
        self.names().any(|name| {
            goes_on(name) && name.split(' ').zip(words).all(|(word, given)| word == given)
        })
    }
}

/// Whether an operand must be given.
pub(crate) fn is_required(operand: &str) -> bool {
    operand.starts_with('<')
}

/// Whether an operand takes all words that are left.
pub(crate) fn repeats(operand: &str) -> bool {
    operand.ends_with("...")
}

/// A flag. Commands declare their flags as constants and ask [`Parsed`] with them, so that a
/// misspelt flag does not compile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Its name, without the `--`.
    pub(crate) long: &'static str,
    pub(crate) takes: FlagValue,
    /// What it does; empty for a flag that is understood and not shown.
    pub(crate) about: &'static str,
}

/// What stands behind a flag, with its name in help.
#[derive(Debug, Clone, Copy)]
pub(crate) enum FlagValue {
    Nothing,
    /// One value; the last one counts.
    One(&'static str),
    /// One value each time.
    Many(&'static str),
    /// A value, but only with `=`.
    Maybe(&'static str),
}

/// A flag without a value.
pub(crate) const fn switch(long: &'static str, about: &'static str) -> Flag {
    Flag { long, takes: FlagValue::Nothing, about }
}

/// A flag with a value, of which the last one counts.
pub(crate) const fn one(long: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { long, takes: FlagValue::One(value), about }
}

/// A flag that may be repeated, with a value each time.
pub(crate) const fn many(long: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { long, takes: FlagValue::Many(value), about }
}

/// A flag that may have a value, after `=`.
pub(crate) const fn maybe(long: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { long, takes: FlagValue::Maybe(value), about }
}

/// What every command takes.
pub(crate) const GLOBAL_FLAGS: &[Flag] = &[
    one("home", "dir", "use this directory instead of ~/.claudemesh"),
    switch("json", "answer in JSON, also when something fails"),
    switch("help", "explain the command"),
    switch("version", "print the version"),
];

/// What several commands that ask the daemon take.
pub(crate) const MESH: Flag = one("mesh", "slug", "only this mesh");
