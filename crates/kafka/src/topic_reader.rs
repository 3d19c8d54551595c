//! Reads a topic without a group: from the beginning, from now or from a time, to its end or forever. Never sees
//! aborted records.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use genwatch_core::types::{Offset, PartitionId};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;

use super::admin::{Cluster, ClusterError};
use super::config::{Connection, Isolation};
use super::consumer::{Consumer, Event, Record};
use super::error::ClientError;
use super::outage::Outage;
use super::starts::starts;

pub use super::starts::StartAt;

/// Interval between two checks whether an outage is over; each waits half as long for an answer.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A reader of all partitions of a topic, or of some. Belongs to the thread that created it, which it unparks.
pub struct TopicReader {
    consumer: Consumer,
    /// The partitions that have not reached the end they had when the reader was created, or [`TopicReader::extend`]
    /// was called.
    open: BTreeMap<PartitionId, Offset>,
    /// How far each partition is read.
    reached: BTreeMap<PartitionId, Offset>,
    outage: Outage,
    probed: Instant,
}

/// Why a topic can't be read.
#[derive(Debug, thiserror::Error)]
pub enum TopicReaderError {
    /// The cluster or the topic is missing.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The client or the broker refuses.
    #[error("reading failed")]
    Client(#[from] ClientError),
}

impl TopicReader {
    /// A reader of `topic`.
    ///
    /// # Errors
    /// When the topic doesn't exist or the cluster doesn't answer.
    pub fn new(
        connection: &Connection,
        cluster: &Cluster,
        topic: &str,
        from: StartAt,
    ) -> Result<TopicReader, TopicReaderError> {
        let partitions = i32::try_from(cluster.require(topic)?).unwrap_or(i32::MAX);
        let all: Vec<PartitionId> = (0..partitions).map(PartitionId).collect();
        TopicReader::of_partitions(connection, cluster, topic, &all, from, i64::MAX)
    }

    /// A reader of these partitions, and of at most the last `records` offsets of each.
    ///
    /// # Errors
    /// When the topic doesn't exist or the cluster doesn't answer.
    pub fn of_partitions(
        connection: &Connection,
        cluster: &Cluster,
        topic: &str,
        partitions: &[PartitionId],
        from: StartAt,
        records: i64,
    ) -> Result<TopicReader, TopicReaderError> {
        let mut found = starts(cluster, topic, from)?;
        found.retain(|id, _| partitions.contains(id));
        for start in found.values_mut() {
            start.begin = start.begin.max(Offset(start.end.0.saturating_sub(records)));
        }
        let config = connection.reader("genwatch_reader", Isolation::Committed);
        let consumer = Consumer::new(&config, topic, thread::current())?;
        let unread = found.iter().filter(|(_, start)| start.begin < start.end);
        let open = unread.map(|(id, start)| (*id, start.end)).collect();
        let starts: Vec<_> = found.iter().map(|(id, start)| (*id, start.begin)).collect();
        consumer.add(&starts, &starts)?;
        let reached = starts.into_iter().collect();
        Ok(TopicReader { consumer, open, reached, outage: Outage::default(), probed: Instant::now() })
    }

    /// Continues to the end that the topic has now.
    ///
    /// # Errors
    /// When the cluster doesn't answer.
    pub fn extend(&mut self, cluster: &Cluster, topic: &str) -> Result<(), TopicReaderError> {
        for (partition, reached) in &self.reached {
            let (_, high) = cluster.watermarks(topic, *partition)?;
            if *reached < high {
                self.open.insert(*partition, high);
            }
        }
        Ok(())
    }

    /// Whether every partition has reached the end it had when the reader was created or extended.
    #[must_use]
    pub fn at_end(&self) -> bool {
        self.open.is_empty()
    }

    /// For a reader that follows: logs when an outage that [`TopicReader::read`] noticed is over, even if there is
    /// nothing to read.
    pub fn watch(&mut self, cluster: &Cluster) {
        if !self.outage.is_under_way() || self.probed.elapsed() < PROBE_INTERVAL {
            return;
        }
        self.probed = Instant::now();
        if cluster.client().fetch_metadata(Some("__genwatch_probe"), PROBE_INTERVAL / 2).is_ok() {
            self.outage.answered();
        }
    }

    /// Passes the available records to `each`; waits up to `wait` if there are none.
    ///
    /// # Errors
    /// With an error of `each`, or when the broker refuses.
    pub fn read<E: From<TopicReaderError>>(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(&Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for error in self.consumer.take_errors() {
            self.outage.error(Some(error.code), &error.to_string());
        }
        let batch = self.consumer.poll(usize::MAX);
        if batch.is_empty() {
            drop(batch);
            thread::park_timeout(wait);
            return Ok(());
        }
        for event in batch.events() {
            if !matches!(event, Event::Error(..)) {
                self.outage.answered();
            }
            let (partition, reached) = match event {
                Event::Record(record) => {
                    each(&record)?;
                    (record.partition, record.offset.next())
                }
                Event::End(partition, end) => (partition, end),
                Event::Error(_, error) if is_passing(error.code) => continue,
                Event::Error(_, error) => return Err(TopicReaderError::Client(error).into()),
            };
            self.reached.insert(partition, reached);
            if self.open.get(&partition).is_some_and(|end| reached >= *end) {
                self.open.remove(&partition);
            }
        }
        Ok(())
    }
}

/// Errors that librdkafka recovers from by itself, or that don't concern a reader without a group: librdkafka asks for
/// a coordinator all the same.
fn is_passing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::GroupAuthorizationFailed
    )
}
