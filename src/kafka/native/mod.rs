//! What rust-rdkafka doesn't offer, over its bindings. **All `unsafe` of the project is in this folder.**
//!
//! * [`consumer`]: the intake: batches, rebalances as plain values, transactional offsets.
//! * [`members`]: who owns which partition, under either group protocol.

#![allow(unsafe_code)]

pub mod consumer;
pub mod members;
