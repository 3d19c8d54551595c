//! One request of librdkafka's admin interface, and its answer: the common part of those that rust-rdkafka lacks.

use std::ffi::{CString, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;

use super::consumer::text;
use super::{Owned, millis, refresh_metadata};
use crate::error::ClientError;

/// How long librdkafka may take to hand out an answer after the request's timeout.
const ANSWER_MARGIN_MS: c_int = 500;

/// Makes the request by `send`, which gets client, options and the queue for the answer; waits for the answer, and
/// returns what `read` makes of it. All pointers are valid during these calls; what is read from the answer belongs to
/// it.
///
/// # Errors
/// On timeout, or when the answer as a whole is a refusal.
pub(super) fn ask<C: ClientContext + ConsumerContext, T>(
    client: &BaseConsumer<C>,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    send: impl FnOnce(*mut sys::rd_kafka_t, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    read: impl FnOnce(*mut sys::rd_kafka_event_t) -> T,
) -> Result<T, ClientError> {
    let answer = ask_once(client, operation, timeout, send, read);
    if answer.as_ref().is_err_and(|error| error.code == RDKafkaErrorCode::OperationTimedOut) {
        // librdkafka waits for the controller it knows of, even for one that is gone, until it happens to learn of
        // another one: by default after five minutes (`topic.metadata.refresh.interval.ms`). So the next request can
        // succeed; if this fails too, the caller tries again anyway.
        // SAFETY: the client outlives the call.
        unsafe { refresh_metadata(client.client().native_ptr(), ptr::null_mut(), timeout) };
    }
    answer
}

fn ask_once<C: ClientContext + ConsumerContext, T>(
    client: &BaseConsumer<C>,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    send: impl FnOnce(*mut sys::rd_kafka_t, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
    read: impl FnOnce(*mut sys::rd_kafka_event_t) -> T,
) -> Result<T, ClientError> {
    let (rk, millis) = (client.client().native_ptr(), millis(timeout));
    // SAFETY: the client outlives the call. Queue, options and event are ours and destroyed once, the event before the
    // others.
    unsafe {
        let queue = Owned(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy);
        let options =
            Owned(sys::rd_kafka_AdminOptions_new(rk, operation), sys::rd_kafka_AdminOptions_destroy);
        sys::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, ptr::null_mut(), 0);
        send(rk, options.0, queue.0);
        // A little longer: a request to all brokers that one doesn't answer still ends with what the others said.
        let patience = millis.saturating_add(ANSWER_MARGIN_MS);
        let event = Owned(sys::rd_kafka_queue_poll(queue.0, patience), sys::rd_kafka_event_destroy);
        if event.0.is_null() {
            return Err(ClientError::new(RDKafkaErrorCode::OperationTimedOut, "no answer".to_owned()));
        }
        let code = sys::rd_kafka_event_error(event.0);
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            let reason = text(sys::rd_kafka_event_error_string(event.0));
            return Err(ClientError::new(code, reason));
        }
        Ok(read(event.0))
    }
}

/// Converts a name for librdkafka.
///
/// # Errors
/// When it contains a zero byte.
pub(super) fn name(name: &str) -> Result<CString, ClientError> {
    CString::new(name).map_err(|error| ClientError::new(RDKafkaErrorCode::InvalidArgument, error.to_string()))
}
