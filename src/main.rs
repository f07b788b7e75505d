//! The claudemesh binary: it hands its arguments to the command line and leaves with its exit code.
//!
//! This is where a reader begins. A message takes this way through the crates:
//!
//! ```text
//! caller -> daemon::api -> daemon::flow::accept -> daemon::store (outbox.db) -> 202
//!           daemon::flow::drain -> daemon::port -> daemon::link -> wire -> broker::connection
//!           broker::intake -> broker::ledger -> broker::dispatch -> broker::hub -> wire
//!           the other daemon's link
//!           daemon::flow::receive -> daemon::store (inbox.db) -> daemon::events -> listener
//! ```
//!
//! The crates, from the lowest layer up; each one knows only those listed before it:
//!
//! | crate | what it is |
//! |---|---|
//! | `fsm` | the decisions: pure, exhaustively tested |
//! | `src/base` | runtime, files, databases, HTTP, frames and keys |
//! | `src/broker` | the embedded broker |
//! | `src/daemon` | stores, links, flows and the local API |
//! | `src/cli` | the commands, and a client of the local API |
//!
//! `specs/architecture.md` says more of each.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(claudemesh_cli::main(std::env::args_os().skip(1).collect()))
}
