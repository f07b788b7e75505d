//! The files of the project, and the code in them.

use std::fs;
use std::path::Path;
use std::process::Command;

/// One source file without comments, strings aside, and without its tests.
pub struct Source {
    /// From the top of the checkout: `src/base/db/tx.rs`.
    pub path: String,
    /// What ships: no comments, no tests. Lines keep their numbers.
    pub code: String,
}

impl Source {
    /// The room of the daemon: `store` for `src/daemon/store.rs` and all below `src/daemon/store/`.
    pub fn room(&self) -> &str {
        let below = self.path.strip_prefix("src/daemon/").unwrap_or(&self.path);
        below.split(['/', '.']).next().unwrap_or_default()
    }

    pub fn is_in(&self, places: &[&str]) -> bool {
        let is_at = |place: &&str| {
            self.path == format!("{place}.rs") || self.path.starts_with(&format!("{place}/"))
        };
        places.iter().any(is_at)
    }

    /// `path:line` of each line of the code that holds one of `words`.
    pub fn lines_with<'a>(&'a self, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
        let holds = |line: &str| words.iter().any(|word| line.contains(word));
        self.code
            .lines()
            .enumerate()
            .filter(move |(_, line)| holds(line))
            .map(|(number, line)| format!("{}:{}: {}", self.path, number + 1, line.trim()))
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the project: what git tracks, or would.
pub fn tracked() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output();
    match listed {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|path| root().join(path).is_file())
            .map(str::to_owned)
            .collect(),
        // A release tarball has no git.
        _ => walk(root(), &["target", ".git"]),
    }
}

fn walk(dir: &Path, skipped: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if skipped.iter().any(|name| entry.file_name() == **name) {
            continue;
        }
        if path.is_dir() {
            found.extend(walk(&path, skipped));
        } else if let Ok(path) = path.strip_prefix(root()) {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    found
}

/// The sources of a folder that ship, `tests.rs` and what is below a `tests/` left out.
pub fn sources(folder: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in tracked() {
        let is_test = ["/tests.rs", "/testing.rs"].iter().any(|end| path.ends_with(end))
            || path.contains("/tests/");
        if path.starts_with(folder) && path.ends_with(".rs") && !is_test {
            let whole = fs::read_to_string(root().join(&path)).expect("is UTF-8");
            let code = shipped(&whole);
            sources.push(Source { path, code });
        }
    }
    assert!(!sources.is_empty(), "the sources of {folder} were found");
    sources
}

/// The text without comments and without items under `#[cfg(test)]`; lines keep their numbers.
fn shipped(whole: &str) -> String {
    let mut code = String::new();
    let mut in_tests = false;
    for line in whole.lines() {
        // rustfmt puts the end of a top-level item at the margin.
        let is_attribute = line.starts_with("#[");
        in_tests |= line == "#[cfg(test)]";
        let is_comment = line.trim_start().starts_with("//");
        if !in_tests && !is_comment {
            code += line;
        }
        code.push('\n');
        let ends = line == "}" || (!is_attribute && line.ends_with(';') && !line.starts_with(' '));
        in_tests &= !ends;
    }
    code
}

pub fn fail(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}\n{}", found.join("\n"));
}

/// The words of a line of code: identifiers and keywords, without what stands in quotes.
pub fn identifiers(line: &str) -> impl Iterator<Item = &str> {
    let outside = line.split('"').step_by(2);
    outside
        .flat_map(|code| code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
}

/// A page of the project, or nothing where it is not written yet.
pub fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// The cells of every row of the tables in a text, header rows too.
pub fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|--");
    text.lines()
        .filter(is_row)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

/// What stands between backticks.
pub fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A list of what breaks a rule today shrinks: whatever no longer breaks it leaves the list.
pub fn stale<'a>(listed: impl Iterator<Item = &'a str>, found: &[String]) -> Vec<String> {
    listed
        .filter(|name| !found.iter().any(|broken| broken == name))
        .map(|name| format!("{name}: the rule holds now; take it off the list"))
        .collect()
}
