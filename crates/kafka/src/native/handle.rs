//! The client as other threads share it: who it is in its group, and the group's offsets.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use genwatch_core::engine::membership::{Fence, Member, Refusal};
use genwatch_core::engine::note::Note;
use genwatch_core::types::{Offset, PartitionId};
use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::callbacks::Inbox;
use super::consumer::{check, text};
use super::millis;
use crate::error::ClientError;

/// The client, shared with the threads that commit and restore.
#[derive(Debug)]
pub struct Handle {
    pub(super) client: NonNull<sys::rd_kafka_t>,
    pub(super) topic: String,
    /// Written by callbacks through the pointer that librdkafka was given; freed after the client.
    pub(super) inbox: Arc<Inbox>,
}

// SAFETY: librdkafka documents `rd_kafka_t` as thread-safe; `Inbox` is behind mutexes and atomics.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

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

    /// Whether we are joining the group anew. What is committed meanwhile may come under a generation that is over.
    #[must_use]
    pub(crate) fn is_joining(&self) -> bool {
        self.inbox.joining.load(Ordering::Acquire)
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
        // SAFETY: client and list are alive during the call, which fills in the list.
        check(unsafe { sys::rd_kafka_committed(self.client.as_ptr(), list.ptr(), millis(timeout)) })?;
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
                millis(timeout),
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
