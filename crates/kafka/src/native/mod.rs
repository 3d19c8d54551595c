//! What rust-rdkafka doesn't offer, over its bindings. **All `unsafe` of the project is in this folder.**
//!
//! * [`consumer`]: the intake: batches, rebalances as plain values, transactional offsets.
//! * [`groups`]: which consumer groups there are.
//! * `known_topic`: a topic whose leaders a client knows. `pulse`: what makes rebalances short.
//! * [`members`]: each partition's owner, under either group protocol.
//! * [`producer`]: waits for deliveries and ends of transactions, without rust-rdkafka's pauses.
//! * `request`: the common part of admin requests.
//! * `revocation`: whether the group went on without the answer to one.
//! * [`subscriber`]: commits that get an answer.
//! * [`topics`]: the ids of topics.

#![allow(unsafe_code)]

mod batch;
mod callbacks;
pub mod consumer;
pub mod groups;
mod handle;
mod known_topic;
pub mod members;
pub mod producer;
mod pulse;
mod request;
mod revocation;
pub mod subscriber;
pub mod topics;

/// A librdkafka object, destroyed when it goes out of scope.
#[derive(Debug)]
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: ours, and destroyed by the function that belongs to it, once.
            unsafe { self.1(self.0) }
        }
    }
}
