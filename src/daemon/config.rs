//! `config.toml` (§13): optional, and strict when it is there. A misspelt key, a wrong type or a
//! value out of range stops the start and names the remedy, because a setting that is silently
//! ignored is worse than none.
//!
//! [`KEYS`] is the table of settings. Nothing here knows what a setting does.

mod error;
mod kind;
mod said;
mod table;

pub use error::ConfigError;
pub use kind::{Kind, LegacyBrokers};
pub use table::{
    BrokerSettings, DaemonSettings, DiskSettings, FeatureSettings, InboxSettings, IpcSettings,
    KEYS, Key, LinkSettings, OutboxSettings, ReconnectSettings, Reload, Settings,
};

use said::{ALLOW_LEGACY, Said};
use std::io::ErrorKind;
use std::path::Path;
use table::SECTIONS;
use toml::{Table, Value};

/// Where a value came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// `config.toml`.
    File,
    /// What kind of host this is (§2.1).
    Detection,
    /// The command line.
    Flag,
}

/// The settings after the file was read again.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// What is in force from now on.
    pub settings: Settings,
    /// The keys for which the file says something else, and which only a restart applies.
    pub needs_restart: Vec<&'static str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self::of(Said::default())
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
        let mut said = Said::default();
        for (section, content) in table {
            if !SECTIONS.contains(&section.as_str()) {
                return Err(match content.is_table() {
                    true => ConfigError::unknown_section(&section),
                    false => ConfigError::unknown_key(&section),
                });
            }
            let Value::Table(fields) = content else {
                return Err(ConfigError::NotASection { section });
            };
            for (field, value) in fields {
                said.set(&format!("{section}.{field}"), value, Origin::File)?;
            }
        }
        Self::checked(said)
    }

    /// Overrides the file's value with one from elsewhere, under the same rules: a flag, or what
    /// the host was found to be.
    ///
    /// # Errors
    /// When there is no such key, or the value is wrong; nothing has changed then.
    pub fn set(
        &mut self,
        name: &str,
        value: impl Into<Value>,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let mut said = self.said.clone();
        said.set(name, value.into(), origin)?;
        *self = Self::checked(said)?;
        Ok(())
    }

    /// Allows a legacy broker (`features.allow_legacy_broker`) to the meshes of these slugs too,
    /// now and whenever the file is read again.
    ///
    /// # Errors
    /// When a slug is not visible text; nothing has changed then.
    pub fn allow_legacy_brokers(&mut self, slugs: Vec<String>) -> Result<(), ConfigError> {
        Said::default().set(ALLOW_LEGACY, slugs.clone().into(), Origin::Flag)?;
        let mut said = self.said.clone();
        said.added_slugs.extend(slugs);
        *self = Self::checked(said)?;
        Ok(())
    }

    /// Reads the file again. What came from elsewhere, like a flag, still overrides the file, and
    /// what only a restart applies stays as it is.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn reloaded(&self, file: &Path) -> Result<Reloaded, ConfigError> {
        let mut said = Self::load(file)?.said;
        said.override_with(&self.said);
        let wanted = Self::of(said.clone());
        let fixed = KEYS.iter().filter(|key| key.reload == Reload::NeedsRestart);
        let differs = fixed.filter(|key| (key.value)(&wanted) != (key.value)(self));
        let needs_restart: Vec<_> = differs.map(|key| key.name).collect();
        for name in &needs_restart {
            said.restore(name, &self.said);
        }
        Ok(Reloaded { settings: Self::checked(said)?, needs_restart })
    }

    /// Where a key's value came from; `None` if there is no such key.
    #[must_use]
    pub fn origin(&self, name: &str) -> Option<Origin> {
        KEYS.iter().any(|key| key.name == name).then(|| self.said.origin(name))
    }

    /// The settings that follow from what was said, with the rules between keys applied.
    fn checked(said: Said) -> Result<Self, ConfigError> {
        let mut settings = Self::of(said);
        let (link, features) = (&settings.link, &mut settings.features);
        if link.dead_ms <= link.ping_ms {
            return Err(ConfigError::BadValue {
                name: "link.dead_ms",
                expected: format!("more than link.ping_ms ({})", link.ping_ms.as_millis()),
                found: link.dead_ms.as_millis().to_string(),
            });
        }
        features.optional.retain(|feature| !features.require.contains(feature));
        features.allow_legacy_broker.add(&settings.said.added_slugs);
        Ok(settings)
    }
}

#[cfg(test)]
mod tests;
