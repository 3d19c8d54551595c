//! What librdkafka calls, on threads of its own: it only takes notes.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::Instant;

use genwatch_core::types::PartitionId;
use rdkafka::bindings as sys;
use rdkafka::types::RDKafkaRespErr;

use super::consumer::{Rebalance, is_eager, text};
use crate::error::ClientError;
use crate::throttle::Throttle;

/// Written by callbacks, on whichever thread librdkafka calls them.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) rebalances: Mutex<Vec<Rebalance>>,
    /// When the last of them came.
    pub(super) stirred: Mutex<Option<Instant>>,
    pub(super) errors: Mutex<Vec<ClientError>>,
    /// Whether a KIP-848 heartbeat timed out.
    pub(super) heartbeat_late: AtomicBool,
    pub(super) closing: AtomicBool,
    /// Whether the member is joining its group anew: see [`joins`].
    pub(super) joining: AtomicBool,
    pub(super) throttle: Throttle,
}

/// How librdkafka 2.12.1 logs that (`rd_kafka_broker_bufq_timeout_scan`).
pub(super) const LATE_HEARTBEAT: &str = "Timed out ConsumerGroupHeartbeatRequest";

pub(super) extern "C" fn on_queue_ready(_client: *mut sys::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: `waker` is the `Thread` that `Consumer` frees after it has disabled this callback.
    unsafe { &*waker.cast::<Thread>() }.unpark();
}

pub(super) extern "C" fn on_rebalance(
    client: *mut sys::rd_kafka_t,
    code: sys::rd_kafka_resp_err_t,
    partitions: *mut sys::rd_kafka_topic_partition_list_t,
    inbox: *mut c_void,
) {
    // SAFETY: `inbox` is the one given at creation, freed after the client. The list is valid during the callback, with
    // `cnt` elements; it's only read here.
    let (inbox, listed) = unsafe {
        let inbox = &*inbox.cast::<Inbox>();
        let list = &*partitions;
        let count = usize::try_from(list.cnt).unwrap_or(0);
        let elements = if count == 0 { &[][..] } else { std::slice::from_raw_parts(list.elems, count) };
        (inbox, elements.iter().map(|element| PartitionId(element.partition)).collect::<Vec<_>>())
    };
    *inbox.stirred.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    if inbox.closing.load(Ordering::Acquire) {
        // SAFETY: called by `rd_kafka_consumer_close` on our thread; unassigning is what it waits for.
        unsafe {
            if is_eager(client) {
                sys::rd_kafka_assign(client, ptr::null());
            } else {
                let error = sys::rd_kafka_incremental_unassign(client, partitions);
                if !error.is_null() {
                    sys::rd_kafka_error_destroy(error);
                    sys::rd_kafka_assign(client, ptr::null());
                }
            }
        }
        return;
    }
    // SAFETY: the client is alive, as it calls us.
    let lost = unsafe { sys::rd_kafka_assignment_lost(client) != 0 };
    let rebalance = match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assigned(listed),
        _ if lost => Rebalance::Lost(listed),
        _ => Rebalance::Revoked(listed),
    };
    inbox.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push(rebalance);
}

pub(super) extern "C" fn on_error(
    _client: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    inbox: *mut c_void,
) {
    // SAFETY: as in `on_rebalance`; the reason is a C string that is copied.
    let (inbox, reason) = unsafe { (&*inbox.cast::<Inbox>(), text(reason)) };
    let code = RDKafkaRespErr::try_from(code).unwrap_or(RDKafkaRespErr::RD_KAFKA_RESP_ERR__FAIL);
    inbox.errors.lock().unwrap_or_else(PoisonError::into_inner).push(ClientError::new(code, reason));
}

pub(super) extern "C" fn on_statistics(
    _client: *mut sys::rd_kafka_t,
    json: *mut c_char,
    bytes: usize,
    inbox: *mut c_void,
) -> c_int {
    // SAFETY: as in `on_rebalance`; the text has so many bytes, is valid during the callback, and is only read.
    let (inbox, json) =
        unsafe { (&*inbox.cast::<Inbox>(), std::slice::from_raw_parts(json.cast::<u8>(), bytes)) };
    inbox.throttle.take_in(json);
    // librdkafka frees it.
    0
}

pub(super) extern "C" fn on_log(
    client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    message: *const c_char,
) {
    // SAFETY: both are C strings, copied.
    let (facility, message) = unsafe { (text(facility), text(message)) };
    // SAFETY: as in `on_rebalance`: what the client was configured with outlives it.
    if let Some(inbox) = unsafe { sys::rd_kafka_opaque(client).cast::<Inbox>().as_ref() } {
        if facility == "REQTMOUT" && message.contains(LATE_HEARTBEAT) {
            inbox.heartbeat_late.store(true, Ordering::Release);
        }
        if let Some(joining) = joins(&facility, &message) {
            inbox.joining.store(joining, Ordering::Release);
        }
    }
    crate::config::log(level, &facility, &message);
}

/// Whether the member is about to get another generation, as librdkafka 2.12.1 logs it with `debug=cgrp`
/// (`rd_kafka_cgrp_set_join_state`); `None` if the line is about something else. There is no other sign of it.
fn joins(facility: &str, message: &str) -> Option<bool> {
    if facility != "CGRPJOINSTATE" {
        return None;
    }
    let (_, next) = message.split_once("changed join state ")?.1.split_once(" -> ")?;
    Some(["init", "wait-join", "wait-metadata", "wait-sync"].contains(&next.split(' ').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_joins_from_when_it_hears_of_a_rebalance_until_it_is_told_its_part() {
        let line = |from: &str, to: &str| {
            format!("[thrd:main]: Group \"g\" changed join state {from} -> {to} (state up)")
        };
        for (from, to, wanted) in [
            ("steady", "init", true),
            ("init", "wait-join", true),
            ("wait-join", "wait-metadata", true),
            ("wait-join", "wait-sync", true),
            ("wait-sync", "wait-assign-call", false),
            ("wait-sync", "wait-unassign-call", false),
            ("wait-assign-call", "steady", false),
        ] {
            assert_eq!(joins("CGRPJOINSTATE", &line(from, to)), Some(wanted), "{from} {to}");
        }
        assert_eq!(joins("REJOIN", &line("steady", "init")), None);
        assert_eq!(joins("CGRPJOINSTATE", "something else"), None);
    }
}
