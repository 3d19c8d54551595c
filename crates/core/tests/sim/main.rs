//! Simulates the engine under everything that can happen to it, in virtual time, over a log in memory.
//!
//! One seed is one run: a random scenario, then a random interleaving of producers, workers, rebalances, crashes,
//! zombies, refused commits and slow readings, checked at each step against an oracle that evaluates the log
//! serially.
//!
//! * `genwatch_oracle`: the serial evaluation; shares nothing with the code under test.
//! * [`records`]: records and their meaning.
//! * [`scenario`]: what a seed decides beforehand. [`scheduler`]: picks the next step, the faults, and the end.
//! * [`cluster`], [`group`], [`librdkafka`]: Kafka in memory: logs, transactions, states; the coordinator; its
//!   client.
//! * [`replica`]: a worker: executes the actions of a real `genwatch_core::engine::Engine`, as `src/worker` does.
//! * [`invariants`]: what must hold. [`ledger`] checks an assignment, [`judge`] checks what becomes visible.
//! * [`properties`]: the pool alone, with shrinking. [`mutations`]: shows that the simulation finds bugs.
//!
//! `GENWATCH_SIM_SEED=N` replays one seed and logs its events; `GENWATCH_SIM_SEEDS=N` sets the number of seeds,
//! `GENWATCH_SIM_FROM=N` the first one.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../mutants/mod.rs"]
mod mutants;

mod cluster;
mod group;
mod invariants;
mod judge;
mod ledger;
mod librdkafka;
mod mutations;
mod producer;
mod properties;
mod records;
mod replica;
mod scenario;
mod scheduler;
mod seeds;
mod trace;

#[test]
fn whatever_happens_each_effect_is_visible_once_and_in_order() {
    seeds::run_from_environment(DEFAULT_SEEDS).unwrap_or_else(|failure| panic!("{failure}"));
}

/// As many seeds as take about 40 s on one core.
const DEFAULT_SEEDS: u64 = 45_000;
