//! The house rules of `specs/architecture.md`, as tests: who may know whom, what happens in one
//! room only, and how files look. Each failure says the rule and its reason.
//!
//! Reads text, not syntax: comments and test code are taken out first, then words are looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One source file without comments, strings aside, and without its tests.
struct Source {
    /// From the top of the checkout: `src/base/db/tx.rs`.
    path: String,
    /// What ships: no comments, no tests. Lines keep their numbers.
    code: String,
}

impl Source {
    /// The room of the daemon: `store` for `src/daemon/store.rs` and all below `src/daemon/store/`.
    fn room(&self) -> &str {
        let below = self.path.strip_prefix("src/daemon/").unwrap_or(&self.path);
        below.split(['/', '.']).next().unwrap_or_default()
    }

    fn is_in(&self, places: &[&str]) -> bool {
        let is_at = |place: &&str| {
            self.path == format!("{place}.rs") || self.path.starts_with(&format!("{place}/"))
        };
        places.iter().any(is_at)
    }

    /// `path:line` of each line of the code that holds one of `words`.
    fn lines_with<'a>(&'a self, words: &'a [&str]) -> impl Iterator<Item = String> + 'a {
        let holds = |line: &str| words.iter().any(|word| line.contains(word));
        self.code
            .lines()
            .enumerate()
            .filter(move |(_, line)| holds(line))
            .map(|(number, line)| format!("{}:{}: {}", self.path, number + 1, line.trim()))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the project: what git tracks, or would.
fn tracked() -> Vec<String> {
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
fn sources(folder: &str) -> Vec<Source> {
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
    assert!(sources.len() > 10, "the sources of {folder} were found");
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

fn fail(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}\n{}", found.join("\n"));
}

/// Which rooms of the daemon may import which: the part of `specs/architecture.md` §3 that lies
/// inside one crate, where the compiler does not see it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("events", &["port", "store"]),
    ("identity", &[]),
    ("join", &["identity"]),
    ("port", &[]),
    ("store", &[]),
    ("mesh", &["events", "port"]),
    ("link", &["identity", "port"]),
    ("flow", &["events", "mesh", "port", "store"]),
    ("api", &["config", "events", "flow", "mesh", "store"]),
    ("repair", &["startup", "store"]),
    (
        "startup",
        &[
            "api", "config", "events", "flow", "identity", "join", "link", "mesh", "port",
            "repair", "store",
        ],
    ),
    ("lib", &[]),
];

#[test]
fn a_room_of_the_daemon_imports_only_the_rooms_below_it() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut found = Vec::new();
    for source in sources("src/daemon/") {
        let room = source.room();
        let Some(may_import) = allowed.get(room) else {
            found.push(format!("{}: room `{room}` is not in the table", source.path));
            continue;
        };
        for (number, line) in source.code.lines().enumerate() {
            for imported in imports(line) {
                if imported != room && !may_import.contains(&imported.as_str()) {
                    let at = format!("{}:{}", source.path, number + 1);
                    found.push(format!("{at}: `{room}` may not know `{imported}`"));
                }
            }
        }
    }
    fail(
        "layers point one way, so that each can be read, tested and replaced without those above \
         it (specs/architecture.md §3); to change the layers change that table and MAY_IMPORT",
        &found,
    );
}

/// The rooms named in `crate::…` paths of a line; `crate::{a, b}` too.
fn imports(line: &str) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut rooms = Vec::new();
    for path in line.split("crate::").skip(1) {
        let names = match path.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(", ").collect(),
            None => vec![path],
        };
        for name in names {
            let end = name.find(|c| !is_word(c)).unwrap_or(name.len());
            rooms.extend((end > 0).then(|| name[..end].to_owned()));
        }
    }
    rooms
}

#[test]
fn the_decisions_know_nothing_of_the_world() {
    let words = ["std::", "smol", "tracing", "async fn", "SystemTime", "Instant"];
    let found: Vec<String> = sources("fsm/src/")
        .iter()
        .flat_map(|source| source.lines_with(&words).collect::<Vec<_>>())
        .collect();
    fail(
        "fsm is pure: no clock, no I/O, no runtime, so that it can be tested exhaustively",
        &found,
    );
}

/// A word that belongs to some rooms, and why.
struct Reserved {
    words: &'static [&'static str],
    rooms: &'static [&'static str],
    reason: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        words: &[
            "SystemTime::now",
            "Instant::now",
            "Timer::",
            "OsRng",
            "smol::spawn",
            "getrandom",
            "thread_rng",
        ],
        rooms: &["src/base/runtime"],
        reason: "only `runtime` reads time or randomness or spawns tasks; everything else takes them \
                 as arguments, or a simulation could never be replayed",
    },
    Reserved {
        words: &["SELECT ", "INSERT INTO", "DELETE FROM", "UPDATE ", "CREATE TABLE", "PRAGMA "],
        rooms: &["src/base/db", "src/daemon/store", "src/daemon/repair", "src/broker/ledger"],
        reason: "only `db`, `store`, `repair` and `broker/ledger` contain SQL: tables have one owner",
    },
    Reserved {
        words: &["StatusCode::", "status(4", "status(5", "status(2"],
        rooms: &["src/daemon/api/reply", "src/base/http", "src/broker"],
        reason: "only `api/reply`, `http` and `broker` name HTTP status codes: what an answer \
                 means is decided once",
    },
    Reserved {
        words: &["tungstenite"],
        rooms: &["src/daemon/link/socket", "src/broker"],
        reason: "only `link/socket` and `broker` name WebSocket types: the library can be replaced",
    },
    Reserved {
        words: &["println!", "eprintln!", "print!(", "eprint!("],
        rooms: &["src/cli/print", "src/main"],
        reason: "only `cli/print` and `main` print: every other word goes through --json",
    },
    Reserved {
        words: &[".unwrap()"],
        rooms: &[],
        reason: "no `unwrap` outside tests: `expect` with its invariant, or an error",
    },
];

#[test]
fn what_belongs_in_one_room_stays_there() {
    let sources = sources("src/");
    let mut failures = String::new();
    for Reserved { words, rooms, reason } in RESERVED {
        for source in sources.iter().filter(|source| !source.is_in(rooms)) {
            for line in source.lines_with(words) {
                let _ = writeln!(failures, "{reason}:\n  {line}");
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// How long a file may be.
const LINES_MAX: usize = 400;
/// Files that are longer, and why.
const LONG: &[(&str, &str)] = &[
    ("src/cli/table.rs", "one entry per command"),
    ("tests/garbage.rs", "one boundary after the other"),
    ("tests/support/rubbish.rs", "every kind of rubbish, one maker each"),
    ("tests/broker.rs", "one wire conversation after the other"),
    ("tests/ipc.rs", "one case per documented error"),
    ("tests/support/rig.rs", "everything black-box tests share"),
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

/// The sections of the contract: numbered headings, and the table of `specs/README.md`.
fn sections() -> BTreeSet<String> {
    let mut sections = BTreeSet::new();
    for path in tracked().iter().filter(|p| p.starts_with("specs/") && p.ends_with(".md")) {
        // Its numbers are its own: it is no part of the contract.
        if path == "specs/architecture.md" {
            continue;
        }
        let text = fs::read_to_string(root().join(path)).expect("reads");
        for line in text.lines() {
            let heading = line.trim_start_matches('#').trim_start();
            if line.starts_with("##") && heading.starts_with(|c: char| c.is_ascii_digit()) {
                sections.extend(heading.split(' ').next().map(str::to_owned));
            }
            let is_row = path == "specs/README.md" && line.starts_with("| ");
            for cell in line.split('|').filter(|_| is_row) {
                let numbers = cell.split(',').map(str::trim);
                let is_number = |text: &&str| text.starts_with(|c: char| c.is_ascii_digit());
                sections.extend(numbers.filter(is_number).map(str::to_owned));
            }
        }
    }
    assert!(sections.contains("4.5.1") && sections.contains("4.5b"), "{sections:?}");
    sections
}

#[test]
fn a_cited_section_exists() {
    let sections = sections();
    let mut found = Vec::new();
    for path in tracked().iter().filter(|path| path.ends_with(".rs")) {
        let text = fs::read_to_string(root().join(path)).expect("is UTF-8");
        for (number, line) in text.lines().enumerate() {
            let mut before = "";
            for (at, cited) in line.split('§').enumerate() {
                let is_number = |c: char| c.is_ascii_digit() || c == '.' || c == 'b';
                let end = cited.find(|c| !is_number(c)).unwrap_or(cited.len());
                let cited_number = cited[..end].trim_end_matches('.');
                // Another document's numbers, and this file's own words about numbers.
                let is_foreign = before.contains("RFC") || before.ends_with("architecture.md ");
                if at > 0 && !cited_number.is_empty() && !is_foreign {
                    let is_known = sections.contains(cited_number);
                    if !is_known || before.ends_with("protocol ") {
                        found.push(format!("{path}:{}: §{cited_number}", number + 1));
                    }
                }
                before = cited;
            }
        }
    }
    fail(
        "a § leads to a heading of specs/ (withdrawn numbers keep a line in specs/README.md)",
        &found,
    );
}
