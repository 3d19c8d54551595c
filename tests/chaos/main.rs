//! Chaos: the real workers, of alarms and of aggregates, on a real three-node Kafka, while brokers, workers and the
//! network between them fail.
//!
//! A seed decides the faults, their order, their targets and how long each lasts. Meanwhile a producer goes on at a
//! steady rate. By the rules (nearly) every reading emits an event, so a proof for alerts is a proof for readings. At
//! the end the oracle reads the log and compares: alerts, dead letters, states and aggregates must be exactly equal,
//! none lost, none twice, in order. A reader that ran all the time says when each alert became visible: no generator
//! may wait for another's slow work.
//!
//! * [`run`]: one run from start to verdict.
//! * [`schedule`]: which faults, from the seed. [`faults`], [`revocation`]: what each of them does. [`recovery`]: what
//!   has to follow.
//! * [`cluster`], [`link`], [`workers`] with [`probe`], [`feed`] with [`fleet`]: what can fail, and what must not.
//! * [`monitor`]: the group's progress, [`observer`]: which alerts are visible, all the time.
//! * [`past`], [`aggregates`] and [`verdict`]: whether the results are right, [`delays`]: and when. [`report`]: what a
//!   run reports.
//! * [`reaper`]: no process outlives a run.
//!
//! `scripts/chaos` runs it with options; by itself it has each kind of fault once.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../signal/mod.rs"]
mod signal;

mod aggregates;
mod cluster;
mod delays;
mod faults;
mod feed;
mod fleet;
mod link;
mod monitor;
mod observer;
mod options;
mod past;
mod probe;
mod reaper;
mod recovery;
mod report;
mod revocation;
mod run;
mod schedule;
mod verdict;
mod workers;

#[test]
fn nothing_is_lost_or_doubled_whatever_fails() {
    run::run(&options::Options::from_environment());
}
