//! Commits of a group consumer that get an answer.
//!
//! Why not rust-rdkafka's own (0.39): its asynchronous `commit` names no queue and sets no callback for the answer, so
//! librdkafka (2.12.1, rd_kafka_cgrp_propagate_commit_result) reports the result to nobody:
//! `ConsumerContext::commit_callback` is never called. Its synchronous one waits without limit, and without polling.

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;

use super::Owned;

/// Asks the coordinator to commit. The answer comes to the context's `commit_callback`, during a poll.
///
/// # Errors
/// When the client refuses; then no answer comes.
pub fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    offsets: &TopicPartitionList,
) -> KafkaResult<()> {
    let rk = consumer.client().native_ptr();
    // SAFETY: the client is alive as long as `consumer`, and the list is copied. The queue is a reference of our own,
    // destroyed once; librdkafka holds another until it has answered. There's no callback, so nothing of ours has to
    // live until then.
    let code = unsafe {
        let queue = Owned(sys::rd_kafka_queue_get_consumer(rk), sys::rd_kafka_queue_destroy);
        // Without a queue it would wait for the answer here.
        if queue.0.is_null() {
            return Err(KafkaError::ConsumerCommit(RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_GROUP.into()));
        }
        sys::rd_kafka_commit_queue(rk, offsets.ptr(), queue.0, None, std::ptr::null_mut())
    };
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        code => Err(KafkaError::ConsumerCommit(code.into())),
    }
}
