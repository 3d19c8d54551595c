//! What genwatch assumes about librdkafka and Kafka, tested on the real ones.
//!
//! The worker's decisions, and the model of librdkafka that drives the simulation, rest on traits that no documentation
//! states. Each has a test here, which names the function of librdkafka 2.12.1 that shows it and the decision that
//! rests on it. A test that fails after an upgrade of either shows which decision to reconsider.
//!
//! `scripts/test --only conformance` starts a broker and names it in `GENWATCH_TEST_BROKERS`; without that variable the
//! tests start one themselves. Errors that must come at a chosen moment come from librdkafka's mock cluster.
//!
//! * [`member`]: a consumer that answers rebalances only when the test says so; `unsafe` is here and in
//!   [`transaction`].
//! * [`transaction`]: a transactional producer that sends offsets in any member's name.
//! * [`place`]: a topic and a group of a test's own; takes members out of the group behind their back.
//! * [`waiting`]: waits until a condition holds; nothing sleeps for luck.
//! * all others: one subject per file, one trait per test.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[allow(dead_code)]
#[path = "../../../../tests/kafka/world/broker.rs"]
mod broker;
#[allow(dead_code)]
#[path = "../../../../tests/kafka/world/cut.rs"]
mod cut;
mod member;
#[path = "../../../../tests/kafka/world/waiting.rs"]
mod patience;
mod place;
#[allow(dead_code)]
#[path = "../../../../tests/kafka/world/relay.rs"]
mod relay;
mod transaction;
mod waiting;

mod split;

mod answering;
mod closing;
mod commits;
mod eager;
mod evicted;
mod getters;
mod growth;
mod lost;
mod notices;
mod producing;
mod sequence;
mod unheard;
