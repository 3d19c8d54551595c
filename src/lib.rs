//! genwatch: the horizontally scalable consumer of emergency generator telemetry in Apache Kafka.
//!
//! A replica joins a consumer group, works its partitions in the order of each generator, raises and clears alarms, and
//! makes alerts, alarm states, dead letters and offsets durable together. When producers outrun one replica, one adds
//! replicas.
//!
//! # Layout
//!
//! Pure, without Kafka, clock, thread or randomness:
//!
//! * [`log`]: the words of a partitioned log: partition, offset, time, generator.
//! * [`reading`]: a reading, parsed and checked.
//! * [`alarm`]: rules, the alarm state machine, alert events.
//! * [`engine`]: every decision of a worker: its partitions, memberships, commits.
//! * [`pool`]: readings worked side by side, effects published as they are done. The heart of the project.
//! * [`effect`]: what leaves the worker.
//! * [`simulator`]: a fleet of model generators.
//!
//! The edges and what joins them:
//!
//! * [`worker`]: joins pool and Kafka; the way of a reading, top-down.
//! * [`kafka`]: all clients of Kafka, and all `unsafe`.
//! * [`mqtt`]: generators report by MQTT; a bridge to Kafka.
//! * [`influx`]: a sink that writes readings, alerts and aggregates to InfluxDB.
//! * [`work`], [`rate`], [`flood`], [`clock`]: the cost of a reading; pacing; too many bad records; the wall clock.
//! * [`metrics`], [`health`], [`fleet`]: what observers see.
//! * [`web`]: HTTP of worker, bridge and sink. [`stderr`]: log lines that can't be written are dropped. [`log_limit`]: the
//!   same thing is told seldom.
//! * [`demo`]: the whole system in one process.
//! * [`mod@bench`]: benchmarks, by real processes on a real cluster.
//! * [`cli`]: one file a command, thin.

pub mod cli;
pub mod demo;
pub mod fleet;
pub mod flood;
pub mod health;
pub mod influx;
pub mod metrics;
pub mod mqtt;
pub mod stderr;
pub mod web;
pub mod work;
pub mod worker;
