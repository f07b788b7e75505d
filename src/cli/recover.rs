//! `daemon recover`: examines or repairs damaged stores, while no daemon runs (§4.11).

use super::command::{Command, Flag, Parsed, switch};
use super::print::inline;
use super::{Context, Failure, exit};
use claudemesh_daemon::error::{DaemonError, first_finding};
use claudemesh_daemon::repair::{
    self, DatabaseState, Note, Repair, RepairFailure, RepairReport, Saved,
};
use serde_json::{Value, json};

/// How many rows are listed per table and kind of damage; `--json` lists all of them.
const NOTES_SHOWN: usize = 10;

const CHECK: Flag = switch("check", "look and change nothing (the default)");
const SALVAGE: Flag = switch("salvage", "keep every readable row in a new file, list the rest");
const FRESH: Flag = switch("fresh", "set a damaged file aside, start empty");

pub(super) const RECOVER: Command = Command {
    name: "daemon recover",
    flags: &[CHECK, SALVAGE, FRESH],
    about: "examine or repair damaged databases, while no daemon runs",
    details: "Only a damaged file is ever replaced, and it is set aside, not deleted. Exits 5 \
                  when a file is damaged and stays so, or when a daemon runs.",
    examples: &["claudemesh daemon recover --check", "claudemesh daemon recover --salvage"],
    ..Command::new(run)
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let repairs = [(CHECK, Repair::Check), (SALVAGE, Repair::Salvage), (FRESH, Repair::Fresh)];
    let repair = parsed.choice(&repairs)?.unwrap_or(Repair::Check);
    if repair == Repair::Salvage {
        context.print.progress("reading what can be read…");
    }
    let examined = match repair::run(&context.paths, repair, &context.runtime) {
        Ok(examined) => examined,
        Err(RepairFailure { error: DaemonError::AlreadyRunning(pid), .. }) => {
            let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            let text = format!("a daemon runs{who} and has the databases open");
            let failure = Failure::new(exit::CONFLICT, "daemon_running", text);
            return Err(failure.hint(format!("stop it: {}", context.command("daemon down"))));
        }
        Err(RepairFailure { examined, error }) => {
            if !examined.is_empty() {
                let value = json!({ "ok": false, "stores": stores_in_json(&examined) });
                context.print.answer(&value, || stores_in_words(&examined))?;
            }
            return Err(Failure::new(error.exit_code(), "failed", error));
        }
    };
    let is_damaged = examined
        .iter()
        .any(|store| matches!(store.found, DatabaseState::Damaged(_)) && store.aside.is_none());
    let value = json!({
        "ok": !is_damaged,
        "stores": stores_in_json(&examined),
    });
    context.print.answer(&value, || {
        let mut text = stores_in_words(&examined);
        if is_damaged {
            text += &format!("\nhint:  {}", hints(context));
        } else if repair != Repair::Check {
            text += &format!("\nstart the daemon with `{}`", context.command("daemon up"));
        }
        text
    })?;
    Ok(if is_damaged { exit::CONFLICT } else { exit::OK })
}

/// What can be done about a damaged store, one command per line.
pub(super) fn hints(context: &Context) -> String {
    let choices = [
        ("--check  ", "look, change nothing"),
        ("--salvage", "keep every readable row, list the rest"),
        ("--fresh  ", "set the file aside, start empty"),
    ];
    let line = |(flag, about): (&str, &str)| {
        let command = context.command(&format!("daemon recover {flag}"));
        format!("{command}   {about}")
    };
    choices.map(line).join("\n       ")
}

fn stores_in_json(stores: &[RepairReport]) -> Vec<Value> {
    stores.iter().map(in_json).collect()
}

fn stores_in_words(stores: &[RepairReport]) -> String {
    stores.iter().map(in_words).collect::<Vec<_>>().join("\n")
}

fn in_json(store: &RepairReport) -> Value {
    let (found, findings) = match &store.found {
        DatabaseState::Missing => ("missing", None),
        DatabaseState::Whole => ("whole", None),
        DatabaseState::Damaged(findings) => ("damaged", Some(findings.lines().collect::<Vec<_>>())),
    };
    let notes = |notes: &[Note]| {
        let note = |note: &Note| json!({"first": note.first, "last": note.last, "why": note.why});
        notes.iter().map(note).collect::<Vec<_>>()
    };
    let table = |saved: &Saved| {
        json!({
            "table": saved.table, "rows": saved.rows, "lost": notes(&saved.lost),
            "mended": notes(&saved.mended), "refused": notes(&saved.refused),
        })
    };
    json!({
        "name": store.name, "found": found, "findings": findings,
        "aside": store.aside.as_ref().map(|path| path.display().to_string()),
        "saved": store.saved.iter().map(table).collect::<Vec<_>>(),
    })
}

fn in_words(store: &RepairReport) -> String {
    let name = store.name;
    let findings = match &store.found {
        DatabaseState::Missing => return format!("{name:<9}  there is none yet"),
        DatabaseState::Whole => return format!("{name:<9}  whole"),
        DatabaseState::Damaged(findings) => findings,
    };
    let mut lines = vec![format!("{name:<9}  damaged: {}", inline(&first_finding(findings)))];
    for saved in &store.saved {
        let table = inline(&saved.table);
        lines.push(format!("{:<9}  {} rows of `{table}` are in the new file", "", saved.rows));
        let kinds = [
            ("cannot be read", &saved.lost),
            ("was changed", &saved.mended),
            ("makes no sense and is left out", &saved.refused),
        ];
        for (what, notes) in kinds {
            lines.extend(notes.iter().take(NOTES_SHOWN).map(|note| {
                let why = inline(&note.why);
                match (note.first, note.last) {
                    (0, 0) => format!("{:<9}  `{table}` {what} in places: {why}", ""),
                    (first, last) if first == last => {
                        format!("{:<9}  row {first} of `{table}` {what}: {why}", "")
                    }
                    (first, last) => {
                        format!("{:<9}  rows {first} to {last} of `{table}`: {what}: {why}", "")
                    }
                }
            }));
            if notes.len() > NOTES_SHOWN {
                let more = notes.len() - NOTES_SHOWN;
                lines.push(format!("{:<9}  … and {more} more; --json lists them", ""));
            }
        }
    }
    if let Some(aside) = &store.aside {
        lines.push(format!("{:<9}  the damaged file is {}", "", aside.display()));
        if store.saved.is_empty() {
            lines.push(format!("{:<9}  a new one begins empty", ""));
        }
    }
    lines.join("\n")
}
