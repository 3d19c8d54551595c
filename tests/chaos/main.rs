//! Chaos: the real worker on a real three-node Kafka, while brokers, workers and the network between them fail.
//!
//! A seed decides the faults, their order, their targets and how long each lasts. Meanwhile a producer goes on at a steady
//! rate, by rules under which (nearly) every reading emits an event, so that what is proven of alerts is proven of
//! readings. At the end the oracle reads the log and compares: alerts, dead letters and states exactly equal, none lost,
//! none twice, in order.
//!
//! * [`run`]: one run from start to verdict.
//! * [`schedule`]: which faults, from the seed. [`faults`]: what each of them does.
//! * [`cluster`], [`link`], [`workers`], [`feed`]: what can fail, and what must not.
//! * [`monitor`]: how far the group is, all the time. [`report`]: what a run tells.
//! * [`reaper`]: no process outlives a run.
//!
//! `scripts/chaos` runs it with options; by itself it has fifteen faults.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../signal/mod.rs"]
mod signal;

mod cluster;
mod faults;
mod feed;
mod link;
mod monitor;
mod options;
mod reaper;
mod report;
mod run;
mod schedule;
mod workers;

#[test]
fn nothing_is_lost_or_doubled_whatever_fails() {
    run::run(&options::Options::from_environment());
}
