//! What can be wrong with `config.toml`, in words a person can act on.

use super::table::{KEYS, SECTIONS};
use std::fmt;
use std::path::PathBuf;

/// Why the settings are refused. Each text names the key and the remedy.
#[derive(Debug)]
pub enum ConfigError {
    /// The file is there but cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    NotToml {
        /// Where it stops being TOML, counted from 1.
        line: usize,
        /// What was wrong there.
        problem: String,
    },
    /// A section's name is used for a plain value.
    NotASection {
        /// The section.
        section: String,
    },
    /// No such key or section.
    UnknownKey {
        /// What was written; a section stands in brackets.
        name: String,
        /// The nearest name there is.
        nearest: String,
    },
    /// Of the wrong type or out of range.
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

    pub(super) fn unknown(name: &str, is_section: bool) -> Self {
        if is_section {
            let nearest = nearest(name, SECTIONS.iter().copied());
            return Self::UnknownKey { name: format!("[{name}]"), nearest: format!("[{nearest}]") };
        }
        // A key without its section is compared with keys without theirs.
        let is_bare = !name.contains('.');
        let names = KEYS.iter().map(|key| key.name);
        let nearest = if is_bare {
            let bare = |full: &'static str| full.split_once('.').map_or(full, |(_, key)| key);
            let found = nearest(name, names.clone().map(bare));
            names.clone().find(|full| bare(full) == found).unwrap_or(found)
        } else {
            nearest(name, names)
        };
        Self::UnknownKey { name: name.into(), nearest: nearest.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, source } => {
                write!(f, "cannot read {}: {source}", file.display())
            }
            Self::NotToml { line, problem } => write!(f, "config.toml: line {line}: {problem}"),
            Self::NotASection { section } => {
                write!(f, "config.toml: `{section}` is a section\nhint:  write [{section}]")
            }
            Self::UnknownKey { name, nearest } => {
                let name = name.escape_debug();
                write!(f, "config.toml: unknown key `{name}`\nhint:  did you mean `{nearest}`?")
            }
            Self::BadValue { name, expected, found } => {
                write!(f, "config.toml: `{name}` must be {expected}, not {found}")
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            _ => None,
        }
    }
}

fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> &'static str {
    known.min_by_key(|candidate| distance(name, candidate)).unwrap_or_default()
}

/// Levenshtein's distance: how many letters to add, drop or change.
pub fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (nth, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = nth + 1;
        for (at, theirs) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *theirs);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (one, other, want) in [
            ("", "", 0),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("max_age_hour", "max_age_hours", 1),
        ] {
            assert_eq!(distance(one, other), want, "{one} {other}");
            assert_eq!(distance(other, one), want, "{other} {one}");
        }
    }
}
