//! A member of a consumer group that reads several topics, for sinks: single records, rebalances as values, and offsets
//! that are committed when the sink says so.
//!
//! Unlike the worker's intake ([`super::consumer`]) this is rust-rdkafka's own consumer: a sink restores nothing before
//! a partition starts and drains nothing before it goes, so it answers a rebalance at once, during a poll.
//!
//! Ownership: one thread. Callbacks run during its polls and only note what happened.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use genwatch_core::transform::record::Headers;
use genwatch_core::types::{Millis, Offset, PartitionId, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, Consumer as _, ConsumerContext, Rebalance as KafkaRebalance, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::admin::{Cluster, ClusterError};
use super::config::{Connection, Context, Isolation, log};
use super::consumer::Rebalance;
use super::error::ClientError;
use super::forward::{OwnHeader, own_headers};
use super::native;
use super::starts;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Short, because nothing else runs meanwhile.
const START_TIMEOUT: Duration = Duration::from_secs(3);
/// A reachable broker answers at once.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// A member of the group. Leaves it when dropped.
pub struct Subscriber {
    consumer: BaseConsumer<Notes>,
    /// For high watermarks regardless of open transactions.
    uncommitted: BaseConsumer<Context>,
    topics: Vec<String>,
    group: String,
}

/// A partition, and the offsets where it can start.
#[derive(Clone, Copy, Debug)]
pub struct StartOffset {
    /// The partition.
    pub place: TopicPartition,
    /// The group's committed offset, if any.
    pub committed: Option<Offset>,
    /// The first offset in the log.
    pub low: Offset,
    /// The end of the log.
    pub high: Offset,
}

/// What librdkafka has reported since the last call.
#[derive(Default)]
struct Notes {
    topics: Vec<String>,
    changes: Mutex<Vec<Rebalance<TopicPartition>>>,
    has_changes: AtomicBool,
    commits: Mutex<Vec<Result<(), ClientError>>>,
    /// Some partition has no valid offset to continue or start from.
    has_lost_its_place: AtomicBool,
    brokers_down: AtomicBool,
    last_broker_error: Mutex<String>,
}

/// A record, borrowed from the client.
pub struct SubscribedRecord<'a> {
    /// Its topic and partition.
    pub place: TopicPartition,
    message: BorrowedMessage<'a>,
}

impl SubscribedRecord<'_> {
    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset(self.message.offset())
    }

    /// Its timestamp, if it has one.
    #[must_use]
    pub fn timestamp(&self) -> Option<Millis> {
        self.message.timestamp().to_millis().map(Millis)
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.message.key()
    }

    /// Its value; `None` is a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    /// Its headers, copied.
    #[must_use]
    pub fn own_headers(&self) -> Vec<OwnHeader> {
        self.message.headers().map(own_headers).unwrap_or_default()
    }
}

impl fmt::Debug for SubscribedRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscribedRecord")
            .field("place", &self.place)
            .field("offset", &self.offset())
            .finish()
    }
}

impl Headers for SubscribedRecord<'_> {
    fn last(&self, name: &str) -> Option<&[u8]> {
        use rdkafka::message::Headers as _;
        let headers = self.message.headers()?;
        let last = (0..headers.count()).rev().map(|index| headers.get(index)).find(|own| own.key == name)?;
        last.value
    }
}

/// Why the topics can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SubscriberError {
    /// The cluster or a topic isn't as required.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The client couldn't be created.
    #[error("cannot create the Kafka client")]
    Client(#[source] ClientError),
    /// librdkafka refused a call.
    #[error("reading failed")]
    Read(#[from] ClientError),
    /// We lack permission to read.
    #[error(
        "not authorized to read {topics} as group {group}: ask for the ACLs (read on each of them, and on the group)"
    )]
    Unauthorized {
        /// The topics.
        topics: String,
        /// The group.
        group: String,
    },
}

impl From<KafkaError> for SubscriberError {
    fn from(error: KafkaError) -> Self {
        ClientError::from(error).into()
    }
}

impl Subscriber {
    /// Joins the group for these topics, which must exist. A [`TopicPartition`] names a topic by its index in `topics`.
    ///
    /// # Errors
    /// When one is missing or the client can't be created.
    pub fn new(
        connection: &Connection,
        cluster: &Cluster,
        group: &str,
        topics: Vec<String>,
    ) -> Result<Subscriber, SubscriberError> {
        for topic in &topics {
            cluster.require(topic)?;
        }
        let notes = Notes { topics: topics.clone(), ..Notes::default() };
        let consumer: BaseConsumer<Notes> = connection
            .sink_consumer(group)
            .create_with_context(notes)
            .map_err(|error| SubscriberError::Client(error.into()))?;
        let uncommitted = connection
            .reader(group, Isolation::Uncommitted)
            .create_with_context(Context::default())
            .map_err(|error| SubscriberError::Client(error.into()))?;
        consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(Subscriber { consumer, uncommitted, topics, group: group.to_owned() })
    }

    /// Serves the group, and returns the next record; `None` if there is none within `wait`.
    ///
    /// # Errors
    /// When we lack permission, or the client is broken permanently.
    pub fn poll(&self, wait: Duration) -> Result<Option<SubscribedRecord<'_>>, SubscriberError> {
        match self.consumer.poll(wait) {
            None => Ok(None),
            Some(Ok(message)) => {
                let place = place(&self.topics, message.topic(), message.partition());
                Ok(place.map(|place| SubscribedRecord { place, message }))
            }
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed,
            ))) => {
                let (topics, group) = (self.topics.join(", "), self.group.clone());
                Err(SubscriberError::Unauthorized { topics, group })
            }
            // `auto.offset.reset` is `error`: the caller decides.
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                self.consumer.context().has_lost_its_place.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => Err(error.into()),
            // librdkafka recovers by itself.
            Some(Err(error)) => {
                tracing::debug!(%error, "reading waits");
                Ok(None)
            }
        }
    }

    /// Returns the group's rebalances since the last call, in order.
    #[must_use]
    pub fn take_rebalances(&self) -> Vec<Rebalance<TopicPartition>> {
        let notes = self.consumer.context();
        // Called after each record.
        if notes.has_changes.swap(false, Ordering::Acquire) { take(&notes.changes) } else { Vec::new() }
    }

    /// Whether some partition has no offset to continue from: [`Subscriber::start_at`] sets one.
    #[must_use]
    pub fn has_lost_its_place(&self) -> bool {
        self.consumer.context().has_lost_its_place.load(Ordering::Relaxed)
    }

    /// Returns the offsets where these partitions can start.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn starts(&self, places: &[TopicPartition]) -> Result<Vec<StartOffset>, SubscriberError> {
        let list = self.consumer.committed_offsets(self.list(places), START_TIMEOUT)?;
        let committed = self.offsets(&list);
        let start = |place: &TopicPartition| {
            let topic = &self.topics[place.topic];
            let (low, high) = self.uncommitted.fetch_watermarks(topic, place.partition.0, START_TIMEOUT)?;
            let committed = committed.get(place).copied();
            Ok(StartOffset { place: *place, committed, low: Offset(low), high: Offset(high) })
        };
        places.iter().map(start).collect()
    }

    /// Continues these partitions, which must be all that are assigned, at these offsets. Fetches again what was
    /// fetched and not handed out.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn start_at(&self, starts: &[(TopicPartition, Offset)]) -> Result<(), SubscriberError> {
        let list = self.list_of_offsets(starts)?;
        self.consumer.context().has_lost_its_place.store(false, Ordering::Relaxed);
        if matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::Cooperative) {
            self.consumer.incremental_unassign(&list)?;
            self.consumer.incremental_assign(&list)?;
        } else {
            self.consumer.assign(&list)?;
        }
        Ok(())
    }

    /// Whether the client has reported since the last call that no broker answers.
    #[must_use]
    pub fn take_brokers_down(&self) -> bool {
        self.consumer.context().brokers_down.swap(false, Ordering::Relaxed)
    }

    /// Asks whether a broker answers.
    #[must_use]
    pub fn brokers_answer(&self) -> bool {
        let topic = self.topics.first().map(String::as_str);
        self.consumer.fetch_metadata(topic, PROBE_TIMEOUT).is_ok()
    }

    /// Returns the latest broker error.
    #[must_use]
    pub fn last_broker_error(&self) -> String {
        let notes = self.consumer.context();
        notes.last_broker_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops fetching; what was fetched and not handed out comes again after [`Subscriber::resume`].
    ///
    /// # Errors
    /// When the client refuses.
    pub fn pause(&self, places: &[TopicPartition]) -> Result<(), SubscriberError> {
        Ok(self.consumer.pause(&self.list(places))?)
    }

    /// Resumes fetching.
    ///
    /// # Errors
    /// When the client refuses.
    pub fn resume(&self, places: &[TopicPartition]) -> Result<(), SubscriberError> {
        Ok(self.consumer.resume(&self.list(places))?)
    }

    /// Returns each partition's position: behind the last record handed out, and behind transaction markers. Omits
    /// partitions that have delivered nothing yet.
    #[must_use]
    pub fn positions(&self) -> Vec<(TopicPartition, Offset)> {
        self.consumer.position().map(|list| self.offsets(&list).into_iter().collect()).unwrap_or_default()
    }

    /// Returns the group's committed offsets of these partitions, as far as there are any.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn committed(
        &self,
        places: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Offset>, SubscriberError> {
        let list = self.consumer.committed_offsets(self.list(places), REQUEST_TIMEOUT)?;
        Ok(self.offsets(&list))
    }

    /// Requests a commit; [`Subscriber::take_commits`] returns the answer.
    ///
    /// # Errors
    /// When the client refuses; then no answer comes.
    pub fn commit(&self, offsets: &[(TopicPartition, Offset)]) -> Result<(), SubscriberError> {
        Ok(native::subscriber::commit(&self.consumer, &self.list_of_offsets(offsets)?)?)
    }

    /// Returns the answers to commits since the last call, in order.
    #[must_use]
    pub fn take_commits(&self) -> Vec<Result<(), ClientError>> {
        take(&self.consumer.context().commits)
    }

    fn list(&self, places: &[TopicPartition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(places.len());
        for place in places {
            list.add_partition(&self.topics[place.topic], place.partition.0);
        }
        list
    }

    fn list_of_offsets(
        &self,
        offsets: &[(TopicPartition, Offset)],
    ) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (place, offset) in offsets {
            let topic = &self.topics[place.topic];
            list.add_partition_offset(topic, place.partition.0, KafkaOffset::Offset(offset.0))?;
        }
        Ok(list)
    }

    fn offsets(&self, list: &TopicPartitionList) -> BTreeMap<TopicPartition, Offset> {
        let known =
            |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
                KafkaOffset::Offset(offset) => {
                    Some((place(&self.topics, element.topic(), element.partition())?, Offset(offset)))
                }
                _ => None,
            };
        list.elements().iter().filter_map(known).collect()
    }
}

/// Returns the low and high watermark of each partition of these topics.
///
/// # Errors
/// When a topic is missing or the cluster doesn't answer.
pub fn bounds(
    cluster: &Cluster,
    topics: &[String],
) -> Result<BTreeMap<TopicPartition, (Offset, Offset)>, SubscriberError> {
    let mut bounds = BTreeMap::new();
    for (number, topic) in topics.iter().enumerate() {
        let of_topic = starts::bounds::<SubscriberError>(cluster, topic)?.into_iter();
        bounds.extend(
            of_topic.map(|(partition, of_one)| (TopicPartition { topic: number, partition }, of_one)),
        );
    }
    Ok(bounds)
}

fn place(topics: &[String], topic: &str, partition: i32) -> Option<TopicPartition> {
    let topic = topics.iter().position(|known| known == topic)?;
    Some(TopicPartition { topic, partition: PartitionId(partition) })
}

fn take<T>(notes: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner))
}

fn note<T>(notes: &Mutex<Vec<T>>, value: T) {
    notes.lock().unwrap_or_else(PoisonError::into_inner).push(value);
}

impl Notes {
    fn note(&self, change: Rebalance<TopicPartition>) {
        note(&self.changes, change);
        self.has_changes.store(true, Ordering::Release);
    }

    fn places(&self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let elements = list.elements();
        elements
            .iter()
            .filter_map(|element| place(&self.topics, element.topic(), element.partition()))
            .collect()
    }
}

impl ClientContext for Notes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, Authentication, BrokerTransportFailure, Resolve, SSL};
        match error.rdkafka_error_code() {
            Some(AllBrokersDown) => self.brokers_down.store(true, Ordering::Relaxed),
            Some(BrokerTransportFailure | Resolve | Authentication | SSL) => {
                let mut last = self.last_broker_error.lock().unwrap_or_else(PoisonError::into_inner);
                reason.clone_into(&mut last);
            }
            _ => {}
        }
        tracing::debug!(%error, reason, "the Kafka client");
    }
}

impl ConsumerContext for Notes {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &KafkaRebalance<'_>) {
        if let KafkaRebalance::Revoke(list) = rebalance {
            let places = self.places(list);
            let lost = consumer.assignment_lost();
            self.note(if lost { Rebalance::Lost(places) } else { Rebalance::Revoked(places) });
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &KafkaRebalance<'_>) {
        match rebalance {
            KafkaRebalance::Assign(list) => self.note(Rebalance::Assigned(self.places(list))),
            KafkaRebalance::Revoke(_) => {}
            KafkaRebalance::Error(error) => tracing::warn!(%error, "a rebalance failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        note(&self.commits, result.map_err(ClientError::from));
    }
}
