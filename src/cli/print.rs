//! The only module that prints: answers to standard output, everything else to standard error. A
//! reader that closes the pipe is no error. Text from other people loses its control characters,
//! because a terminal would obey them.

use super::exit;
use super::failure::Failure;
use serde_json::{Value, json};
use std::io::{self, ErrorKind, IsTerminal, Write};

/// What indents the further lines of somebody else's text, so that none of them can pass for a line
/// of our own.
const CONTINUATION: &str = "\n    ";

/// Where and how to print.
#[derive(Debug, Clone)]
pub(super) struct Printer {
    json: bool,
    colour: bool,
    notes: bool,
}

/// How a word is coloured.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tone {
    Good,
    Bad,
    Quiet,
}

impl Printer {
    /// For this process's standard streams.
    pub(super) fn of_process(json: bool) -> Self {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let colour = !json && !is_set("NO_COLOR") && !is_dumb && io::stdout().is_terminal();
        Self { json, colour, notes: io::stderr().is_terminal() }
    }

    /// Whether the answer is JSON.
    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the answer, as one line of JSON or in words; the exit code of success.
    pub(super) fn answer(
        &self,
        value: &Value,
        words: impl FnOnce() -> String,
    ) -> Result<u8, Failure> {
        let answer = if self.json { value.to_string() } else { words() };
        self.text(&(answer + "\n")).map(|()| exit::OK)
    }

    /// Text as it is, newline included.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::closed_pipe()),
            Err(error) => Err(Failure::failed(format!("cannot write the answer: {error}"))),
        }
    }

    /// Prints something that a person should know and a program need not.
    pub(super) fn note(&self, text: &str) {
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Prints what goes on, if a person watches.
    pub(super) fn progress(&self, text: &str) {
        if self.notes && !self.json {
            self.note(text);
        }
    }

    /// Prints a failure; returns its exit code.
    pub(super) fn failure(&self, failure: &Failure) -> u8 {
        if failure.exit == exit::OK {
            return exit::OK;
        }
        if self.json {
            let mut value = Value::Object(failure.extra.clone());
            value["ok"] = false.into();
            value["error"] = failure.code.as_str().into();
            value["detail"] = failure.message.as_str().into();
            value["hint"] = failure.hint.clone().into();
            value["exit"] = json!(failure.exit);
            // The exit code says it too, if nobody reads.
            let _ = self.text(&format!("{value}\n"));
        } else if failure.exit != exit::INTERRUPTED {
            self.note(&format!("error: {}", lines(&failure.message)));
            if let Some(hint) = &failure.hint {
                self.note(&format!("hint:  {}", lines(hint)));
            }
        }
        failure.exit
    }

    /// A word in the colour of its tone, where colours are shown.
    pub(super) fn paint(&self, tone: Tone, word: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Quiet => "2",
        };
        if self.colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

/// Somebody else's text on one line, without control characters.
pub(super) fn inline(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\n' || c == '\t' { ' ' } else { c })
        .filter(|c| is_shown(*c))
        .collect()
}

/// Somebody else's text with its lines kept and the further ones indented.
pub(super) fn block(text: &str) -> String {
    text.lines().map(inline).collect::<Vec<_>>().join(CONTINUATION)
}

/// Our own text, which may quote somebody else's. Lines stay as they are.
fn lines(text: &str) -> String {
    text.lines().map(inline).collect::<Vec<_>>().join("\n")
}

/// Whether a character is neither a control character nor one that changes the direction of text.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// A number of seconds as a person says it.
pub(super) fn age(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        ..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} m", seconds / MINUTE),
        HOUR..DAY => format!("{} h", seconds / HOUR),
        DAY.. => format!("{} d", seconds / DAY),
    }
}

/// Rows as columns, each as wide as its widest cell; the last one is not padded.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
