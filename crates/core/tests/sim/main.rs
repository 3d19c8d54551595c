//! The engine under everything that can happen to it, in virtual time, over a log in memory.
//!
//! One seed is one run: a random scenario, then a random interleaving of producers, replicas, rebalances, crashes, zombies,
//! refused commits and slow readings, checked at each step against an oracle that evaluates the log serially.
//!
//! * `genwatch_oracle`: the serial evaluation; shares nothing with the code under test. [`records`]: records and what they mean.
//! * [`scenario`]: what a seed decides beforehand. [`scheduler`]: who takes the next step, what fails, how it ends.
//! * [`cluster`], [`group`], [`librdkafka`]: Kafka in memory: logs, transactions, states; the coordinator; its client.
//! * [`replica`]: executes what a real `genwatch_core::engine::Engine` asks for, as `src/worker` does with the real ones.
//! * [`invariants`], [`ledger`], [`judge`]: what must hold; of an assignment; of what becomes visible.
//! * [`properties`]: the pool alone, with shrinking. [`mutations`]: shows that the simulation finds bugs.
//!
//! `GENWATCH_SIM_SEED=N` replays one seed and tells its events; `GENWATCH_SIM_SEEDS=N` sets how many are run,
//! `GENWATCH_SIM_FROM=N` which is the first.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

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

/// As many as take about 40 s on one core.
const DEFAULT_SEEDS: u64 = 45_000;
