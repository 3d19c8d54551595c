//! The edge to Kafka: all clients, their configuration, the topics.
//!
//! The only crate that depends on rdkafka, and the only one with `unsafe` code. It executes what `genwatch_core::engine` decides and
//! carries records as bytes: it knows no alarm, and no type of rdkafka leaves it.
//!
//! # Layout
//!
//! * [`error`]: what librdkafka says when it can't.
//! * [`config`]: one way to configure every client.
//! * `native`: what rust-rdkafka doesn't offer: batches, rebalances as values, transactional offsets, members. All of the
//!   project's `unsafe` is there.
//! * [`committer`]: effects and offsets, in one transaction.
//! * [`group`]: how far a group is.
//! * [`forward`]: records that somebody else holds until they are durable.
//! * `outage`: says that no broker answers, and why. `properties`: what `-X` says.
//! * [`producer`]: readings of the simulator.
//! * [`subscriber`]: records of several topics, for a group of sinks.
//! * [`topic_reader`]: reads a whole topic without a group.
//! * [`restore`]: where a partition starts, and the alarm states that moved with it.
//! * [`admin`]: topics: what there is, what is missing.
//! * [`topic_watch`]: which making of the readings topic there is.
//! * [`clock`]: the clocks. [`log_limit`]: the same thing is told seldom.
//! * [`mock`]: a broker in this process.
//! * [`topics`]: the names that derive from `--topic` and `--group`, and how the topics are configured.

pub mod admin;
pub mod clock;
pub mod committer;
pub mod config;
pub mod error;
pub mod forward;
pub mod group;
pub mod log_limit;
pub mod mock;
mod native;
mod outage;
pub mod producer;
mod properties;
pub mod restore;
pub mod subscriber;
pub mod topic_reader;
pub mod topic_watch;
pub mod topics;
pub mod watermarks;

pub use native::consumer;

/// The version of librdkafka that is linked in.
#[must_use]
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
