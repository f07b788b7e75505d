//! `config.toml` (§13): optional, and strict when it is there. A misspelt key, a wrong type or a
//! value out of range stops the start and names the remedy, because a setting that is silently
//! ignored is worse than none.
//!
//! [`keys::KEYS`] is the one table behind parsing, defaults, errors and the listing. Nothing here
//! knows what a setting does.

mod entries;
mod error;
pub mod keys;
mod settings;

pub use error::ConfigError;
pub use error::distance;
pub use settings::{Broker, Daemon, Disk, Features, Inbox, Ipc, LegacyBrokers, Link, Outbox};

use entries::Entries;
use keys::{KEYS, Key, Kind, Preset, Reload, SECTIONS};
use serde::Serialize;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use toml::{Table, Value};

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// `config.toml`.
    File,
    /// An environment variable.
    Environment,
    /// What kind of host this is (§2.1).
    Detection,
    /// The command line.
    Flag,
}

/// Everything in force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `[daemon]`
    pub daemon: Daemon,
    /// `[ipc]`
    pub ipc: Ipc,
    /// `[outbox]`
    pub outbox: Outbox,
    /// `[inbox]`
    pub inbox: Inbox,
    /// `[disk]`
    pub disk: Disk,
    /// `[link]` and `[reconnect]`
    pub link: Link,
    /// `[features]`
    pub features: Features,
    /// `[broker]`
    pub broker: Broker,
    entries: Entries,
}

/// What a file read again comes to.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// What is in force from now on.
    pub settings: Settings,
    /// The keys for which the file says something else, and which only a restart applies.
    pub needs_restart: Vec<&'static str>,
}

/// One row of `daemon config`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// `section.key`
    pub name: &'static str,
    /// What is in force, as it would stand in the file; empty when unset.
    pub value: String,
    /// Where that came from.
    pub origin: Origin,
    /// What it would be otherwise.
    pub default: String,
    /// What it may be, in words.
    pub expected: String,
    /// Whether a reload applies a change.
    pub reload: bool,
    /// What it does.
    pub about: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self::read(Entries::default())
    }
}

impl Settings {
    /// Reads `config.toml`; a missing file is all defaults.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, has an unknown key or a wrong value.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(ConfigError::Unreadable { file: file.into(), source: error }),
        }
    }

    /// Reads the text of a `config.toml`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table: Table =
            toml::from_str(text).map_err(|error| ConfigError::not_toml(text, &error))?;
        let mut entries = Entries::default();
        for (section, content) in table {
            if !SECTIONS.contains(&section.as_str()) {
                return Err(ConfigError::unknown(&section, content.is_table()));
            }
            let Value::Table(fields) = content else {
                return Err(ConfigError::NotASection { section });
            };
            for (field, value) in fields {
                entries.set(&format!("{section}.{field}"), value, Origin::File)?;
            }
        }
        entries.check()?;
        Ok(Self::read(entries))
    }

    /// Puts a value from elsewhere over the file's, under the same rules: a flag, the environment,
    /// or what the host was found to be.
    ///
    /// # Errors
    /// When there is no such key, or the value is wrong; nothing has changed then.
    pub fn set(
        &mut self,
        name: &str,
        value: impl Into<Value>,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let mut entries = self.entries.clone();
        entries.set(name, value.into(), origin)?;
        entries.check()?;
        *self = Self::read(entries);
        Ok(())
    }

    /// Puts names beside those that the file lists under `name`, now and whenever it is read again;
    /// where it says `true`, that stands.
    ///
    /// # Errors
    /// When there is no such key, or it takes no such names; nothing has changed then.
    pub fn add(&mut self, name: &str, names: Vec<String>) -> Result<(), ConfigError> {
        let mut entries = self.entries.clone();
        entries.add(name, names)?;
        *self = Self::read(entries);
        Ok(())
    }

    /// Reads the file again under everything that was said elsewhere: flags, the environment and
    /// what the host was found to be still count before it. What only a restart applies stays as it
    /// is.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reloaded(&self, file: &Path) -> Result<Reloaded, ConfigError> {
        let mut entries = Self::load(file)?.entries;
        entries.put_over(&self.entries);
        let differs = |key: &&Key| entries.get(key.name) != self.entries.get(key.name);
        let fixed = KEYS.iter().filter(|key| key.reload == Reload::NeedsRestart);
        let needs_restart: Vec<_> = fixed.filter(differs).map(|key| key.name).collect();
        for name in &needs_restart {
            entries.keep(name, &self.entries);
        }
        entries.check()?;
        Ok(Reloaded { settings: Self::read(entries), needs_restart })
    }

    /// Where a key's value came from; `None` if there is no such key.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<Origin> {
        find(name).map(|key| self.entries.origin(key.name))
    }

    /// Every key, what is in force and where it came from (`daemon config`).
    #[must_use]
    pub fn listing(&self) -> Vec<Listed> {
        let row = |key: &Key| {
            let shown = |value: Option<Value>| value.as_ref().map(show).unwrap_or_default();
            Listed {
                name: key.name,
                value: shown(self.entries.get(key.name)),
                origin: self.entries.origin(key.name),
                default: shown(preset(key)),
                expected: expected(key.kind),
                reload: key.reload == Reload::Applies,
                about: key.about,
            }
        };
        KEYS.iter().map(row).collect()
    }

    fn read(entries: Entries) -> Self {
        Self {
            daemon: Daemon::read(&entries),
            ipc: Ipc::read(&entries),
            outbox: Outbox::read(&entries),
            inbox: Inbox::read(&entries),
            disk: Disk::read(&entries),
            link: Link::read(&entries),
            features: Features::read(&entries),
            broker: Broker::read(&entries),
            entries,
        }
    }
}

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

fn preset(key: &Key) -> Option<Value> {
    match key.preset {
        Preset::Unset => None,
        Preset::Bool(value) => Some(value.into()),
        Preset::Integer(value) => i64::try_from(value).ok().map(Value::from),
        Preset::Text(value) => Some(value.into()),
        Preset::Names(values) => Some(values.to_vec().into()),
    }
}

fn fits(kind: Kind, value: &Value) -> bool {
    let in_range = |low: u64, high: u64| {
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        number.is_some_and(|number| (low..=high).contains(&number))
    };
    let text = value.as_str();
    match kind {
        Kind::Bool => value.is_bool(),
        Kind::Integer(low, high) => in_range(low, high),
        Kind::IntegerOr(low, high, word) => in_range(low, high) || text == Some(word),
        Kind::Text(characters_max) => text.is_some_and(|text| {
            (1..=characters_max).contains(&text.chars().count()) && is_visible(text)
        }),
        Kind::Choice(words) => text.is_some_and(|text| words.contains(&text)),
        Kind::Address => text.is_some_and(|text| text.parse::<SocketAddr>().is_ok()),
        Kind::NamesOf(words) => all_names(value, |name| words.contains(&name)),
        Kind::NamesOrBool => value.is_bool() || all_names(value, is_visible),
    }
}

fn is_visible(text: &str) -> bool {
    !text.trim().is_empty() && !text.chars().any(char::is_control)
}

fn all_names(value: &Value, good: impl Fn(&str) -> bool) -> bool {
    let is_good = |item: &Value| item.as_str().is_some_and(&good);
    value.as_array().is_some_and(|list| list.iter().all(is_good))
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Integer(low, high) => format!("a whole number from {low} to {high}"),
        Kind::IntegerOr(low, high, word) => {
            format!("a whole number from {low} to {high}, or \"{word}\"")
        }
        Kind::Text(characters_max) => format!("visible text of 1 to {characters_max} characters"),
        Kind::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
        Kind::Address => "an IP address and a port, like \"127.0.0.1:7900\"".into(),
        Kind::NamesOf(words) => format!("a list of some of \"{}\"", words.join("\", \"")),
        Kind::NamesOrBool => "a list of names, or true for all".into(),
    }
}

/// A value as it would stand in the file.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(list) => {
            format!("[{}]", list.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        Value::Table(_) => "a section".into(),
    }
}

#[cfg(test)]
mod tests;
