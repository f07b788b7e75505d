//! How files look.

use super::source::{fail, root, tracked};
use std::fs;

/// How long a file may be.
const LINES_MAX: usize = 400;
/// Files that are longer, and why.
const LONG: &[(&str, &str)] = &[
    ("src/broker/hub/tests.rs", "one case after the other"),
    ("src/broker/ledger/sqlite/tests.rs", "one case after the other"),
];

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut found = Vec::new();
    for path in tracked().iter().filter(|path| path.ends_with(".rs")) {
        let text = fs::read_to_string(root().join(path)).expect("is UTF-8");
        let lines = text.lines().count();
        let is_listed = LONG.iter().any(|(long, _)| long == path);
        if lines > LINES_MAX && !is_listed {
            found.push(format!("{path}: {lines} lines; split it"));
        }
        if lines <= LINES_MAX && is_listed {
            found.push(format!("{path}: {lines} lines; take it off the list"));
        }
        if path.ends_with("/mod.rs") {
            found.push(format!("{path}: `foo.rs` beside `foo/`, never `mod.rs`"));
        }
        // What trybuild compiles is pinned line by line.
        let is_pinned = path.starts_with("fsm/tests/illegal/");
        if !text.starts_with("//!") && !is_pinned {
            found.push(format!("{path}: begins with `//!`: what it is, what it refuses to do"));
        }
    }
    fail(&format!("a file is read in one sitting: at most {LINES_MAX} lines"), &found);
}

#[test]
fn the_text_speaks_of_the_project_alone() {
    // Spelt in two parts, or this file would find itself.
    let foreign = [["/wo", "rk/"], ["shared/", "spec"], ["shared/", "design"]].map(|p| p.concat());
    let mut found = Vec::new();
    for path in tracked() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if foreign.iter().any(|word| line.contains(word)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    fail("paths of somebody's machine mean nothing to a reader", &found);
}

#[test]
fn no_test_knows_a_default_port() {
    // Spelt in two parts, or this file would find itself.
    let ports = [["79", "00"], ["478", "23"]].map(|parts| parts.concat());
    let mut found = Vec::new();
    let is_test = |path: &&String| path.starts_with("tests/") && path.ends_with(".rs");
    for path in tracked().iter().filter(is_test) {
        let text = fs::read_to_string(root().join(path)).expect("is UTF-8");
        for (number, line) in text.lines().enumerate() {
            let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
            if words.any(|word| ports.iter().any(|port| port == word)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    fail("a test speaks to no daemon and no broker but its own", &found);
}
