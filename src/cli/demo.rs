//! `demo`: a broker and two daemons, started for real, asked to keep their promises while things
//! go wrong around them.
//!
//! It tells nothing that it did not check, touches nothing outside its temporary directory, and
//! leaves no process and no file behind, whether it ends well, badly or by a signal. Only a
//! `kill -9` of the demo itself cannot be cleaned up after.

mod processes;
mod steps;
mod story;

use super::command::{Command, Parsed};
use super::print::columns;
use super::{Context, Failure, exit};
use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};
use processes::Stage;
use serde_json::json;
use std::time::Duration;
use story::Story;

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
    let mut stage = Stage::new(context)?;
    let mut story = Story::new(&context.print);
    story.say("A demo with real processes: `>` is a request, `<` the answer, word for word")?;
    let outcome = context.run(async {
        let interrupted = async {
            signals.next().await;
            Err(Failure::interrupted())
        };
        future::or(interrupted, Box::pin(steps::act(&mut stage, &mut story))).await
    });
    if let Err(failure) = outcome {
        return Err(explained(failure, &stage, &story));
    }
    let pids = stage.pids();
    // Ends every process, then removes the directory.
    drop(stage);
    farewell(&story, &pids, context.runtime.monotonic() - begun)?;
    Ok(exit::OK)
}

/// A failure with where it happened and what the processes said last. A signal or a reader that
/// left needs no explanation.
fn explained(mut failure: Failure, stage: &Stage, story: &Story) -> Failure {
    if matches!(failure.exit, exit::OK | exit::INTERRUPTED) {
        return failure;
    }
    failure.message = format!("{}{}", failure.message, stage.last_words());
    failure.exit = exit::FAILED;
    failure.with("step", story.step())
}

fn farewell(story: &Story, pids: &[u32], took: Duration) -> Result<(), Failure> {
    let ended = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    story.object(&json!({ "step": "end", "ok": true, "ended": pids, "took_ms": took_ms }))?;
    let seconds = took.as_secs_f64();
    story.say(&format!(
        "\nAll of it was checked, in {seconds:.1} s. Ended: pid {ended}; the directory is gone.\n"
    ))?;
    let program = std::env::args().next().unwrap_or_else(|| "claudemesh".to_owned());
    story.say("Try next:")?;
    let next = [
        ("daemon up --local", "a daemon of your own, with a broker and a mesh `local`"),
        ("mesh invite local", "a link that lets one more host into it"),
        ("help", "everything else"),
    ];
    let rows = next.map(|(words, what)| vec![format!("  {program} {words}"), what.to_owned()]);
    story.say(&columns(&rows))
}
