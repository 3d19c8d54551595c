//! What rust-rdkafka doesn't offer, over its bindings. **All `unsafe` of the project is in this folder.**
//!
//! * [`consumer`]: the intake: batches, rebalances as plain values, transactional offsets.
//! * [`members`]: who owns which partition, under either group protocol.
//! * [`producer`]: waiting for deliveries and ends of transactions, without rust-rdkafka's pauses.

#![allow(unsafe_code)]

pub mod consumer;
pub mod members;
pub mod producer;
