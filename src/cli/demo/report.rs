//! What the demo tells: numbered steps with the literal requests and answers for a person, or one
//! JSON object per step for a program.

use super::super::failure::Failure;
use super::super::print::{Printer, Tone};
use serde_json::{Map, Value, json};

/// Literal JSON is broken after a comma beyond this many characters.
const WIDTH: usize = 92;
/// Under a request, what follows stands here.
const INDENT: &str = "           ";

/// Tells the steps, one after the other.
pub(super) struct DemoReport {
    print: Printer,
    step: Option<Step>,
    steps_begun: usize,
}

#[derive(Default)]
struct Step {
    name: &'static str,
    exchanges: Vec<Value>,
    facts: Map<String, Value>,
}

impl DemoReport {
    pub(super) fn new(print: &Printer) -> Self {
        Self { print: print.clone(), step: None, steps_begun: 0 }
    }

    /// The name of the step that is being told.
    pub(super) fn step(&self) -> &'static str {
        self.step.as_ref().map_or("start", |step| step.name)
    }

    /// Opens a step, after closing the one before.
    pub(super) fn begin(&mut self, name: &'static str, words: &str) -> Result<(), Failure> {
        self.finish()?;
        self.steps_begun += 1;
        self.step = Some(Step { name, ..Step::default() });
        self.print_line(&format!("\n{}. {words}", self.steps_begun))
    }

    /// Closes the step: in JSON this is when it is told.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let Some(step) = self.step.take() else { return Ok(()) };
        if !self.print.is_json() {
            return Ok(());
        }
        let mut value = json!({ "step": step.name, "ok": true });
        if !step.exchanges.is_empty() {
            value["exchanges"] = step.exchanges.into();
        }
        for (name, fact) in step.facts {
            value[name] = fact;
        }
        self.print.text(&format!("{value}\n"))
    }

    /// A request, and its answer, as they went over `who`'s socket.
    pub(super) fn exchange(
        &mut self,
        who: &str,
        path: &str,
        sent: Option<&Value>,
        status: u16,
        answer: &str,
    ) -> Result<(), Failure> {
        let method = if sent.is_some() { "POST" } else { "GET" };
        if let Some(step) = &mut self.step {
            let parsed: Value = serde_json::from_str(answer).unwrap_or_else(|_| answer.into());
            step.exchanges.push(json!({
                "daemon": who, "request": format!("{method} {path}"), "body": sent,
                "status": status, "answer": parsed,
            }));
        }
        let body = sent.map(|body| format!("  {body}")).unwrap_or_default();
        self.print_line(&format!("   {who:<5} > {}", wrapped(&format!("{method} {path}{body}"))))?;
        let tone = if status < 400 { Tone::Good } else { Tone::Bad };
        let status = self.print.paint(tone, &status.to_string());
        self.print_line(&format!("         < {status}  {}", wrapped(answer)))
    }

    /// An event, as it came.
    pub(super) fn event(&mut self, who: &str, name: &str, data: &str) -> Result<(), Failure> {
        let parsed: Value = serde_json::from_str(data).unwrap_or_else(|_| data.into());
        self.fact("event", json!({ "daemon": who, "event": name, "data": parsed }));
        self.print_line(&format!("   {who:<5} < event: {name}"))?;
        self.print_line(&format!("           data: {}", wrapped(data)))
    }

    /// A command of ours, and what it printed.
    pub(super) fn command(&mut self, who: &str, line: &str, printed: &str) -> Result<(), Failure> {
        self.fact("printed", printed.into());
        self.print_line(&format!("   {who:<5} $ {line}"))?;
        let printed = printed.lines().map(|line| format!("{INDENT}{line}"));
        self.print_line(&printed.collect::<Vec<_>>().join("\n"))
    }

    /// What was found true, in words.
    pub(super) fn confirm(&mut self, words: &str) -> Result<(), Failure> {
        let tick = self.print.paint(Tone::Good, "✔");
        self.print_line(&format!("   {tick} {words}"))
    }

    /// What was found true, for a program.
    pub(super) fn fact(&mut self, name: &str, value: Value) {
        if let Some(step) = &mut self.step {
            step.facts.insert(name.to_owned(), value);
        }
    }

    /// A line for a person.
    pub(super) fn print_line(&self, line: &str) -> Result<(), Failure> {
        if self.print.is_json() { Ok(()) } else { self.print.text(&format!("{line}\n")) }
    }

    /// An object for a program.
    pub(super) fn object(&self, value: &Value) -> Result<(), Failure> {
        if self.print.is_json() { self.print.text(&format!("{value}\n")) } else { Ok(()) }
    }
}

/// Long JSON in lines, broken between members and nowhere else; no character is lost.
fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut width = INDENT.len();
    for piece in text.split_inclusive(",\"") {
        // The quotation mark belongs to the next piece.
        let piece_width = piece.chars().count();
        if width + piece_width > WIDTH && width > INDENT.len() && lines.ends_with('"') {
            lines.pop();
            lines += "\n";
            lines += INDENT;
            lines += "\"";
            width = INDENT.len() + 1;
        }
        lines += piece;
        width += piece_width;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_json_is_broken_between_members_and_loses_nothing() {
        let long: Vec<_> = (0..20).map(|n| format!("\"member_{n}\":\"value, {n}\"")).collect();
        let text = format!("{{{}}}", long.join(","));
        let shown = wrapped(&text);
        assert!(shown.lines().count() > 1);
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH + 2), "{shown}");
        assert_eq!(shown.replace(&format!("\n{INDENT}"), ""), text);
        assert_eq!(wrapped("{\"a\":1,\"b\":2}"), "{\"a\":1,\"b\":2}");
    }
}
