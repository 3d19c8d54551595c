//! genwatch: the horizontally scalable consumer of emergency generator telemetry in Apache Kafka.
//!
//! A worker joins a consumer group, processes its partitions in the order of each generator, raises and clears alarms, and
//! makes alerts, alarm states, dead letters and offsets durable together. When producers outrun one worker, one adds workers.
//!
//! # Layout
//!
//! Four crates hold what this one stands on, and Cargo holds the walls between them:
//!
//! * `genwatch_core`: pure, without Kafka, clock, thread or randomness. Readings, alarms, the pool, the engine that takes every
//!   decision of a worker, the model of a fleet.
//! * `genwatch_kafka`: all clients of Kafka, and all `unsafe`. It knows no alarm.
//! * `genwatch_oracle`: what a log comes to, evaluated naively; it judges all others.
//! * `genwatch_bench`: benchmarks, by real processes on a real cluster.
//!
//! This crate has the services and the command line:
//!
//! * [`service`]: the shape of a service: readiness, metrics, HTTP.
//! * [`worker`]: joins engine and Kafka; the way of a reading, top-down.
//! * [`mqtt`]: generators report by MQTT; [`mqtt::bridge`], a service, forwards to Kafka.
//! * [`sink`]: the runtime of a service that writes records to a store; [`sink::influx`], the store InfluxDB. `examples/own_sink.rs` is
//!   another.
//! * [`fleet`]: the live view of a process's workers. [`demo`]: the whole system in one process.
//! * [`cli`]: one file a command, thin.

pub mod cli;
pub mod demo;
pub mod fleet;
pub mod mqtt;
pub mod service;
pub mod sink;
pub mod worker;
