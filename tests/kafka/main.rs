//! genwatch against a real Kafka, its binary run as users run it.
//!
//! `scripts/test --only kafka` starts a broker and names it in `GENWATCH_TEST_BROKERS`; without that variable the tests
//! start one themselves. None is ever skipped.
//!
//! * [`world`]: the one helper module: topics, processes, records, waiting.
//! * [`oracle`]: the expected results of a log, by `docs/formats.md`; shares no code with the crate. [`verify`]:
//!   whether the results equal them.
//! * all others: one promise a file, each test a statement.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../signal/mod.rs"]
mod signal;
mod verify;
mod world;

mod acceptance;
mod at_rest;
mod away;
mod bad_records;
mod bench;
mod bridge;
mod dashboard;
mod deleted_topic;
mod downsample;
mod formats;
mod health;
mod influx;
mod isolation;
mod late;
mod load;
mod logs;
mod new_topic;
mod notices;
mod observing;
mod offsets;
mod outage;
mod own_handler;
mod own_sink;
mod panic;
mod plan;
mod rebalance;
mod refusals;
mod reports;
mod secure;
mod source;
mod state;
mod status;
mod stopping;
mod story;
mod threads;
mod topics;
mod trust;
