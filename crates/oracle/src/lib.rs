//! The alerts, dead letters and alarm states that a log of readings leads to by `docs/formats.md`: a naive serial
//! evaluation.
//!
//! It is written from that page and depends on nothing else of this project, not even for the JSON of a reading, so a
//! mistake stays unseen only if it is made twice. It judges the simulation, the tests on real brokers, the benchmarks
//! and the demo.
//!
//! * [`NaiveRule`]: a rule, as the rules file states it.
//! * [`classify`]: the meaning of a record.
//! * [`Oracle`]: the serial evaluation of one partition.
//! * [`TopicOracle`]: that of all partitions of a topic.
//! * [`AggregateOracle`]: the aggregates of a topic by window; [`compare_aggregates`]: whether others are the same.

mod aggregate;
mod comparison;
mod evaluation;
mod exact;
mod json;
mod meaning;
mod rule;
mod topic;

pub use aggregate::{AggregateOracle, Ending, Windows};
pub use comparison::compare_aggregates;
pub use evaluation::{Expected, LogRecord, Oracle};
pub use meaning::{Meaning, Numbers, classify};
pub use rule::{Kind, Limit, NaiveRule};
pub use topic::{TopicOracle, TopicRecord};
