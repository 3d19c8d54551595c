//! The state of a consumer group: each partition's owner, progress and lag.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use genwatch_core::types::{Millis, Offset, PartitionId};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::admin::{Cluster, ClusterError};
use super::config::{Connection, Context, Isolation};
use super::consumer::{Consumer, Event};
use super::error::ClientError;
use super::native::members::{GroupMember, members};
use super::starts::bounds;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The progress of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The first offset in the log.
    pub start: Offset,
    /// The end of the log.
    pub end: Offset,
    /// The committed offset; `None` if there is none.
    pub committed: Option<Offset>,
}

impl Progress {
    /// Returns the number of records from the committed offset to the end; all of them if nothing is committed.
    #[must_use]
    pub fn lag(&self) -> i64 {
        (self.end.0 - self.next().0).max(0)
    }

    /// Returns the next offset to process.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.committed.unwrap_or(self.start)
    }
}

/// Queries one group and topic.
pub struct Group<'c> {
    cluster: &'c Cluster,
    connection: Connection,
    group: String,
    topic: String,
    client: Arc<BaseConsumer<Context>>,
}

impl<'c> Group<'c> {
    /// Queries a group and topic; joins nothing.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn new(
        connection: &Connection,
        cluster: &'c Cluster,
        group: &str,
        topic: &str,
    ) -> Result<Group<'c>, ClientError> {
        let client =
            connection.reader(group, Isolation::Uncommitted).create_with_context(Context::default())?;
        Ok(Group {
            cluster,
            connection: connection.clone(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            client: Arc::new(client),
        })
    }

    /// Returns a query of the same group for another topic.
    #[must_use]
    pub fn on(&self, topic: &str) -> Group<'c> {
        Group {
            cluster: self.cluster,
            connection: self.connection.clone(),
            group: self.group.clone(),
            topic: topic.to_owned(),
            client: Arc::clone(&self.client),
        }
    }

    /// Returns the queried topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Whether the topic exists, as far as we may see.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn sees_topic(&self) -> Result<bool, GroupError> {
        match self.cluster.topic(&self.topic) {
            Ok(found) => Ok(found.is_some()),
            Err(ClusterError::Unauthorized { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the group has committed an offset of the topic.
    ///
    /// # Errors
    /// When the topic doesn't exist or the cluster doesn't answer.
    pub fn has_committed(&self) -> Result<bool, GroupError> {
        let committed = self.committed()?;
        Ok(committed.elements().iter().any(|of| matches!(of.offset(), KafkaOffset::Offset(_))))
    }

    /// Returns the topic's number of partitions.
    ///
    /// # Errors
    /// When the topic doesn't exist or the cluster doesn't answer.
    pub fn partition_count(&self) -> Result<usize, GroupError> {
        Ok(self.cluster.require(&self.topic)?)
    }

    fn committed(&self) -> Result<TopicPartitionList, GroupError> {
        let partitions = i32::try_from(self.partition_count()?).unwrap_or(i32::MAX);
        let mut list = TopicPartitionList::new();
        for id in 0..partitions {
            list.add_partition(&self.topic, id);
        }
        Ok(self.client.committed_offsets(list, REQUEST_TIMEOUT)?)
    }

    /// Returns the progress of each partition.
    ///
    /// # Errors
    /// When the topic doesn't exist or the cluster doesn't answer.
    pub fn progress(&self) -> Result<BTreeMap<PartitionId, Progress>, GroupError> {
        let committed = self.committed()?;
        let bounds = bounds::<GroupError>(self.cluster, &self.topic)?;
        let mut progress = BTreeMap::new();
        for element in committed.elements() {
            let id = PartitionId(element.partition());
            // A topic that was recreated meanwhile may have fewer.
            let Some((start, end)) = bounds.get(&id).copied() else { continue };
            let committed = match element.offset() {
                KafkaOffset::Offset(offset) => Some(Offset(offset)),
                _ => None,
            };
            progress.insert(id, Progress { start, end, committed });
        }
        Ok(progress)
    }

    /// Returns each partition's owner by client id, topic by topic. Empty while the group rebalances.
    ///
    /// # Errors
    /// When the coordinator doesn't answer.
    pub fn owners(&self) -> Result<BTreeMap<String, BTreeMap<PartitionId, String>>, GroupError> {
        let members = members(&self.client, &self.group, REQUEST_TIMEOUT);
        let members = members.map_err(GroupError::Refused)?;
        let mut owners: BTreeMap<String, BTreeMap<PartitionId, String>> = BTreeMap::new();
        for GroupMember { client_id, owns } in members {
            for (topic, partition) in owns {
                owners.entry(topic).or_default().insert(partition, client_id.clone());
            }
        }
        Ok(owners)
    }

    /// Returns a reader of the oldest records that wait, for this thread.
    ///
    /// # Errors
    /// When its client can't be created.
    pub fn waiting(&self) -> Result<OldestWaiting, GroupError> {
        OldestWaiting::new(&self.connection, &self.group, &self.topic)
    }

    /// Returns the timestamp of the first uncommitted record of each partition that has one.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn oldest_waiting(
        &self,
        progress: &BTreeMap<PartitionId, Progress>,
    ) -> Result<BTreeMap<PartitionId, Millis>, GroupError> {
        if progress.values().all(|of| of.lag() == 0) {
            return Ok(BTreeMap::new());
        }
        self.waiting()?.ask(progress, REQUEST_TIMEOUT)
    }
}

/// Finds the first uncommitted record of each partition of a topic, again and again over the same connections. Belongs
/// to the thread that created it, which it unparks.
pub struct OldestWaiting {
    reader: Consumer,
    /// What was found at the last call.
    known: BTreeMap<PartitionId, (Offset, Millis)>,
}

impl OldestWaiting {
    /// Creates the client.
    ///
    /// # Errors
    /// When it can't be created.
    pub fn new(connection: &Connection, group: &str, topic: &str) -> Result<OldestWaiting, GroupError> {
        let mut config = connection.reader(group, Isolation::Uncommitted);
        config.set("queued.min.messages", "1").set("fetch.message.max.bytes", "65536");
        let reader = Consumer::new(&config, topic, std::thread::current())?;
        Ok(OldestWaiting { reader, known: BTreeMap::new() })
    }

    /// Returns the timestamp of the first uncommitted record of each partition that has one. For a partition that
    /// doesn't answer in time it is what the last call found.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn ask(
        &mut self,
        progress: &BTreeMap<PartitionId, Progress>,
        patience: Duration,
    ) -> Result<BTreeMap<PartitionId, Millis>, GroupError> {
        let first = |p: &Progress| p.next().max(p.start);
        self.known.retain(|id, _| progress.get(id).is_some_and(|p| p.lag() > 0));
        let mut waiting: BTreeMap<PartitionId, Offset> = progress
            .iter()
            .filter(|(id, p)| p.lag() > 0 && self.known.get(id).is_none_or(|known| known.0 != first(p)))
            .map(|(id, p)| (*id, first(p)))
            .collect();
        if !waiting.is_empty() {
            let starts: Vec<_> = waiting.iter().map(|(id, offset)| (*id, *offset)).collect();
            let asked: Vec<_> = waiting.keys().copied().collect();
            self.reader.add(&starts, &starts).map_err(GroupError::Refused)?;
            self.read(&mut waiting, patience);
            self.reader.remove(&asked).map_err(GroupError::Refused)?;
            // Whoever asks sees an outage by the other requests.
            drop(self.reader.take_errors());
        }
        Ok(self.known.iter().map(|(id, (_, at))| (*id, *at)).collect())
    }

    fn read(&mut self, waiting: &mut BTreeMap<PartitionId, Offset>, patience: Duration) {
        let deadline = std::time::Instant::now() + patience;
        while !waiting.is_empty() && std::time::Instant::now() < deadline {
            let batch = self.reader.poll(usize::MAX);
            let idle = batch.is_empty();
            for event in batch.events() {
                match event {
                    Event::Record(record) => {
                        if let Some(offset) = waiting.remove(&record.partition) {
                            self.known.insert(record.partition, (offset, record.timestamp));
                        }
                    }
                    // Only transaction markers are left before the end.
                    Event::End(partition, _) => {
                        if waiting.remove(&partition).is_some() {
                            self.known.remove(&partition);
                        }
                    }
                    Event::Error(..) => {}
                }
            }
            drop(batch);
            if idle {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        }
    }
}

/// Why a query of a group failed.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The cluster or the topic is missing.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The client or the coordinator refuses.
    #[error(
        "the group's committed offsets could not be fetched; check that the brokers are up, and that this principal \
         has DESCRIBE on the group"
    )]
    Client(#[from] ClientError),
    /// The broker refuses.
    #[error("reading failed")]
    Refused(#[source] ClientError),
}

impl From<KafkaError> for GroupError {
    fn from(error: KafkaError) -> Self {
        ClientError::from(error).into()
    }
}
