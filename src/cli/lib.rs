//! The command line (§8): arguments to plain data, plain data to an action, one answer.
//!
//! Each command is declared beside the function that runs it; `table` lists the declarations, and
//! parsing, help and completions go through that list. Data goes to standard output, everything
//! else to standard error. Nothing here decides what a daemon or broker decides: the daily commands
//! ask the daemon and print its answer.

mod args;
mod broker;
mod client;
mod command;
mod completions;
mod context;
mod daemon;
mod demo;
mod detach;
mod detect;
mod events;
mod failure;
mod help;
mod inbox;
mod join;
mod member;
mod mesh;
mod operator;
mod outbox;
mod peers;
mod print;
mod recover;
mod send;
mod status;
mod table;
mod up;

use args::Invocation;
use context::Context;
use failure::Failure;
use print::Printer;
use std::ffi::OsString;
use table::COMMANDS;

/// The exit codes of §8.
pub mod exit {
    /// It worked, or the reader of our output left.
    pub const OK: u8 = 0;
    /// It did not work.
    pub const FAILED: u8 = 1;
    /// The command line, or a file a person wrote, cannot be understood.
    pub const USAGE: u8 = 2;
    /// The daemon is not running.
    pub const NOT_RUNNING: u8 = 3;
    /// The daemon says a thing that contradicts another, or a store is damaged.
    pub const CONFLICT: u8 = 5;
    /// `--wait` ended first.
    pub const NOT_IN_TIME: u8 = 6;
    /// A broker refused us.
    pub const REFUSED: u8 = 10;
    /// Ctrl-C.
    pub const INTERRUPTED: u8 = 130;
}

/// Runs one command line (without the program's name); the exit code.
#[must_use]
pub fn main(args: Vec<OsString>) -> u8 {
    let print = Printer::of_process(args::wants_json(&args));
    let outcome = args::parse(COMMANDS, args).and_then(|invocation| act(&print, invocation));
    match outcome {
        Ok(code) => code,
        Err(failure) => print.failure(&failure),
    }
}

fn act(print: &Printer, invocation: Invocation) -> Result<u8, Failure> {
    match invocation {
        Invocation::Help { words } => print.text(&help::page(COMMANDS, &words)?).map(|()| exit::OK),
        Invocation::Version => help::version(print),
        Invocation::Run { home, parsed } => {
            let context = Context::new(print.clone(), home)?;
            (parsed.command.run)(&context, &parsed)
        }
    }
}
