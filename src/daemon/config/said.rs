//! What was said about each setting, and by whom.

use super::kind::{Setting, show};
use super::table::KEYS;
use super::{ConfigError, Origin};
use std::collections::BTreeMap;
use toml::Value;

/// The setting to which the command line may add names.
pub(super) const ALLOW_LEGACY: &str = "features.allow_legacy_broker";

/// What was said about each setting. Every value here is one that its setting takes.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    values: BTreeMap<&'static str, (Value, Origin)>,
    /// Slugs that the command line puts beside those of [`ALLOW_LEGACY`] in the file.
    pub(super) added_slugs: Vec<String>,
}

impl Said {
    pub(super) fn set(
        &mut self,
        name: &str,
        value: Value,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let key = KEYS.iter().find(|key| key.name == name);
        let key = key.ok_or_else(|| ConfigError::unknown_key(name))?;
        if !key.kind.takes(&value) {
            let (expected, found) = (key.kind.to_string(), show(&value));
            return Err(ConfigError::BadValue { name: key.name, expected, found });
        }
        self.values.insert(key.name, (value, origin));
        Ok(())
    }

    /// Takes over what `other` has from elsewhere than the file.
    pub(super) fn override_with(&mut self, other: &Self) {
        let elsewhere = other.values.iter().filter(|(_, (_, origin))| *origin != Origin::File);
        self.values.extend(elsewhere.map(|(name, said)| (*name, said.clone())));
        self.added_slugs.clone_from(&other.added_slugs);
    }

    /// Makes `name` what it is in `other`.
    pub(super) fn restore(&mut self, name: &'static str, other: &Self) {
        self.values.remove(name);
        self.values.extend(other.values.get(name).map(|said| (name, said.clone())));
    }

    pub(super) fn value<T: Setting>(&self, name: &str) -> Option<T> {
        let (value, _) = self.values.get(name)?;
        Some(T::from_value(value).expect("a setting's type holds what its kind takes: tested"))
    }

    pub(super) fn origin(&self, name: &str) -> Origin {
        match self.values.get(name) {
            Some((Value::Boolean(true), origin)) => *origin,
            _ if name == ALLOW_LEGACY && !self.added_slugs.is_empty() => Origin::Flag,
            said => said.map_or(Origin::Default, |(_, origin)| *origin),
        }
    }
}
