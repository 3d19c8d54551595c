//! The binary: parses the command line, calls a command, turns its end into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    genwatch::cli::main()
}
