//! genwatch: the horizontally scalable consumer of emergency generator telemetry in Apache Kafka.
//!
//! A worker joins a consumer group, processes each generator's readings in order, raises and clears alarms, and makes
//! alerts, alarm states, dead letters and offsets durable together. When producers outrun the workers, add workers.
//!
//! # Layout
//!
//! This crate builds on four others; Cargo enforces the walls between them:
//!
//! * `genwatch_core`: pure, without Kafka, clock, thread or randomness. Readings, alarms, the pool, the engine that
//!   makes every decision of a worker, the model of a fleet.
//! * `genwatch_kafka`: all Kafka clients, and all `unsafe`. It knows no alarm.
//! * `genwatch_oracle`: the naive evaluation of a log, by which all others are judged.
//! * `genwatch_bench`: benchmarks with real processes on a real cluster.
//!
//! This crate has the services and the command line:
//!
//! * [`service`]: the shape of a service: readiness, metrics, HTTP.
//! * [`worker`]: connects engine and Kafka; shows the path of a reading, top-down.
//! * [`mqtt`]: generators report by MQTT; the service [`mqtt::bridge`] forwards to Kafka.
//! * [`sink`]: the runtime of a service that writes records to a store; [`sink::influx`]: the store InfluxDB.
//!   `examples/own_sink.rs` is another store.
//! * [`source`]: the service that produces the rows of a query of InfluxDB to a topic, exactly once.
//! * [`influx`]: how sink and source reach an InfluxDB.
//! * [`status`]: how far a group is: what `genwatch status` shows.
//! * [`fleet`]: the live view of a process's workers. [`demo`]: the whole system in one process.
//! * [`cli`]: one thin file per command.

pub mod cli;
pub mod dashboard;
pub mod demo;
pub mod downsample;
pub mod fleet;
pub mod influx;
pub mod mqtt;
pub mod service;
pub mod sink;
pub mod source;
pub mod status;
pub mod worker;
