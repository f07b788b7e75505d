//! One word for one thing: the glossary's withdrawn words, and names of types.

use super::source::{Source, code_spans, fail, identifiers, page, rows, sources, stale};
use std::collections::BTreeMap;

/// Withdrawn words that the code still uses. A word is compared as a whole identifier.
const STILL_USED: &[&str] = &[];

#[test]
fn a_withdrawn_word_is_not_used_any_more() {
    let sources = both();
    let mut found = Vec::new();
    let mut used = Vec::new();
    for word in withdrawn(&page("specs/glossary.md")) {
        let places: Vec<String> = sources
            .iter()
            .flat_map(|source| {
                let lines = source.code.lines().enumerate();
                let hits = lines.filter(|(_, line)| identifiers(line).any(|name| name == word));
                hits.map(|(number, line)| {
                    format!("{}:{}: {}", source.path, number + 1, line.trim())
                })
            })
            .collect();
        if !places.is_empty() {
            if !STILL_USED.contains(&word.as_str()) {
                found.push(format!("`{word}` is withdrawn:\n  {}", places.join("\n  ")));
            }
            used.push(word);
        }
    }
    found.extend(stale(STILL_USED.iter().copied(), &used));
    fail(
        "specs/glossary.md says which word stands for a thing, and which ones no longer do",
        &found,
    );
}

/// What ships of the program and of the decisions.
fn both() -> Vec<Source> {
    [sources("src/"), sources("fsm/src/")].into_iter().flatten().collect()
}

/// The words of the glossary's last column, where its header says `withdrawn`.
fn withdrawn(glossary: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut is_glossary = false;
    for cells in rows(glossary) {
        let last = cells.last().copied().unwrap_or_default();
        if last.contains("withdrawn") && cells.len() > 2 {
            is_glossary = true;
        } else if is_glossary {
            let spans: Vec<&str> = match last.contains('`') {
                true => code_spans(last).collect(),
                false => last.split([',', '/']).collect(),
            };
            let is_name = |word: &&str| {
                word.starts_with(|c: char| c.is_ascii_alphabetic())
                    && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            };
            words.extend(spans.into_iter().map(str::trim).filter(is_name).map(str::to_owned));
        }
    }
    words
}

#[test]
fn the_withdrawn_words_are_read_from_the_last_column() {
    let page = "| term | meaning | withdrawn words |\n|---|---|---|\n| a | b | `c`, `D` |\n\
                | e | f | g, h i |\n";
    assert_eq!(withdrawn(page), ["c", "D", "g"]);
}

/// Types of one name in one crate, and why there are two.
const SHARED_NAMES: &[(&str, &str)] = &[];

#[test]
fn no_two_types_of_one_crate_share_a_name() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in both() {
        for (number, name, is_public) in types(&source) {
            let room = crate_of(&source.path);
            if is_public {
                let place = format!("{}:{number}", source.path);
                places.entry(format!("{room}::{name}")).or_default().push(place);
            }
        }
    }
    places.retain(|_, places| places.len() > 1);
    let shared: Vec<String> = places.keys().cloned().collect();
    let mut found = stale(SHARED_NAMES.iter().map(|(name, _)| *name), &shared);
    for (name, places) in &places {
        if !SHARED_NAMES.iter().any(|(listed, _)| listed == name) {
            found.push(format!("{name}: {}", places.join(", ")));
        }
    }
    fail("one public type of a name in a crate, so that a name says which thing is meant", &found);
}

/// Names of the standard prelude and of `std::marker`, which every reader knows.
const OF_STD: &[&str] = &[
    "AsMut",
    "AsRef",
    "Box",
    "Clone",
    "Copy",
    "Default",
    "DoubleEndedIterator",
    "Drop",
    "Eq",
    "ExactSizeIterator",
    "Extend",
    "Fn",
    "FnMut",
    "FnOnce",
    "From",
    "FromIterator",
    "Future",
    "Hash",
    "Into",
    "IntoFuture",
    "IntoIterator",
    "Iterator",
    "Option",
    "Ord",
    "PartialEq",
    "PartialOrd",
    "PhantomData",
    "Result",
    "Send",
    "Sized",
    "String",
    "Sync",
    "ToOwned",
    "ToString",
    "TryFrom",
    "TryInto",
    "Unpin",
    "Vec",
];

/// Names of std that the code gives to something else, and why.
const SHADOWED: &[(&str, &str)] = &[];

#[test]
fn no_type_takes_a_name_of_std() {
    let mut shadows = Vec::new();
    let mut places = Vec::new();
    for source in both() {
        for (number, name, _) in types(&source) {
            if OF_STD.contains(&name) {
                let shadow = format!("{}::{name}", crate_of(&source.path));
                if !SHADOWED.iter().any(|(listed, _)| *listed == shadow) {
                    places.push(format!("{}:{number}: {shadow}", source.path));
                }
                shadows.push(shadow);
            }
        }
    }
    places.extend(stale(SHADOWED.iter().map(|(name, _)| *name), &shadows));
    fail("a name of std means what it means in std", &places);
}

/// The crate a file belongs to: `base` for `src/base/db.rs`.
fn crate_of(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    below.split('/').next().unwrap_or_default()
}

/// The types that a file declares: line, name, and whether others see it.
fn types(source: &Source) -> Vec<(usize, &str, bool)> {
    let mut found = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        let line = line.trim_start();
        let is_public = line.starts_with("pub");
        let rest = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or("", |(_, r)| r),
            Some(rest) => rest.trim_start(),
            None => line,
        };
        let mut words = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        // A `type` inside an impl or a trait has no visibility of its own, and is none.
        let is_item = match words.next() {
            Some("struct" | "enum" | "trait") => true,
            Some("type") => is_public,
            _ => false,
        };
        // A macro gives its types their names elsewhere.
        let name = words.next().filter(|name| is_item && !name.is_empty());
        found.extend(name.map(|name| (number + 1, name, is_public)));
    }
    found
}
