//! genwatch with the allocators that Rust and C come with. `bench drain` runs its baseline in it: whoever writes a loop
//! of rust-rdkafka has those, so the baseline must not profit from genwatch's.

use std::process::ExitCode;

fn main() -> ExitCode {
    genwatch::cli::main()
}
