//! The edge to Kafka: all clients, their configuration, the topics.
//!
//! The only crate that depends on rdkafka, and the only one with `unsafe` code. It executes what
//! `genwatch_core::engine` decides and carries records as bytes: it knows no alarm, and no type of rdkafka leaves it.
//!
//! # Layout
//!
//! * [`error`]: librdkafka's errors.
//! * [`config`]: one way to configure every client.
//! * `native`: what rust-rdkafka doesn't offer: batches, rebalances as values, transactional offsets, groups. All of
//!   the project's `unsafe` is there.
//! * [`commit`]: effects and offsets, in one transaction.
//! * [`group`]: a group's progress.
//! * [`forward`]: records that their sender keeps until they are durable.
//! * `outage`: logs that no broker answers, and why. `properties`: what `-X` sets.
//! * [`producer`]: readings of the simulator.
//! * `throttle`: how long brokers delay a client because of a quota.
//! * [`subscriber`]: records of several topics, for a group of sinks.
//! * [`topic_reader`]: reads a whole topic without a group. [`follower`]: follows one beside others, without waiting.
//!   [`starts`]: where to begin.
//! * [`restore`]: where a partition starts, and the alarm states that moved with it.
//! * [`admin`]: topics: what exists, what is missing; which groups there are.
//! * [`reports`]: what a worker says of itself.
//! * [`transactions`]: records in transactions of one owner at a time, of sources.
//! * [`topic_watch`]: whether the topics exist, and whether they were recreated.
//! * [`clock`]: the clocks. [`log_limit`]: limits repeated log lines.
//! * [`mock`]: a broker in this process.
//! * [`topics`]: the names that derive from `--topic` and `--group`, and how the topics are configured.

pub mod admin;
pub mod clock;
pub mod commit;
pub mod config;
pub mod error;
pub mod follower;
pub mod forward;
pub mod group;
pub mod log_limit;
pub mod measure;
pub mod mock;
mod native;
mod outage;
pub mod producer;
mod properties;
pub mod reports;
pub mod restore;
pub mod starts;
pub mod subscriber;
mod throttle;
pub mod topic_reader;
pub mod topic_watch;
pub mod topics;
pub mod transactions;
pub mod watermarks;

pub use native::consumer;

/// Returns the version of librdkafka that is linked in.
#[must_use]
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
