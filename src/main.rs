//! The binary: parses the command line, calls a command, turns its end into an exit code.

use std::process::ExitCode;

// Also C's: librdkafka allocates for each record that it fetches.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    genwatch::cli::main()
}
