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

use std::ffi::c_int;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;

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

/// Converts a timeout for librdkafka.
fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

/// Has the client ask any broker for metadata, and waits until it has it; for so long at most. Of this topic, or if it's
/// NULL, of those that the client uses; the brokers and their controller are part of every answer.
///
/// # Safety
/// Client and topic are alive during the call.
unsafe fn refresh_metadata(
    client: *mut sys::rd_kafka_t,
    topic: *mut sys::rd_kafka_topic_t,
    timeout: Duration,
) {
    let mut found = ptr::null();
    // SAFETY: as the caller promises; what was found is ours to destroy, once.
    unsafe {
        sys::rd_kafka_metadata(client, 0, topic, &raw mut found, millis(timeout));
        if !found.is_null() {
            sys::rd_kafka_metadata_destroy(found);
        }
    }
}
