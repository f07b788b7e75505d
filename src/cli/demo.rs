//! `demo`: starts a broker and two daemons as real processes, and checks that they keep their promises
//! through an outage and a crash.
//!
//! It reports only what it checked and touches nothing outside its temporary directory. It leaves no
//! process and no file behind, whether it succeeds, fails or is ended by a signal; only a `kill -9`
//! of the demo itself leaves them.

mod process;
mod report;
mod sandbox;
mod steps;

use super::command::{Command, Parsed};
use super::print::columns;
use super::{Context, Failure, exit};
use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};
use report::DemoReport;
use sandbox::Sandbox;
use serde_json::json;
use std::time::Duration;

pub(super) const DEMO: Command = Command {
    name: "demo",
    about: "watch a broker and two daemons keep their promises, on this machine",
    details: "Starts them as real processes in a temporary directory, checks everything it \
                  tells, and removes it all again. Takes less than 10 s, touches nothing of \
                  yours, and needs no network. With --json: one object per step.",
    examples: &["claudemesh demo", "claudemesh demo --json"],
    ..Command::new(run)
};

fn run(context: &Context, _: &Parsed) -> Result<u8, Failure> {
    // Before anything is started that would have to be ended.
    let mut signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup])
        .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    let begun = context.runtime.monotonic();
    let mut sandbox = Sandbox::new(context)?;
    let mut report = DemoReport::new(&context.print);
    report.print_line(
        "A demo with real processes: `>` is a request, `<` the answer, word for word",
    )?;
    let outcome = context.run(async {
        let interrupted = async {
            signals.next().await;
            Err(Failure::interrupted())
        };
        future::or(interrupted, Box::pin(steps::run_all(&mut sandbox, &mut report))).await
    });
    if let Err(failure) = outcome {
        return Err(with_context(failure, &sandbox, &report));
    }
    let pids = sandbox.pids();
    // Ends every process, then removes the directory.
    drop(sandbox);
    print_summary(&report, &pids, context.runtime.monotonic() - begun)?;
    Ok(exit::OK)
}

/// Adds to a failure in which step it happened and what the processes wrote last. A signal or a
/// closed pipe needs no explanation.
fn with_context(mut failure: Failure, sandbox: &Sandbox, report: &DemoReport) -> Failure {
    if matches!(failure.exit, exit::OK | exit::INTERRUPTED) {
        return failure;
    }
    failure.message = format!("{}{}", failure.message, sandbox.recent_output());
    failure.exit = exit::FAILED;
    failure.with("step", report.step())
}

fn print_summary(report: &DemoReport, pids: &[u32], took: Duration) -> Result<(), Failure> {
    let ended = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    report.object(&json!({ "step": "end", "ok": true, "ended": pids, "took_ms": took_ms }))?;
    let seconds = took.as_secs_f64();
    report.print_line(&format!(
        "\nAll of it was checked, in {seconds:.1} s. Ended: pid {ended}; the directory is gone.\n"
    ))?;
    let program = std::env::args().next().unwrap_or_else(|| "claudemesh".to_owned());
    report.print_line("Try next:")?;
    let next = [
        ("daemon up --local", "a daemon of your own, with a broker and a mesh `local`"),
        ("mesh invite local", "a link that lets one more host into it"),
        ("help", "everything else"),
    ];
    let rows = next.map(|(words, what)| vec![format!("  {program} {words}"), what.to_owned()]);
    report.print_line(&columns(&rows))
}
