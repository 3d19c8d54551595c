//! A consumer whose rebalances the test answers.
//!
//! Built like the worker's intake (a rebalance callback that only takes notes, `consume_batch_queue`), but it decides
//! nothing, and shows what librdkafka's own calls return.
#![allow(unsafe_code)]

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use crate::place::Place;
use crate::waiting::until_some;

/// The arguments of the rebalance callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Assigned(Vec<i32>),
    Revoked(Vec<i32>),
    /// A revocation while `rd_kafka_assignment_lost` returned true.
    Lost(Vec<i32>),
}

/// The result of one poll, as (partition, offset).
#[derive(Debug, Default)]
pub struct Polled {
    pub records: Vec<(i32, i64)>,
    pub notices: Vec<(i32, i64, RDKafkaErrorCode)>,
}

/// The membership under which the client would commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub id: String,
    pub generation: i32,
}

type Inbox = Mutex<VecDeque<Told>>;

/// The consumer.
pub struct Member {
    client: NonNull<sys::rd_kafka_t>,
    queue: NonNull<sys::rd_kafka_queue_t>,
    topic: String,
    /// Written by the rebalance callback; boxed, as librdkafka holds its address; freed after the client.
    inbox: Box<Inbox>,
    /// Records of the polls that waited for something else.
    received: Mutex<Vec<(i32, i64)>>,
}

// SAFETY: librdkafka documents `rd_kafka_t` and its queues as thread-safe; all else is behind mutexes.
unsafe impl Send for Member {}
// SAFETY: as above.
unsafe impl Sync for Member {}

impl Member {
    /// Joins the group.
    pub fn join(place: &Place, properties: &[(&str, &str)]) -> Member {
        let member = Member::outside(place, properties);
        let mut topics = TopicPartitionList::new();
        topics.add_topic_unassigned(&place.topic);
        // SAFETY: client and list are alive during the call; librdkafka copies the list.
        let code = unsafe { sys::rd_kafka_subscribe(member.client.as_ptr(), topics.ptr()) };
        result(code).expect("subscribed");
        member
    }

    /// As [`Member::join`], and takes everything that the group assigns until it has `partitions` partitions.
    pub fn join_and_take(place: &Place, properties: &[(&str, &str)], partitions: usize) -> Member {
        let member = Member::join(place, properties);
        crate::waiting::until("it has its partitions", || {
            member.obey();
            member.assignment().len() == partitions
        });
        member
    }

    /// Creates a client of the group that joins nothing.
    pub fn outside(place: &Place, properties: &[(&str, &str)]) -> Member {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &place.brokers)
            .set("group.id", &place.group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "50");
        if !properties.iter().any(|(key, _)| *key == "group.protocol") {
            config
                .set("heartbeat.interval.ms", "200")
                .set("session.timeout.ms", "6000")
                .set("partition.assignment.strategy", "cooperative-sticky");
        }
        for (key, value) in properties {
            config.set(*key, *value);
        }
        let native = config.create_native_config().expect("good properties");
        let inbox = Box::<Inbox>::default();
        let mut reason = [0; 512];
        // SAFETY: the configuration is duplicated, as `rd_kafka_new` takes it over. The callback has the signature that
        // librdkafka declares; the inbox outlives the client, see `Drop`. Without a log callback nothing is logged.
        let (client, queue) = unsafe {
            let conf = sys::rd_kafka_conf_dup(native.ptr());
            sys::rd_kafka_conf_set_opaque(conf, ptr::from_ref::<Inbox>(&inbox).cast_mut().cast());
            sys::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance));
            sys::rd_kafka_conf_set_log_cb(conf, None);
            let client = sys::rd_kafka_new(
                sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
                conf,
                reason.as_mut_ptr(),
                reason.len(),
            );
            let client = NonNull::new(client).unwrap_or_else(|| panic!("{}", text(reason.as_ptr())));
            sys::rd_kafka_poll_set_consumer(client.as_ptr());
            (client, NonNull::new(sys::rd_kafka_queue_get_consumer(client.as_ptr())))
        };
        let queue = queue.expect("a consumer has a queue");
        Member { client, queue, topic: place.topic.clone(), inbox, received: Mutex::default() }
    }

    /// Returns what is available, at most `limit` records; waits for it at most `wait`.
    pub fn poll(&self, limit: usize, wait: Duration) -> Polled {
        let mut messages = vec![ptr::null_mut(); limit];
        let millis = i32::try_from(wait.as_millis()).expect("a short wait");
        // SAFETY: the array has room for `limit` pointers. What librdkafka puts there is ours to destroy, once.
        unsafe {
            let n =
                sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), millis, messages.as_mut_ptr(), limit);
            let mut polled = Polled::default();
            for message in &messages[..usize::try_from(n).expect("a count")] {
                let (partition, offset) = ((**message).partition, (**message).offset);
                match result((**message).err) {
                    Ok(()) => polled.records.push((partition, offset)),
                    Err(code) => polled.notices.push((partition, offset, code)),
                }
                sys::rd_kafka_message_destroy(*message);
            }
            polled
        }
    }

    /// Polls without waiting, and keeps records for [`Member::received`]; rebalances not yet taken stay.
    pub fn look(&self) {
        let polled = self.poll(100, Duration::ZERO);
        self.received().extend(polled.records);
    }

    /// Returns what [`Member::look`] received.
    pub fn received(&self) -> MutexGuard<'_, Vec<(i32, i64)>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the next rebalance of the callback, without polling.
    pub fn told(&self) -> Option<Told> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Polls until a rebalance comes.
    #[track_caller]
    pub fn next_told(&self) -> Told {
        until_some("a rebalance comes", || {
            self.look();
            self.told()
        })
    }

    /// Polls, and answers rebalances as an ordinary consumer would.
    pub fn obey(&self) {
        self.look();
        while let Some(told) = self.told() {
            self.answer(&told);
        }
    }

    /// Answers as an ordinary consumer would.
    #[track_caller]
    pub fn answer(&self, told: &Told) {
        match told {
            Told::Assigned(list) => {
                let starts: Vec<_> = list.iter().map(|partition| (*partition, 0)).collect();
                self.incremental_assign(&starts).expect("assigned");
            }
            Told::Revoked(list) | Told::Lost(list) => self.incremental_unassign(list).expect("unassigned"),
        }
    }

    /// `rd_kafka_incremental_assign`
    pub fn incremental_assign(&self, starts: &[(i32, i64)]) -> Result<(), RDKafkaErrorCode> {
        let list = self.starts(starts);
        // SAFETY: client and list are alive during the call, as in all calls below; librdkafka copies the list.
        error(unsafe { sys::rd_kafka_incremental_assign(self.client.as_ptr(), list.ptr()) })
    }

    /// `rd_kafka_incremental_unassign`
    pub fn incremental_unassign(&self, partitions: &[i32]) -> Result<(), RDKafkaErrorCode> {
        let list = self.list(partitions);
        // SAFETY: as above.
        error(unsafe { sys::rd_kafka_incremental_unassign(self.client.as_ptr(), list.ptr()) })
    }

    /// `rd_kafka_assign`
    pub fn assign(&self, starts: &[(i32, i64)]) -> Result<(), RDKafkaErrorCode> {
        let list = self.starts(starts);
        // SAFETY: as above.
        result(unsafe { sys::rd_kafka_assign(self.client.as_ptr(), list.ptr()) })
    }

    /// `rd_kafka_assign` of NULL, which removes all.
    pub fn unassign(&self) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: NULL is documented as "no assignment".
        result(unsafe { sys::rd_kafka_assign(self.client.as_ptr(), ptr::null()) })
    }

    /// `rd_kafka_assignment`: what was added and not removed.
    pub fn assignment(&self) -> BTreeSet<i32> {
        let mut list = ptr::null_mut();
        // SAFETY: librdkafka makes a list, which is ours; it's read before it's destroyed, once.
        unsafe {
            result(sys::rd_kafka_assignment(self.client.as_ptr(), &mut list)).expect("an assignment");
            let partitions = partitions(list);
            sys::rd_kafka_topic_partition_list_destroy(list);
            partitions
        }
    }

    /// `rd_kafka_assignment_lost`
    pub fn is_lost(&self) -> bool {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_assignment_lost(self.client.as_ptr()) != 0 }
    }

    /// The getters of `rd_kafka_consumer_group_metadata`.
    #[track_caller]
    pub fn membership(&self) -> Membership {
        self.metadata().expect("a client that wasn't closed has metadata")
    }

    /// As [`Member::membership`], for a client that may have none.
    pub fn metadata(&self) -> Option<Membership> {
        // SAFETY: the object is ours; its text is copied before it's destroyed.
        unsafe {
            let metadata = sys::rd_kafka_consumer_group_metadata(self.client.as_ptr());
            if metadata.is_null() {
                return None;
            }
            let membership = Membership {
                id: text(sys::rd_kafka_consumer_group_metadata_member_id(metadata)),
                generation: sys::rd_kafka_consumer_group_metadata_generation_id(metadata),
            };
            sys::rd_kafka_consumer_group_metadata_destroy(metadata);
            Some(membership)
        }
    }

    /// `rd_kafka_position`: the application's position.
    pub fn position(&self, partition: i32) -> Option<i64> {
        let list = self.list(&[partition]);
        // SAFETY: as above; the call fills in the list.
        result(unsafe { sys::rd_kafka_position(self.client.as_ptr(), list.ptr()) }).expect("a position");
        match list.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// `rd_kafka_seek_partitions`
    pub fn seek(&self, partition: i32, offset: i64) -> Result<(), RDKafkaErrorCode> {
        let list = self.starts(&[(partition, offset)]);
        // SAFETY: as above.
        error(unsafe { sys::rd_kafka_seek_partitions(self.client.as_ptr(), list.ptr(), 5000) })
    }

    /// `rd_kafka_pause_partitions`
    pub fn pause(&self, partition: i32) -> Result<(), RDKafkaErrorCode> {
        let list = self.list(&[partition]);
        // SAFETY: as above.
        result(unsafe { sys::rd_kafka_pause_partitions(self.client.as_ptr(), list.ptr()) })
    }

    /// `rd_kafka_resume_partitions`
    pub fn resume(&self, partition: i32) -> Result<(), RDKafkaErrorCode> {
        let list = self.list(&[partition]);
        // SAFETY: as above.
        result(unsafe { sys::rd_kafka_resume_partitions(self.client.as_ptr(), list.ptr()) })
    }

    /// `rd_kafka_commit`, waiting for the answer.
    pub fn commit(&self, partition: i32, offset: i64) -> Result<(), RDKafkaErrorCode> {
        let list = self.starts(&[(partition, offset)]);
        // SAFETY: as above.
        result(unsafe { sys::rd_kafka_commit(self.client.as_ptr(), list.ptr(), 0) })
    }

    /// `rd_kafka_committed`: the offset and its metadata.
    pub fn committed(
        &self,
        partition: i32,
        wait: Duration,
    ) -> Result<Option<(i64, String)>, RDKafkaErrorCode> {
        let list = self.list(&[partition]);
        let millis = i32::try_from(wait.as_millis()).expect("a short wait");
        // SAFETY: as above; the call fills in the list.
        result(unsafe { sys::rd_kafka_committed(self.client.as_ptr(), list.ptr(), millis) })?;
        let element = &list.elements()[0];
        element.error().map_err(|error| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown))?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        })
    }

    /// `rd_kafka_consumer_close`: blocks until it's done; calls the rebalance callback as a poll does.
    pub fn close(&self) -> Result<(), RDKafkaErrorCode> {
        // SAFETY: the client is alive.
        result(unsafe { sys::rd_kafka_consumer_close(self.client.as_ptr()) })
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }

    fn starts(&self, starts: &[(i32, i64)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in starts {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset)).expect("an offset");
        }
        list
    }
}

impl Drop for Member {
    /// With an unanswered assignment, `rd_kafka_destroy_flags` hangs, even without a close, and its thread spins
    /// (`rd_kafka_cgrp_try_terminate`, rdkafka_cgrp.c): so it is answered first.
    fn drop(&mut self) {
        if self.incremental_assign(&[]).is_err() {
            let _ = self.unassign();
        }
        // SAFETY: queue and client are ours to destroy once; librdkafka joins its threads in here, so that no callback
        // sees the inbox afterwards.
        unsafe {
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
            let flags = sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE;
            sys::rd_kafka_destroy_flags(self.client.as_ptr(), flags as std::ffi::c_int);
        }
    }
}

extern "C" fn on_rebalance(
    client: *mut sys::rd_kafka_t,
    code: sys::rd_kafka_resp_err_t,
    list: *mut sys::rd_kafka_topic_partition_list_t,
    inbox: *mut c_void,
) {
    // SAFETY: client and inbox live as long as callbacks come, and the list during this one.
    let (inbox, lost, listed) = unsafe {
        let listed = partitions(list).into_iter().collect();
        (&*inbox.cast::<Inbox>(), sys::rd_kafka_assignment_lost(client) != 0, listed)
    };
    let told = match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Told::Assigned(listed),
        _ if lost => Told::Lost(listed),
        _ => Told::Revoked(listed),
    };
    inbox.lock().unwrap_or_else(PoisonError::into_inner).push_back(told);
}

/// The partitions of a list.
///
/// # Safety
/// The list is alive during the call.
unsafe fn partitions(list: *const sys::rd_kafka_topic_partition_list_t) -> BTreeSet<i32> {
    // SAFETY: as the caller promises; a list has `cnt` elements.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        (0..count).map(|at| (*(*list).elems.add(at)).partition).collect()
    }
}

fn result(code: sys::rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(code.into()) }
}

/// Takes over an error object; NULL is success.
pub fn error(error: *mut sys::rd_kafka_error_t) -> Result<(), RDKafkaErrorCode> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the object is ours; it's read before it's destroyed, once.
    unsafe {
        let code = sys::rd_kafka_error_code(error);
        sys::rd_kafka_error_destroy(error);
        Err(code.into())
    }
}

/// Copies a C string; NULL is empty.
///
/// # Safety
/// `chars` is NULL or NUL-terminated and readable during the call.
unsafe fn text(chars: *const std::ffi::c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}
