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

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use genwatch_core::engine::membership::{Fence, Member, Refusal};
use genwatch_core::engine::note::Note;
use genwatch_core::types::{Epoch, Millis, Offset, PartitionId};

use crate::config::{Connection, GroupProtocol};
use crate::error::ClientError;

/// Records requested per call. More aren't faster; fewer are measurably slower.
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

/// One event of a poll.
#[derive(Debug)]
pub enum Event<'a> {
    /// A record.
    Record(Record<'a>),
    /// The partition is read to its end, at this offset.
    End(PartitionId, Offset),
    /// An error about one partition, at an offset, or about all.
    Error(Option<(PartitionId, Offset)>, ClientError),
}

/// A record, borrowed from the batch.
#[derive(Debug)]
pub struct Record<'a> {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Millis,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    message: &'a sys::rd_kafka_message_t,
}

/// How long leaving the group may take: it needs a round trip.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Written by callbacks, on whichever thread librdkafka calls them.
#[derive(Debug, Default)]
struct Inbox {
    rebalances: Mutex<Vec<Rebalance>>,
    errors: Mutex<Vec<ClientError>>,
    /// Whether a KIP-848 heartbeat timed out.
    heartbeat_late: AtomicBool,
    closing: AtomicBool,
}

/// How librdkafka 2.12.1 logs that (`rd_kafka_broker_bufq_timeout_scan`).
const LATE_HEARTBEAT: &str = "Timed out ConsumerGroupHeartbeatRequest";

/// The client, shared with the threads that commit and restore.
#[derive(Debug)]
pub struct Handle {
    client: NonNull<sys::rd_kafka_t>,
    topic: String,
    /// Written by callbacks through the pointer that librdkafka was given; freed after the client.
    inbox: Arc<Inbox>,
}

// SAFETY: librdkafka documents `rd_kafka_t` as thread-safe; `Inbox` is behind mutexes and atomics.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The consumer: polls, pauses, assigns. One thread owns it.
#[derive(Debug)]
pub struct Consumer {
    handle: Arc<Handle>,
    queue: NonNull<sys::rd_kafka_queue_t>,
    messages: Vec<*mut sys::rd_kafka_message_t>,
    subscribed: AtomicBool,
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
        Consumer::new(&connection.group_consumer(group, protocol), topic, waker)
    }

    /// Creates the client; joins nothing yet.
    pub(crate) fn new(config: &ClientConfig, topic: &str, waker: Thread) -> Result<Consumer, ClientError> {
        let native = config.create_native_config()?;
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
            waker,
        })
    }

    /// Returns the part that other threads may share.
    #[must_use]
    pub fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle)
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
        std::mem::take(&mut *self.handle.inbox.rebalances.lock().unwrap_or_else(PoisonError::into_inner))
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
    /// is then committed in its own generation or not at all, see [`Fence`]. `held` as in [`Consumer::add`].
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

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: this is the last owner; the queue was destroyed by `Consumer`, which holds a `Handle`. librdkafka
        // joins its threads in here, so no callback sees `inbox` afterwards.
        unsafe {
            let flags = sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE as c_int;
            sys::rd_kafka_destroy_flags(self.client.as_ptr(), flags);
        }
    }
}

impl Handle {
    /// Returns our membership in the group; `None` while we are not a member.
    #[must_use]
    pub fn member(&self) -> Option<Member> {
        GroupMetadata::of(self).as_ref().and_then(GroupMetadata::member)
    }

    /// Whether we have a member id; in the classic protocol not before the first join, nor after an eviction.
    #[must_use]
    pub fn has_member_id(&self) -> bool {
        GroupMetadata::of(self).is_some_and(|metadata| !metadata.id().is_empty())
    }

    /// Commits offsets for the group, outside of any transaction.
    ///
    /// # Errors
    /// When the fence refuses them, the group has moved on, or no coordinator answered.
    pub fn commit(&self, offsets: &[NotedOffset], fence: &Fence) -> Result<(), ClientError> {
        fence.check(self.member().as_ref()).map_err(fenced)?;
        let list = self.offsets(offsets)?;
        // SAFETY: client and list are alive during the call, which waits for the answer.
        check(unsafe { sys::rd_kafka_commit(self.client.as_ptr(), list.ptr(), 0) })
    }

    /// Returns the group's committed offsets; `None` where there is none. With `isolation.level=read_committed`, waits
    /// for an offset whose transaction is open (KIP-447).
    ///
    /// # Errors
    /// On timeout, or when the coordinator refuses.
    pub fn committed(
        &self,
        partitions: &[PartitionId],
        timeout: Duration,
    ) -> Result<Vec<GroupOffset>, ClientError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.topic, partition.0);
        }
        let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: client and list are alive during the call, which fills in the list.
        check(unsafe { sys::rd_kafka_committed(self.client.as_ptr(), list.ptr(), millis) })?;
        list.elements()
            .iter()
            .map(|element| {
                element.error().map_err(|error| {
                    ClientError::new(
                        error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown),
                        format!("cannot fetch the committed offset of partition {}", element.partition()),
                    )
                })?;
                let offset = match element.offset() {
                    KafkaOffset::Offset(offset) => Some(Offset(offset)),
                    _ => None,
                };
                Ok(GroupOffset {
                    partition: PartitionId(element.partition()),
                    offset,
                    metadata: element.metadata().to_owned(),
                })
            })
            .collect()
    }

    /// Adds offsets to the producer's open transaction, as this group member.
    ///
    /// Before the first join, librdkafka's metadata has no member and no generation, and a broker takes such offsets
    /// from anybody; after an eviction it has no member and the old generation. Kafka never checks who owns a
    /// partition. So the fence is checked here, on the very metadata that is sent; if that has gone stale, the broker
    /// refuses it.
    ///
    /// # Errors
    /// When the fence or the broker refuses them.
    pub(crate) fn send_offsets<C: ProducerContext + 'static>(
        &self,
        producer: &ThreadedProducer<C>,
        offsets: &[NotedOffset],
        fence: &Fence,
        timeout: Duration,
    ) -> Result<(), TransactionError> {
        let list = self.offsets(offsets).map_err(TransactionError::abortable)?;
        let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        let metadata = GroupMetadata::of(self);
        let member = metadata.as_ref().and_then(GroupMetadata::member);
        fence.check(member.as_ref()).map_err(|refusal| TransactionError::abortable(fenced(refusal)))?;
        let Some(member) = metadata else {
            return Err(TransactionError::abortable(fenced(Refusal::NotAMember)));
        };
        // SAFETY: producer, list and member are alive during the call.
        let error = unsafe {
            sys::rd_kafka_send_offsets_to_transaction(
                producer.client().native_ptr(),
                list.ptr(),
                member.0.as_ptr(),
                millis,
            )
        };
        TransactionError::check(error)
    }

    fn offsets(&self, offsets: &[NotedOffset]) -> Result<TopicPartitionList, ClientError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for NotedOffset { partition, offset, note } in offsets {
            let mut element = list.add_partition(&self.topic, partition.0);
            element.set_metadata(note.to_string());
            element
                .set_offset(KafkaOffset::Offset(offset.0))
                .map_err(|error| ClientError::new(RDKafkaErrorCode::InvalidArgument, error.to_string()))?;
        }
        Ok(list)
    }
}

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedOffset {
    /// The partition.
    pub partition: PartitionId,
    /// The offset.
    pub offset: Offset,
    /// The note to commit with it.
    pub note: Note,
}

/// The group's committed offset of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// The partition.
    pub partition: PartitionId,
    /// The offset; `None` if there is none.
    pub offset: Option<Offset>,
    /// The metadata committed with it; empty if there is none.
    pub metadata: String,
}

impl GroupOffset {
    /// Returns the note that a worker committed with it, if any.
    #[must_use]
    pub fn note(&self) -> Option<Note> {
        Note::parse(&self.metadata)
    }
}

/// Why a step of a transaction failed, and whether to retry it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct TransactionError {
    /// What happened.
    pub(crate) error: ClientError,
    /// The same call may be tried again.
    pub(crate) retriable: bool,
    /// The producer is unusable: another took its transactional id, or its epoch was fenced.
    pub(crate) fatal: bool,
}

impl TransactionError {
    fn abortable(error: ClientError) -> TransactionError {
        TransactionError { error, retriable: false, fatal: false }
    }

    /// Takes over an error object of librdkafka; NULL is success.
    pub(super) fn check(error: *mut sys::rd_kafka_error_t) -> Result<(), TransactionError> {
        let Some(error) = NonNull::new(error) else {
            return Ok(());
        };
        // SAFETY: the object is ours; it is read before it's destroyed, once.
        unsafe {
            let result = TransactionError {
                error: ClientError::new(
                    sys::rd_kafka_error_code(error.as_ptr()),
                    text(sys::rd_kafka_error_string(error.as_ptr())),
                ),
                retriable: sys::rd_kafka_error_is_retriable(error.as_ptr()) != 0
                    && sys::rd_kafka_error_txn_requires_abort(error.as_ptr()) == 0,
                fatal: sys::rd_kafka_error_is_fatal(error.as_ptr()) != 0,
            };
            sys::rd_kafka_error_destroy(error.as_ptr());
            Err(result)
        }
    }
}

/// The member and generation that go with transactional offsets.
struct GroupMetadata(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

impl GroupMetadata {
    fn of(handle: &Handle) -> Option<GroupMetadata> {
        // SAFETY: the client is alive; the object is ours to destroy.
        NonNull::new(unsafe { sys::rd_kafka_consumer_group_metadata(handle.client.as_ptr()) })
            .map(GroupMetadata)
    }

    /// Empty if there is none.
    fn id(&self) -> String {
        // SAFETY: the object is alive; the text belongs to it and is copied.
        unsafe { text(sys::rd_kafka_consumer_group_metadata_member_id(self.0.as_ptr())) }
    }

    /// `None` while the client is not a member.
    fn member(&self) -> Option<Member> {
        // SAFETY: the object is alive.
        let generation = unsafe { sys::rd_kafka_consumer_group_metadata_generation_id(self.0.as_ptr()) };
        let id = self.id();
        (generation >= 0 && !id.is_empty()).then(|| Member { id: id.into(), generation })
    }
}

/// The error of a commit that the fence refuses.
fn fenced(refusal: Refusal) -> ClientError {
    match refusal {
        Refusal::NotAMember => ClientError::new(
            RDKafkaErrorCode::UnknownMemberId,
            "this worker is no longer the member that the partitions were assigned to".to_owned(),
        ),
        Refusal::StaleGeneration | Refusal::Overdue | Refusal::Other => ClientError::new(
            RDKafkaErrorCode::IllegalGeneration,
            "the group has moved to a new generation while partitions were being revoked".to_owned(),
        ),
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

/// The result of one poll. Destroys the messages when dropped.
#[derive(Debug)]
pub struct Batch<'c> {
    messages: &'c [*mut sys::rd_kafka_message_t],
}

impl Batch<'_> {
    /// Returns the records and notices, in the order in which to take them.
    pub fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.messages.iter().map(|message| {
            // SAFETY: librdkafka gave a valid message, which lives until the batch is dropped.
            let message = unsafe { &**message };
            match message.err {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Event::Record(Record::new(message)),
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                    Event::End(PartitionId(message.partition), Offset(message.offset))
                }
                code => {
                    // SAFETY: the text belongs to the message and is copied at once.
                    let reason = unsafe { text(sys::rd_kafka_message_errstr(message)) };
                    let place = (PartitionId(message.partition), Offset(message.offset));
                    Event::Error((message.partition >= 0).then_some(place), ClientError::new(code, reason))
                }
            }
        })
    }

    /// Returns the number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether the batch is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.messages {
            // SAFETY: each was given to us by the poll that made this batch, and is destroyed once; nothing borrows
            // from it any more, as events borrow from the batch.
            unsafe { sys::rd_kafka_message_destroy(*message) };
        }
    }
}

impl<'a> Record<'a> {
    fn new(message: &'a sys::rd_kafka_message_t) -> Record<'a> {
        // SAFETY: `message` is valid; the kind of timestamp isn't asked for.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(message, ptr::null_mut()) };
        Record {
            partition: PartitionId(message.partition),
            offset: Offset(message.offset),
            timestamp: Millis(timestamp),
            key: slice(message.key, message.key_len, message),
            value: slice(message.payload, message.len, message),
            message,
        }
    }

    /// Copies the headers. librdkafka parses them on the first call, so only bad records pay for it.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let mut headers = ptr::null_mut();
        let mut found = Vec::new();
        // SAFETY: the headers belong to the message and live as long; names are NUL-terminated, a value of NULL is a
        // null value, and both are copied before the loop goes on. librdkafka caches the parsed headers in the message,
        // behind its own lock-free but single-threaded access: the batch is owned by one thread.
        unsafe {
            let code = sys::rd_kafka_message_headers(self.message, &mut headers);
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return found;
            }
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            while sys::rd_kafka_header_get_all(headers, found.len(), &mut name, &mut value, &mut size)
                == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                let bytes =
                    (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast(), size).to_vec());
                found.push((text(name), bytes));
            }
        }
        found
    }

    /// Returns the leader epoch under which it was written.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        // SAFETY: the message is valid for as long as the record is.
        Epoch(unsafe { sys::rd_kafka_message_leader_epoch(self.message) })
    }

    /// Returns the bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }
}

/// The bytes of a key or value; NULL is null, a length of 0 at an address is empty. The owner bounds the lifetime.
fn slice<T>(start: *const c_void, len: usize, _owner: &T) -> Option<&[u8]> {
    // SAFETY: librdkafka's message holds `len` bytes at `start` for as long as the message lives, and never changes
    // them.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast(), len) })
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

fn check(code: sys::rd_kafka_resp_err_t) -> Result<(), ClientError> {
    if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: the text of a code is static.
    Err(ClientError::new(code, unsafe { text(sys::rd_kafka_err2str(code)) }))
}

fn check_error(error: *mut sys::rd_kafka_error_t) -> Result<(), ClientError> {
    TransactionError::check(error).map_err(|error| error.error)
}

/// False also for a client that has joined no group.
fn is_eager(client: *mut sys::rd_kafka_t) -> bool {
    // SAFETY: the client is alive; the answer is a static text or NULL.
    unsafe { text(sys::rd_kafka_rebalance_protocol(client)) == "EAGER" }
}

extern "C" fn on_queue_ready(_client: *mut sys::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: `waker` is the `Thread` that `Consumer` frees after it has disabled this callback.
    unsafe { &*waker.cast::<Thread>() }.unpark();
}

extern "C" fn on_rebalance(
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

extern "C" fn on_error(
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

extern "C" fn on_log(
    client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    message: *const c_char,
) {
    // SAFETY: both are C strings, copied.
    let (facility, message) = unsafe { (text(facility), text(message)) };
    if facility == "REQTMOUT" && message.contains(LATE_HEARTBEAT) {
        // SAFETY: as in `on_rebalance`: what the client was configured with outlives it.
        let inbox = unsafe { sys::rd_kafka_opaque(client).cast::<Inbox>().as_ref() };
        inbox.inspect(|inbox| inbox.heartbeat_late.store(true, Ordering::Release));
    }
    crate::config::log(level, &facility, &message);
}
