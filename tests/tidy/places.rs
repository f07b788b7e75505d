//! What happens in one place only.

use super::source::{fail, sources};
use std::fmt::Write;

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
