//! What can be wrong with `config.toml`, in words a person can act on.

use super::table::{KEYS, SECTIONS};
use claudemesh_base::nearest;
use std::path::PathBuf;

/// Why the settings are refused. Each text names the key and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there but cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("config.toml: line {line}: {problem}")]
    NotToml {
        /// Where it stops being TOML, counted from 1.
        line: usize,
        /// What was wrong there.
        problem: String,
    },
    /// A section's name is used for a plain value.
    #[error("config.toml: `{section}` is a section\nhint:  write [{section}]")]
    NotASection {
        /// The section.
        section: String,
    },
    /// No such key or section.
    #[error("config.toml: unknown key `{}`\nhint:  did you mean `{nearest}`?", name.escape_debug())]
    UnknownKey {
        /// What was written; a section stands in brackets.
        name: String,
        /// The nearest name there is.
        nearest: String,
    },
    /// Of the wrong type or out of range.
    #[error("config.toml: `{name}` must be {expected}, not {found}")]
    BadValue {
        /// The key.
        name: &'static str,
        /// What it may be.
        expected: String,
        /// What it was.
        found: String,
    },
}

impl ConfigError {
    pub(super) fn not_toml(text: &str, error: &toml::de::Error) -> Self {
        let end = error.span().map_or(0, |span| span.start).min(text.len());
        let line = 1 + text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count();
        Self::NotToml { line, problem: error.message().into() }
    }

    pub(super) fn unknown_section(name: &str) -> Self {
        let (_, nearest) = nearest(name, SECTIONS).expect("there are sections");
        Self::UnknownKey { name: format!("[{name}]"), nearest: format!("[{nearest}]") }
    }

    pub(super) fn unknown_key(name: &str) -> Self {
        // A key without its section is compared with keys without theirs.
        let is_bare = !name.contains('.');
        let compared = |full: &'static str| match full.split_once('.') {
            Some((_, key)) if is_bare => key,
            _ => full,
        };
        let found = nearest(name, KEYS.iter().map(|key| compared(key.name)));
        let key = KEYS.iter().find(|key| found.is_some_and(|(_, near)| near == compared(key.name)));
        let nearest = key.map(|key| key.name.into()).unwrap_or_default();
        Self::UnknownKey { name: name.into(), nearest }
    }
}
