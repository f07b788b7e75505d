//! Which values a setting takes, and the Rust types they are read into.

use claudemesh_fsm::retry::DedupeWindow;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;
use toml::Value;

/// The word for "never forgotten" in `broker.retention_days`.
pub(super) const PERMANENT: &str = "permanent";

/// Which values a setting takes. Its `Display` says it in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number in this range, ends included.
    Integer(u64, u64),
    /// The same, or this one word.
    IntegerOr(u64, u64, &'static str),
    /// Visible text of at most this many characters.
    Text(usize),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An IP address and a port.
    Address,
    /// A list of some of these words.
    NamesOf(&'static [&'static str]),
    /// A list of names, or `true` for all and `false` for none.
    NamesOrBool,
}

impl Kind {
    pub(super) fn takes(self, value: &Value) -> bool {
        let in_range = |low: u64, high: u64| {
            u64::from_value(value).is_some_and(|number| (low..=high).contains(&number))
        };
        let text = value.as_str();
        match self {
            Self::Bool => value.is_bool(),
            Self::Integer(low, high) => in_range(low, high),
            Self::IntegerOr(low, high, word) => in_range(low, high) || text == Some(word),
            Self::Text(characters_max) => {
                text.is_some_and(|text| is_visible(text) && text.chars().count() <= characters_max)
            }
            Self::Choice(words) => text.is_some_and(|text| words.contains(&text)),
            Self::Address => SocketAddr::from_value(value).is_some(),
            Self::NamesOf(words) => all_names(value, |name| words.contains(&name)),
            Self::NamesOrBool => value.is_bool() || all_names(value, is_visible),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => write!(f, "true or false"),
            Self::Integer(low, high) => write!(f, "a whole number from {low} to {high}"),
            Self::IntegerOr(low, high, word) => {
                write!(f, "a whole number from {low} to {high}, or \"{word}\"")
            }
            Self::Text(characters_max) => {
                write!(f, "visible text of 1 to {characters_max} characters")
            }
            Self::Choice(words) => write!(f, "one of \"{}\"", words.join("\", \"")),
            Self::Address => write!(f, "an IP address and a port, like \"127.0.0.1:7900\""),
            Self::NamesOf(words) => write!(f, "a list of some of \"{}\"", words.join("\", \"")),
            Self::NamesOrBool => write!(f, "a list of names, or true for all"),
        }
    }
}

fn is_visible(text: &str) -> bool {
    !text.trim().is_empty() && !text.chars().any(char::is_control)
}

fn all_names(value: &Value, good: impl Fn(&str) -> bool) -> bool {
    let is_good = |item: &Value| item.as_str().is_some_and(&good);
    value.as_array().is_some_and(|list| list.iter().all(is_good))
}

/// A value as it would stand in the file.
pub(super) fn show(value: &Value) -> String {
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

/// A type that a setting may have.
pub(super) trait Setting: Sized {
    /// `None` for a value of another type, or one that this type cannot hold.
    fn from_value(value: &Value) -> Option<Self>;

    /// As it would stand in the file; empty when it is unset.
    fn show(&self) -> String;
}

macro_rules! as_serde_reads_them {
    ($($type:ty),*) => {
        $(impl Setting for $type {
            fn from_value(value: &Value) -> Option<Self> {
                value.clone().try_into().ok()
            }

            fn show(&self) -> String {
                Value::try_from(self).map(|value| show(&value)).unwrap_or_default()
            }
        })*
    };
}

as_serde_reads_them!(bool, u16, u32, u64, usize, Option<u64>);
as_serde_reads_them!(String, Option<String>, Vec<String>, SocketAddr, LegacyBrokers);

/// Milliseconds.
impl Setting for Duration {
    fn from_value(value: &Value) -> Option<Self> {
        u64::from_value(value).map(Self::from_millis)
    }

    fn show(&self) -> String {
        self.as_millis().to_string()
    }
}

/// Days, or [`PERMANENT`].
impl Setting for DedupeWindow {
    fn from_value(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(_) => Some(Self::Permanent),
            None => u32::from_value(value).map(Self::Days),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Permanent => PERMANENT.to_owned().show(),
            Self::Days(days) => days.show(),
        }
    }
}

/// Which meshes may have a broker without our features (§15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LegacyBrokers {
    /// Every mesh, or none.
    All(bool),
    /// The meshes of these slugs.
    Only(Vec<String>),
}

impl LegacyBrokers {
    /// Whether the mesh of this slug may.
    #[must_use]
    pub fn allows(&self, slug: &str) -> bool {
        match self {
            Self::All(all) => *all,
            Self::Only(slugs) => slugs.iter().any(|allowed| allowed == slug),
        }
    }

    /// Lets the meshes of these slugs, too.
    pub(super) fn add(&mut self, slugs: &[String]) {
        match self {
            Self::Only(allowed) => allowed.extend_from_slice(slugs),
            Self::All(false) => *self = Self::Only(slugs.to_vec()),
            Self::All(true) => {}
        }
    }
}
