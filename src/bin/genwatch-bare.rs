//! genwatch with the allocators that Rust and C come with. `bench drain` runs its baseline in it: whoever writes a loop
//! of rust-rdkafka has those, and librdkafka's fetching gains a third by genwatch's.

use std::process::ExitCode;

fn main() -> ExitCode {
    genwatch::cli::main()
}
