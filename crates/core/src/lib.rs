//! The pure part of genwatch: no Kafka, clock, thread or global randomness. Time is a parameter, what is to be done
//! is a value.
//!
//! That is a wall which Cargo holds: what isn't a dependency of this crate can't be written in it. So its tests
//! need no C compiler and no broker, and the simulation in `tests/sim` drives the code that ships.
//!
//! # Layout
//!
//! * [`types`]: the words of a partitioned log: partition, offset, time, generator.
//! * [`reading`]: a reading, parsed and checked.
//! * [`handler`]: the seam to what is done with a generator's records; effects and states.
//! * [`alarm`]: a handler: rules, the alarm state machine, alert events.
//! * [`aggregate`]: another: statistics of each generator by window of event time.
//! * [`pool`]: readings worked side by side, effects published as they are done. The heart of the project.
//! * [`engine`]: every decision of a worker: its partitions, memberships, commits. It owns the pool.
//! * [`ranges`]: partitions in one line.
//! * [`report`]: what a worker, bridge or sink says of itself. [`lag`]: rates, trend and verdict of a partition.
//! * [`partitioner`]: which partition a key belongs to.
//! * [`plan`]: the advisor: what a group needs, computed from what was measured.
//! * [`simulator`]: a fleet of model generators.
//! * [`transform`]: the steps of a `--transform` file, applied to one record at a time.
//! * [`numbers`]: numbers as people read them.
//! * [`pacer`]: how many of anything are due by now at a given rate.

pub mod aggregate;
pub mod alarm;
pub mod engine;
pub mod handler;
pub mod lag;
pub mod numbers;
pub mod pacer;
pub mod partitioner;
pub mod plan;
pub mod pool;
pub mod ranges;
pub mod reading;
pub mod report;
pub mod simulator;
pub mod transform;
pub mod types;
