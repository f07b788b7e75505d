//! What a command line said.

use super::{Command, Flag};
use crate::Failure;
use std::time::Duration;

/// A command and what was said to it.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// All commands.
    pub(crate) commands: &'static [Command],
    pub(crate) command: &'static Command,
    pub(crate) operands: Vec<String>,
    /// Every flag as it was given.
    pub(crate) flags: Vec<(Flag, Option<String>)>,
}

impl Parsed {
    /// Every time a flag was given.
    fn given(&self, flag: Flag) -> impl DoubleEndedIterator<Item = Option<&str>> {
        let of_flag = self.flags.iter().filter(move |(given, _)| given.long == flag.long);
        of_flag.map(|(_, value)| value.as_deref())
    }

    /// Whether a flag was given.
    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.given(flag).next().is_some()
    }

    /// A flag's value; the last one counts.
    pub(crate) fn value(&self, flag: Flag) -> Option<&str> {
        self.given(flag).next_back()?
    }

    /// A flag's value to keep.
    pub(crate) fn owned(&self, flag: Flag) -> Option<String> {
        self.value(flag).map(str::to_owned)
    }

    /// Every value of a flag that may be repeated.
    pub(crate) fn values(&self, flag: Flag) -> Vec<&str> {
        self.given(flag).flatten().collect()
    }

    /// A flag's value as something else.
    pub(crate) fn parsed<T>(
        &self,
        flag: Flag,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(text) = self.value(flag) else { return Ok(None) };
        let wrong = || Failure::usage(format!("--{} is {text:?}; expected {expected}", flag.long));
        parse(text).map(Some).ok_or_else(wrong)
    }

    /// A whole number within bounds.
    pub(crate) fn count(&self, flag: Flag, max: usize) -> Result<Option<usize>, Failure> {
        let expected = format!("a whole number from 1 to {max}");
        self.parsed(flag, &expected, |text| {
            text.parse().ok().filter(|count| (1..=max).contains(count))
        })
    }

    /// A time like `30s`, `5m` or `7d`.
    pub(crate) fn duration(&self, flag: Flag) -> Result<Option<Duration>, Failure> {
        self.parsed(flag, "a duration like 30s, 5m or 7d", |text| {
            humantime::parse_duration(text).ok().filter(|time| !time.is_zero())
        })
    }

    /// The one flag of `choices` that was given, with what it stands for; an error if several were.
    pub(crate) fn choice<T: Copy>(&self, choices: &[(Flag, T)]) -> Result<Option<T>, Failure> {
        let given: Vec<_> = choices.iter().filter(|(flag, _)| self.has(*flag)).collect();
        match given[..] {
            [] => Ok(None),
            [(_, meaning)] => Ok(Some(*meaning)),
            _ => {
                let flags: Vec<_> =
                    given.iter().map(|(flag, _)| format!("--{}", flag.long)).collect();
                Err(Failure::usage(format!("{} exclude each other", flags.join(" and "))))
            }
        }
    }
}
