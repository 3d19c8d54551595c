//! Runs seeds, and says how to replay one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::scheduler::{self, Seen};

/// Runs the seeds that the environment asks for, or the first `default`.
///
/// # Errors
/// Returns a text that names the first seed that fails, why, and how to replay it.
pub fn run_from_environment(default: u64) -> Result<(), String> {
    let asked = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = asked("GENWATCH_SIM_SEED") {
        return run_one(seed, true).map(|_| ());
    }
    let first = asked("GENWATCH_SIM_FROM").unwrap_or(0);
    let count = asked("GENWATCH_SIM_SEEDS").unwrap_or(default);
    let mut seen = Seen::default();
    for seed in first..first.saturating_add(count) {
        seen += run_one(seed, false)?;
    }
    println!("{count} seeds from {first}: {seen:?}");
    Ok(())
}

fn run_one(seed: u64, told: bool) -> Result<Seen, String> {
    let failure = match catch_unwind(AssertUnwindSafe(|| scheduler::run(seed, told))) {
        Ok(Ok(seen)) => return Ok(seen),
        Ok(Err(failure)) => failure.to_string(),
        Err(_) => format!("seed {seed}: a panic, reported above"),
    };
    let replay = "cargo test --release --test sim -- --nocapture whatever_happens";
    Err(format!("{failure}\nreplay it: GENWATCH_SIM_SEED={seed} {replay}"))
}
