//! Aggregates under faults: real engines with the aggregates' handler over a cluster in memory. Workers crash, are
//! revoked, stand still; commits are refused, or succeed unheard. In the end the visible aggregates are those of a
//! batch over the log, value by value.
//!
//! * [`simulation`]: a run. [`mutations`]: shows that it, or the properties in `aggregate.rs`, finds bugs.
//!
//! One seed is one run. `GENWATCH_SIM_SEED=N` runs one, `GENWATCH_SIM_SEEDS=N` sets their number.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../mutants/mod.rs"]
mod mutants;

mod mutations;
mod simulation;

#[test]
fn after_any_faults_the_aggregates_are_those_of_a_batch() {
    simulation::run_from_environment(600);
}
