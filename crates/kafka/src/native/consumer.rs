//! The intake: a group consumer that returns whole batches, and rebalances as plain values.
//!
//! Why not rust-rdkafka's consumers: they take rebalances as queue events, and return one record per call.
//! `consume_batch_queue` returns thousands per call at a third of the cost, but needs a rebalance callback. So this is
//! a small consumer of our own over `rdkafka::bindings`.
//!
//! How rebalances go: the callback only notes what librdkafka wants ([`Rebalance`]). librdkafka then waits, still
//! sending heartbeats, until [`Consumer::acknowledge_assigned`] or [`Consumer::remove`] is called, so the worker's one
//! loop drains a partition while it keeps polling. An assignment is acknowledged at once with an empty list (partitions
//! that stay continue), and each partition is added, at an offset of our choice, once its state is restored:
//! `rd_kafka_incremental_assign` may be called outside the callback.
//!
//! Ownership: the [`Consumer`] belongs to one thread. The [`Handle`] is shared with the committer and the restorer;
//! librdkafka's handle is thread-safe.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use genwatch_core::types::{Offset, PartitionId};

pub use super::batch::{Batch, Event, Record, Run};
use super::callbacks::{Inbox, on_error, on_log, on_queue_ready, on_rebalance, on_statistics};
pub(crate) use super::handle::TransactionError;
pub use super::handle::{GroupOffset, Handle, NotedOffset};
use super::known_topic::KnownTopic;
use super::pulse::Pulse;
use super::revocation::Revocation;
use crate::config::{Connection, GroupProtocol};
use crate::error::ClientError;
use crate::throttle::Throttle;

/// Records requested per call. For one thread more aren't faster; fewer are measurably slower.
const BATCH: usize = 4096;

/// A change of the assignment: partitions of one topic, or of several for a
/// [`Subscriber`](crate::subscriber::Subscriber).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance<P = PartitionId> {
    /// These partitions are ours now.
    Assigned(Vec<P>),
    /// These are revoked. librdkafka waits until a [`Consumer`] has removed them; for a subscriber they are already
    /// gone.
    Revoked(Vec<P>),
    /// These already belong to another member.
    Lost(Vec<P>),
}

/// How long leaving the group may take: it needs a round trip.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The consumer: polls, pauses, assigns. One thread owns it.
#[derive(Debug)]
pub struct Consumer {
    handle: Arc<Handle>,
    queue: NonNull<sys::rd_kafka_queue_t>,
    messages: Vec<*mut sys::rd_kafka_message_t>,
    subscribed: AtomicBool,
    /// Of a group's member.
    pulse: Option<Pulse>,
    known: Option<KnownTopic>,
    /// By the classic protocol.
    revocation: Option<RefCell<Revocation>>,
    /// Unparked by librdkafka when the queue becomes non-empty; freed after the callback is disabled.
    waker: Arc<Thread>,
}

// SAFETY: the queue is used by one thread at a time, as `Consumer` isn't `Sync`; librdkafka's queues may move threads.
unsafe impl Send for Consumer {}

impl Consumer {
    /// Creates a consumer that becomes a member of the group when it subscribes. `waker` is unparked whenever something
    /// can be polled.
    ///
    /// # Errors
    /// When a property is unknown or conflicts with another.
    pub fn of_group(
        connection: &Connection,
        group: &str,
        protocol: GroupProtocol,
        topic: &str,
        waker: Thread,
    ) -> Result<Consumer, ClientError> {
        let mut config = connection.group_consumer(group, protocol);
        Throttle::ask(connection, &mut config);
        let mut consumer = Consumer::new(&config, topic, waker)?;
        consumer.pulse = Some(Pulse::start(consumer.handle())?);
        Ok(consumer)
    }

    /// Creates the client; joins nothing yet.
    pub(crate) fn new(config: &ClientConfig, topic: &str, waker: Thread) -> Result<Consumer, ClientError> {
        let native = config.create_native_config()?;
        let is_classic = config.get("group.protocol") == Some(GroupProtocol::Classic.as_str());
        let inbox = Arc::<Inbox>::default();
        let mut reason = [0 as c_char; 512];
        // SAFETY: the configuration is duplicated, as `rd_kafka_new` takes ownership where it succeeds and `native`
        // frees its own. The callbacks match the signatures that librdkafka declares. `inbox` is shared, so its address
        // is stable and moving `Handle` leaves the pointer valid, which a `Box` would not; `Handle` frees it after
        // `rd_kafka_destroy` (see `Drop`).
        let client = unsafe {
            let conf = sys::rd_kafka_conf_dup(native.ptr());
            sys::rd_kafka_conf_set_opaque(conf, Arc::as_ptr(&inbox).cast_mut().cast());
            sys::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance));
            sys::rd_kafka_conf_set_error_cb(conf, Some(on_error));
            sys::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            sys::rd_kafka_conf_set_stats_cb(conf, Some(on_statistics));
            let client = sys::rd_kafka_new(
                sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
                conf,
                reason.as_mut_ptr(),
                reason.len(),
            );
            if client.is_null() {
                sys::rd_kafka_conf_destroy(conf);
            }
            client
        };
        let Some(client) = NonNull::new(client) else {
            // SAFETY: librdkafka has written a NUL-terminated text into the buffer.
            let reason = unsafe { text(reason.as_ptr()) };
            return Err(KafkaError::ClientCreation(reason).into());
        };
        let handle = Arc::new(Handle { client, topic: topic.to_owned(), inbox });
        // SAFETY: the client is alive. Errors and statistics are then served by the consumer queue, the only one that
        // is polled.
        let queue = unsafe {
            sys::rd_kafka_poll_set_consumer(client.as_ptr());
            sys::rd_kafka_queue_get_consumer(client.as_ptr())
        };
        let Some(queue) = NonNull::new(queue) else {
            let reason = "no consumer queue: is group.id set?".to_owned();
            return Err(KafkaError::ClientCreation(reason).into());
        };
        let waker = Arc::new(waker);
        // SAFETY: the callback only unparks; `waker` is shared, as `inbox` is, and is freed after the callback was
        // disabled (`Drop`).
        unsafe {
            let opaque = Arc::as_ptr(&waker).cast_mut().cast();
            sys::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(on_queue_ready), opaque);
        }
        Ok(Consumer {
            handle,
            queue,
            messages: vec![ptr::null_mut(); BATCH],
            subscribed: AtomicBool::new(false),
            pulse: None,
            known: None,
            revocation: is_classic.then(RefCell::default),
            waker,
        })
    }

    /// Returns the part that other threads may share.
    #[must_use]
    pub fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
    }

    /// Takes up to so many batches with each poll.
    pub fn widen(&mut self, times: usize) {
        self.messages.resize(BATCH * times.max(1), ptr::null_mut());
    }

    /// Learns the leaders of the topic's partitions now and for good, so that reading one begins at once. Waits so long for a
    /// broker at most.
    pub(crate) fn know_topic(&mut self, patience: Duration) {
        self.known = KnownTopic::of(&self.handle);
        if let Some(topic) = &self.known {
            topic.refresh(patience);
        }
    }

    /// Joins the group for the topic.
    ///
    /// # Errors
    /// When the client refuses, for instance after a fatal error.
    pub fn subscribe(&self) -> Result<(), ClientError> {
        let mut topics = TopicPartitionList::new();
        topics.add_topic_unassigned(&self.handle.topic);
        self.subscribed.store(true, Ordering::Release);
        // SAFETY: client and list are alive during the call; librdkafka copies the list.
        check(unsafe { sys::rd_kafka_subscribe(self.handle.client.as_ptr(), topics.ptr()) })
    }

    /// Returns what is available without waiting, at most `limit` records. Serves the callbacks.
    pub fn poll(&mut self, limit: usize) -> Batch<'_> {
        let limit = limit.clamp(1, self.messages.len());
        // SAFETY: the array has room for `limit` pointers; librdkafka fills the first `n` with messages that are ours
        // to destroy, which `Batch` does.
        let n = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.messages.as_mut_ptr(), limit)
        };
        let n = usize::try_from(n).unwrap_or(0);
        Batch { messages: &self.messages[..n] }
    }

    /// Returns the rebalances that librdkafka has asked for since the last call, in order.
    #[must_use]
    pub fn take_rebalances(&self) -> Vec<Rebalance> {
        let inbox = &self.handle.inbox.rebalances;
        let rebalances = std::mem::take(&mut *inbox.lock().unwrap_or_else(PoisonError::into_inner));
        if let (false, Some(revocation)) = (rebalances.is_empty() || self.is_eager(), &self.revocation) {
            let member = self.handle.member();
            for rebalance in &rebalances {
                revocation.borrow_mut().heard(rebalance, member.as_ref());
            }
        }
        rebalances
    }

    /// Whether the topic's growth has made librdkafka join again while a revocation was unanswered. Such a client joins
    /// no later rebalance, and the group waits for it until it's thrown out: another client must take its place.
    #[must_use]
    pub fn was_overtaken(&self) -> bool {
        self.revocation.as_ref().is_some_and(|revocation| revocation.borrow().is_overtaken())
    }

    /// Returns the share of time for which a broker's quota has delayed the client, 0 to 1.
    #[must_use]
    pub fn throttled(&self) -> f64 {
        self.handle.inbox.throttle.share()
    }

    /// Whether a KIP-848 heartbeat timed out since the last call. Its late answer is lost: librdkafka drops it, and
    /// later asks only for changes.
    #[must_use]
    pub fn take_late_heartbeat(&self) -> bool {
        self.handle.inbox.heartbeat_late.swap(false, Ordering::AcqRel)
    }

    /// Returns client-wide errors (brokers down, authentication) since the last call.
    #[must_use]
    pub fn take_errors(&self) -> Vec<ClientError> {
        std::mem::take(&mut *self.handle.inbox.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the fatal error that made the client unusable, if any.
    #[must_use]
    pub fn fatal_error(&self) -> Option<ClientError> {
        let mut reason = [0 as c_char; 512];
        // SAFETY: the buffer is of the length given; librdkafka NUL-terminates what it writes.
        unsafe {
            let code =
                sys::rd_kafka_fatal_error(self.handle.client.as_ptr(), reason.as_mut_ptr(), reason.len());
            (code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR)
                .then(|| ClientError::new(code, text(reason.as_ptr())))
        }
    }

    /// Answers [`Rebalance::Assigned`]: current partitions continue; the new ones follow by [`Consumer::add`].
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn acknowledge_assigned(&self, held: &[(PartitionId, Offset)]) -> Result<(), ClientError> {
        if self.is_eager() {
            self.assign(held)
        } else {
            self.assign_incrementally(&TopicPartitionList::new())
        }
    }

    /// Starts fetching partitions, each at its offset. An eager protocol knows only whole assignments: for it, `held`
    /// lists all our partitions, new ones included, each with the offset to continue from.
    ///
    /// # Errors
    /// When librdkafka refuses. A lost assignment isn't a reason for it to refuse.
    pub fn add(
        &self,
        starts: &[(PartitionId, Offset)],
        held: &[(PartitionId, Offset)],
    ) -> Result<(), ClientError> {
        if self.is_eager() {
            self.assign(held)?;
        } else {
            self.assign_incrementally(&self.list_of(starts)?)?;
        }
        // A partition that was paused when it was revoked is still paused when it is assigned again.
        self.resume(&starts.iter().map(|start| start.0).collect::<Vec<_>>())
    }

    /// Answers [`Rebalance::Revoked`] and [`Rebalance::Lost`]: gives up the partitions. `added` lists those that
    /// [`Consumer::add`] was called for.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn remove(&self, added: &[PartitionId]) -> Result<(), ClientError> {
        if let Some(revocation) = &self.revocation {
            revocation.borrow_mut().answered();
        }
        if self.is_eager() {
            // SAFETY: NULL is documented as "no assignment".
            check(unsafe { sys::rd_kafka_assign(self.handle.client.as_ptr(), ptr::null()) })
        } else {
            let list = self.list(added);
            // SAFETY: client and list are alive during the call; librdkafka copies the list.
            check_error(unsafe {
                sys::rd_kafka_incremental_unassign(self.handle.client.as_ptr(), list.ptr())
            })
        }
    }

    /// Continues fetching a partition from `offset`; drops what was fetched and not handed out. Waits for librdkafka's
    /// own threads, not for a broker.
    ///
    /// # Errors
    /// When the partition isn't being fetched.
    pub fn seek(&self, partition: PartitionId, offset: Offset) -> Result<(), ClientError> {
        const TIMEOUT_MS: c_int = 1000;
        let list = self.list_of(&[(partition, offset)])?;
        // SAFETY: client and list are alive during the call, which fills in the list.
        check_error(unsafe {
            sys::rd_kafka_seek_partitions(self.handle.client.as_ptr(), list.ptr(), TIMEOUT_MS)
        })?;
        let failed = list.elements().into_iter().find_map(|element| element.error().err());
        failed.map_or(Ok(()), |error| {
            Err(ClientError::new(
                error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
                error.to_string(),
            ))
        })
    }

    /// Like [`Consumer::seek`], for a partition that librdkafka stopped fetching because the offset was out of range:
    /// it then refuses every seek (2.12.1, `rd_kafka_toppar_seek`). Don't call it while a rebalance is unanswered: any
    /// unassign would answer it. A rebalance that librdkafka is about to report can't be ruled out; what it takes away
    /// is then committed in its own generation or not at all: see [`genwatch_core::engine::membership::Fence`]. `held`
    /// as in [`Consumer::add`].
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn reassign(
        &self,
        partition: PartitionId,
        offset: Offset,
        held: &[(PartitionId, Offset)],
    ) -> Result<(), ClientError> {
        if !self.is_eager() {
            self.remove(&[partition])?;
        }
        self.add(&[(partition, offset)], held)
    }

    /// Stops fetching partitions; drops what was fetched and not handed out, and fetches it again on resume.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn pause(&self, partitions: &[PartitionId]) -> Result<(), ClientError> {
        let list = self.list(partitions);
        // SAFETY: client and list are alive during the call.
        check(unsafe { sys::rd_kafka_pause_partitions(self.handle.client.as_ptr(), list.ptr()) })
    }

    /// Resumes paused partitions.
    ///
    /// # Errors
    /// When librdkafka refuses.
    pub fn resume(&self, partitions: &[PartitionId]) -> Result<(), ClientError> {
        let list = self.list(partitions);
        // SAFETY: client and list are alive during the call.
        check(unsafe { sys::rd_kafka_resume_partitions(self.handle.client.as_ptr(), list.ptr()) })
    }

    /// Returns the position of each added partition: behind the last record handed out, and behind transaction markers,
    /// which are never handed out. Omits partitions that have delivered nothing yet.
    #[must_use]
    pub fn positions(&self, partitions: &[PartitionId]) -> Vec<(PartitionId, Offset)> {
        let list = self.list(partitions);
        // SAFETY: client and list are alive during the call, which fills in the list.
        let code = unsafe { sys::rd_kafka_position(self.handle.client.as_ptr(), list.ptr()) };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Vec::new();
        }
        let known =
            |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
                KafkaOffset::Offset(offset) => Some((PartitionId(element.partition()), Offset(offset))),
                _ => None,
            };
        list.elements().iter().filter_map(known).collect()
    }

    /// Leaves the group. Blocks for the round trip; partitions that are still assigned are given up as they are.
    /// librdkafka sets no limit, and hangs if it lost an assignment and got no answer (`rd_kafka_cgrp_unsubscribe`,
    /// 2.12.1): then the waiting thread is abandoned, and keeps the client.
    ///
    /// # Errors
    /// When the broker refuses the leave or doesn't answer in time; then the session timeout ends the membership.
    pub fn close(&self) -> Result<(), ClientError> {
        self.handle.inbox.closing.store(true, Ordering::Release);
        let handle = self.handle();
        let (closed, outcome) = crossbeam_channel::bounded(1);
        let closing = std::thread::Builder::new().name("leaving".to_owned()).spawn(move || {
            // SAFETY: the client is alive; the rebalance callback sees `closing` and unassigns at once.
            let left = check(unsafe { sys::rd_kafka_consumer_close(handle.client.as_ptr()) });
            drop(handle);
            let _ = closed.send(left);
        });
        let failed = |reason: String| ClientError::new(RDKafkaErrorCode::OperationTimedOut, reason);
        closing.map_err(|error| failed(format!("no thread: {error}")))?;
        outcome.recv_timeout(LEAVE_TIMEOUT).unwrap_or_else(|_| {
            Err(failed(format!("leaving took longer than {} s", LEAVE_TIMEOUT.as_secs())))
        })
    }

    /// As [`Consumer::close`], for a client that may be owed an answer: gives it one first.
    ///
    /// # Errors
    /// As [`Consumer::close`].
    pub fn abandon(&self) -> Result<(), ClientError> {
        self.answer_whatever_is_open();
        self.close()
    }

    /// Any answer will do; if nothing is open, it is refused or changes nothing.
    fn answer_whatever_is_open(&self) {
        let _ = self.assign_incrementally(&TopicPartitionList::new());
    }

    fn list(&self, partitions: &[PartitionId]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.handle.topic, partition.0);
        }
        list
    }

    fn list_of(&self, starts: &[(PartitionId, Offset)]) -> Result<TopicPartitionList, ClientError> {
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for (partition, offset) in starts {
            let added =
                list.add_partition_offset(&self.handle.topic, partition.0, KafkaOffset::Offset(offset.0));
            added.map_err(|error| {
                ClientError::new(
                    error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidArgument),
                    error.to_string(),
                )
            })?;
        }
        Ok(list)
    }

    fn is_eager(&self) -> bool {
        is_eager(self.handle.client.as_ptr())
    }

    fn assign(&self, all: &[(PartitionId, Offset)]) -> Result<(), ClientError> {
        let list = self.list_of(all)?;
        // SAFETY: client and list are alive during the call; librdkafka copies the list.
        check(unsafe { sys::rd_kafka_assign(self.handle.client.as_ptr(), list.ptr()) })
    }

    fn assign_incrementally(&self, list: &TopicPartitionList) -> Result<(), ClientError> {
        // SAFETY: client and list are alive during the call; librdkafka copies the list.
        check_error(unsafe { sys::rd_kafka_incremental_assign(self.handle.client.as_ptr(), list.ptr()) })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Destroying a client with an unanswered assignment hangs (librdkafka 2.12.1, `rd_kafka_cgrp_try_terminate`).
        if self.subscribed.load(Ordering::Acquire) && !self.handle.inbox.closing.load(Ordering::Acquire) {
            self.answer_whatever_is_open();
        }
        // SAFETY: the callback is disabled before `waker` is freed, the queue is ours to destroy once; the client is
        // destroyed later, by the last `Handle`.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
        self.waker.unpark();
    }
}

/// Copies a C string; NULL is empty.
///
/// # Safety
/// `chars` is NULL or NUL-terminated and readable during the call.
pub(super) unsafe fn text(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}

pub(super) fn check(code: sys::rd_kafka_resp_err_t) -> Result<(), ClientError> {
    if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: the text of a code is static.
    Err(ClientError::new(code, unsafe { text(sys::rd_kafka_err2str(code)) }))
}

pub(super) fn check_error(error: *mut sys::rd_kafka_error_t) -> Result<(), ClientError> {
    TransactionError::check(error).map_err(|error| error.error)
}

/// False also for a client that has joined no group.
pub(super) fn is_eager(client: *mut sys::rd_kafka_t) -> bool {
    // SAFETY: the client is alive; the answer is a static text or NULL.
    unsafe { text(sys::rd_kafka_rebalance_protocol(client)) == "EAGER" }
}
