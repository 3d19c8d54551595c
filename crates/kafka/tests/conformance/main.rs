//! What genwatch believes of librdkafka and Kafka, shown on the real ones.
//!
//! The worker's decisions, and the model of librdkafka that the simulation drives them with, rest on traits that no
//! documentation states. Each has a test here, which names the function of librdkafka 2.12.1 that says so and the
//! decision that rests on it. A test that fails after a new version of either tells which decision to think over.
//!
//! `scripts/test --only conformance` starts a broker and names it in `GENWATCH_TEST_BROKERS`; without that variable the
//! tests start one themselves. Where an error has to come at a chosen moment, it's librdkafka's mock cluster.
//!
//! * [`member`]: a consumer that answers rebalances when the test says so, not before; `unsafe` is here and in
//!   [`transaction`].
//! * [`transaction`]: a transactional producer that sends offsets in anybody's name.
//! * [`place`]: a topic and a group of a test's own; takes members out of the group behind their back.
//! * [`waiting`]: until a condition holds; nothing sleeps for luck.
//! * all others: one subject a file, each test a trait.

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
