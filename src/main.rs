//! The claudemesh binary: hands its arguments to the library and leaves with what it says.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(claudemesh_cli::main(std::env::args_os().skip(1).collect()))
}
