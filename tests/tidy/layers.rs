//! Who may know whom inside one crate; between crates the compiler sees to it.

use super::source::{code_spans, fail, page, root, rows, sources, stale};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// Which rooms of the daemon may import which: the part of `specs/architecture.md` §3 that lies
/// inside one crate, where the compiler does not see it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("error", &["identity", "store"]),
    ("events", &[]),
    ("lock", &["error"]),
    ("identity", &[]),
    ("join", &["identity"]),
    ("port", &[]),
    ("store", &["api"]),
    ("mesh", &["api", "events", "port"]),
    ("link", &["identity", "port"]),
    ("flow", &["api", "events", "mesh", "port", "store"]),
    ("api", &["config", "events", "flow", "mesh", "store"]),
    ("repair", &["error", "lock", "startup", "store"]),
    (
        "startup",
        &[
            "api", "config", "error", "events", "flow", "identity", "join", "link", "lock", "mesh",
            "port", "repair", "store",
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

/// What the layer table does not name yet.
const NOT_IN_TABLE: &[&str] = &[];

#[test]
fn the_layer_table_names_every_crate_and_every_room() {
    let text = page("specs/architecture.md");
    let section = text.split("\n## ").find(|section| section.contains("Who may know whom"));
    let section = section.expect("specs/architecture.md has a section `Who may know whom`");
    let mut named: BTreeSet<&str> = rows(section)
        .flatten()
        .flat_map(|cell| code_spans(cell).collect::<Vec<_>>())
        .map(|span| span.trim_start_matches("src/").trim_end_matches('/'))
        .map(|span| span.trim_start_matches("daemon/"))
        .collect();
    // The crates stand in the graph above it.
    named.extend(
        section
            .lines()
            .filter_map(|line| line.split_once("-->"))
            .flat_map(|(from, to)| [from.trim(), to.trim()]),
    );
    let mut wanted: BTreeSet<String> = ["fsm".to_owned()].into();
    for entry in fs::read_dir(root().join("src")).expect("a directory").flatten() {
        if entry.path().is_dir() {
            wanted.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    wanted.extend(sources("src/daemon/").iter().map(|source| source.room().to_owned()));
    wanted.remove("lib");
    wanted.remove("Cargo");
    let missing: Vec<String> =
        wanted.into_iter().filter(|name| !named.contains(name.as_str())).collect();
    let mut found = stale(NOT_IN_TABLE.iter().copied(), &missing);
    found.extend(missing.into_iter().filter(|name| !NOT_IN_TABLE.contains(&name.as_str())));
    fail("the table of layers in specs/architecture.md names every crate and room", &found);
}
