//! What was said about each key, by whom, and what it comes to.

use super::keys::Key;
use super::{ConfigError, Origin, expected, find, fits, preset, show};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use toml::Value;

/// What was said about each key, checked; what was not said is its default.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries {
    said: BTreeMap<&'static str, (Value, Origin)>,
    /// Names that the command line puts beside those of the file.
    added: BTreeMap<&'static str, Vec<String>>,
}

impl Entries {
    pub(super) fn set(
        &mut self,
        name: &str,
        value: Value,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let key = checked(name, &value)?;
        self.said.insert(key.name, (value, origin));
        Ok(())
    }

    pub(super) fn add(&mut self, name: &str, names: Vec<String>) -> Result<(), ConfigError> {
        let key = checked(name, &names.clone().into())?;
        self.added.entry(key.name).or_default().extend(names);
        Ok(())
    }

    /// What `others` have from elsewhere than the file counts before what is here.
    pub(super) fn put_over(&mut self, others: &Self) {
        let is_from_file = |origin: &Origin| matches!(origin, Origin::Default | Origin::File);
        let kept = others.said.iter().filter(|(_, (_, origin))| !is_from_file(origin));
        self.said.extend(kept.map(|(name, entry)| (*name, entry.clone())));
        self.added.clone_from(&others.added);
    }

    /// `name` is what it is in `others`.
    pub(super) fn keep(&mut self, name: &'static str, others: &Self) {
        self.said.remove(name);
        self.said.extend(others.said.get(name).map(|entry| (name, entry.clone())));
    }

    pub(super) fn origin(&self, name: &'static str) -> Origin {
        match self.said.get(name) {
            Some((Value::Boolean(true), origin)) => *origin,
            _ if self.added.contains_key(name) => Origin::Flag,
            said => said.map_or(Origin::Default, |(_, origin)| *origin),
        }
    }

    /// The rules between keys.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let (ping_ms, dead_ms): (u64, u64) =
            (self.integer("link.ping_ms"), self.integer("link.dead_ms"));
        if dead_ms <= ping_ms {
            return Err(ConfigError::BadValue {
                name: "link.dead_ms",
                expected: format!("more than link.ping_ms ({ping_ms})"),
                found: dead_ms.to_string(),
            });
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &'static str) -> Option<Value> {
        let said = match self.said.get(name) {
            Some((value, _)) => Some(value.clone()),
            None => preset(find(name).expect("a name in this crate stands in KEYS: tested")),
        };
        let Some(added) = self.added.get(name) else { return said };
        let mut names = match said {
            Some(Value::Boolean(true)) => return said,
            Some(Value::Array(names)) => names,
            _ => Vec::new(),
        };
        names.extend(added.iter().cloned().map(Value::from));
        Some(names.into())
    }

    pub(super) fn flag(&self, name: &'static str) -> bool {
        self.get(name).and_then(|value| value.as_bool()).unwrap_or_default()
    }

    pub(super) fn integer_or_none(&self, name: &'static str) -> Option<u64> {
        self.get(name)?.as_integer().and_then(|value| u64::try_from(value).ok())
    }

    pub(super) fn integer<T: TryFrom<u64>>(&self, name: &'static str) -> T {
        self.integer_or_none(name)
            .and_then(|value| T::try_from(value).ok())
            .expect("a numeric key has a default, and its range fits its field: tested")
    }

    pub(super) fn duration(&self, name: &'static str) -> Duration {
        Duration::from_millis(self.integer(name))
    }

    pub(super) fn text(&self, name: &'static str) -> Option<String> {
        self.get(name)?.as_str().map(String::from)
    }

    pub(super) fn names(&self, name: &'static str) -> Vec<String> {
        let value = self.get(name);
        let list = value.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(Value::as_str).map(String::from).collect()
    }

    pub(super) fn address(&self, name: &'static str) -> SocketAddr {
        self.text(name)
            .and_then(|text| text.parse().ok())
            .expect("an address key has a default and was parsed when it was set: tested")
    }
}

fn checked(name: &str, value: &Value) -> Result<&'static Key, ConfigError> {
    let key = find(name).ok_or_else(|| ConfigError::unknown(name, false))?;
    if !fits(key.kind, value) {
        let (expected, found) = (expected(key.kind), show(value));
        return Err(ConfigError::BadValue { name: key.name, expected, found });
    }
    Ok(key)
}
