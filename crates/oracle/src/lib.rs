//! What a log of readings comes to by `docs/formats.md`: alerts, dead letters and alarm states, by a naive serial evaluation.
//!
//! It is written from that page and depends on nothing else of this project, down to the JSON of a reading: a mistake would have to be made
//! twice to go unseen. It judges the simulation, the tests on real brokers, the benchmarks and the demo.
//!
//! * [`NaiveRule`]: a rule, as the file of rules states it.
//! * [`classify`]: what a record means.
//! * [`Oracle`]: the serial evaluation of one partition.

mod evaluation;
mod json;
mod meaning;
mod rule;

pub use evaluation::{Expected, LogRecord, Oracle};
pub use meaning::{Meaning, Numbers, classify};
pub use rule::{Kind, Limit, NaiveRule};
