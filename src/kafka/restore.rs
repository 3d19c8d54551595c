//! Where a partition starts, and the alarm states that moved with it.
//!
//! The order matters (KIP-447). A previous owner's last transaction writes its markers to the group's offsets and to the
//! state partition at different moments, so:
//! 1. the committed offset is taken first, `read_committed`: while a transaction on it is open, it is waited for;
//! 2. *then* the state partition's high watermark is taken, and the partition is read up to it, `read_committed`: while
//!    the last stable offset is below it, the reader waits.
//!
//! It runs on a thread of its own, so that the worker goes on polling; requests come by channel, answers too. An outage is
//! waited out, however long it is, unless the partitions have gone to somebody else meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::config::{Connection, Context, Isolation};
use super::consumer::{ClientError, CommittedOffset, Consumer, Event, Handle, Record};
use super::topics::Topics;
use crate::alarm::state::StoredState;
use crate::log::{GeneratorId, Offset, PartitionId};

/// An open transaction of a crashed owner ends after its timeout (10 s) plus the broker's check (10 s); beyond that somebody
/// should know.
const PATIENCE: Duration = Duration::from_secs(30);
/// Not long, since the leader that is asked may have died: then another has to be found.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What to do when the committed offset isn't in the log any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnOutOfRange {
    /// Stop with an error: readings were lost before they were worked.
    Fail,
    /// Go on with the earliest record there is, loudly.
    Earliest,
}

/// A partition that is ready to be worked.
#[derive(Debug)]
pub struct RestoredPartition {
    /// Its number.
    pub partition: PartitionId,
    /// The first offset to work.
    pub start: Offset,
    /// The end of the log at this moment.
    pub end: Offset,
    /// The alarm states of its generators.
    pub states: Vec<(GeneratorId, StoredState)>,
}

/// Answer to one request.
#[derive(Debug)]
pub struct Restored {
    /// The request's number.
    pub request: u64,
    /// The partitions, or why not.
    pub outcome: Result<Vec<RestoredPartition>, RestoreError>,
    /// How long it took.
    pub took: Duration,
}

/// Why partitions could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The broker didn't answer, or refused.
    #[error("the state of partitions could not be restored: {0}")]
    Kafka(String),
    /// Nobody waits for them any more.
    #[error("the partitions have gone to another replica meanwhile")]
    Unwanted,
    /// Retention has overtaken the group, or the topic was made anew.
    #[error(
        "partition {partition} of {topic} was committed up to offset {committed}, but the log has {low} to {high}: \
         readings were deleted before they were worked, or the topic was made anew; \
         pass --on-out-of-range earliest to go on from offset {low}"
    )]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: PartitionId,
        /// The committed offset.
        committed: Offset,
        /// The first offset in the log.
        low: Offset,
        /// The end of the log.
        high: Offset,
    },
    /// Somebody else's record.
    #[error(
        "offset {offset} of partition {partition} of {topic} is no alarm state ({reason}): \
         the topic must be written by genwatch alone"
    )]
    Foreign {
        /// The state topic.
        topic: String,
        /// The partition.
        partition: PartitionId,
        /// The record's offset.
        offset: Offset,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<KafkaError> for RestoreError {
    fn from(error: KafkaError) -> Self {
        RestoreError::Kafka(error.to_string())
    }
}

/// The requests that somebody waits for.
type Wanted = Arc<Mutex<BTreeSet<u64>>>;

/// The restorer's thread, and the way to it.
#[derive(Debug)]
pub struct Restorer {
    requests: Option<Sender<(u64, Vec<PartitionId>)>>,
    wanted: Wanted,
    answers: Receiver<Restored>,
    thread: Option<JoinHandle<()>>,
}

impl Restorer {
    /// Starts the thread. `waker` is unparked when an answer is there.
    ///
    /// # Errors
    /// When a client can't be made.
    pub fn start(
        connection: &Connection,
        group: &str,
        topics: &Topics,
        handle: Arc<Handle>,
        on_out_of_range: OnOutOfRange,
        waker: Thread,
    ) -> Result<Restorer, KafkaError> {
        let uncommitted =
            connection.reader(group, Isolation::Uncommitted).create_with_context(Context::default())?;
        let reader = connection.reader(group, Isolation::Committed);
        let topics = topics.clone();
        let (requests, incoming) = crossbeam_channel::unbounded::<(u64, Vec<PartitionId>)>();
        let (outgoing, answers) = crossbeam_channel::unbounded();
        let wanted = Wanted::default();
        let asked = Arc::clone(&wanted);
        let thread = std::thread::Builder::new().name("restorer".to_owned()).spawn(move || {
            // Made here, as it wakes the thread that polls it.
            let reader = Consumer::new(&reader, &topics.state, std::thread::current());
            let mut work = reader.map(|reader| Work {
                reader,
                uncommitted,
                handle,
                topics,
                on_out_of_range,
                wanted: asked,
                request: 0,
            });
            for (request, partitions) in incoming {
                let begun = Instant::now();
                let outcome = match &mut work {
                    Ok(work) => work.restore(request, &partitions),
                    Err(error) => Err(RestoreError::Kafka(error.to_string())),
                };
                if outgoing.send(Restored { request, outcome, took: begun.elapsed() }).is_err() {
                    return;
                }
                waker.unpark();
            }
        });
        let thread = thread.map_err(|error| KafkaError::ClientCreation(format!("no thread: {error}")))?;
        Ok(Restorer { requests: Some(requests), wanted, answers, thread: Some(thread) })
    }

    /// Asks for partitions.
    pub fn request(&self, request: u64, partitions: Vec<PartitionId>) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).insert(request);
        if let Some(requests) = &self.requests {
            // The receiver lives as long as the thread, which ends only after `requests` is dropped.
            let _ = requests.send((request, partitions));
        }
    }

    /// The partitions of this request aren't ours any more: it is to make way for the next one.
    pub fn cancel(&self, request: u64) {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).remove(&request);
    }

    /// An answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Option<Restored> {
        let answer = self.answers.try_recv().ok()?;
        self.cancel(answer.request);
        Some(answer)
    }
}

impl Drop for Restorer {
    fn drop(&mut self) {
        self.requests = None;
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Detached: a restore under way may wait for a broker, and nothing of it matters any more.
        drop(self.thread.take());
    }
}

struct Work {
    reader: Consumer,
    uncommitted: BaseConsumer<Context>,
    handle: Arc<Handle>,
    topics: Topics,
    on_out_of_range: OnOutOfRange,
    wanted: Wanted,
    /// The request under way.
    request: u64,
}

type States = BTreeMap<PartitionId, HashMap<GeneratorId, StoredState>>;

impl Work {
    fn restore(
        &mut self,
        request: u64,
        partitions: &[PartitionId],
    ) -> Result<Vec<RestoredPartition>, RestoreError> {
        self.request = request;
        let committed = self.committed_offsets(partitions)?;
        let mut restored = Vec::with_capacity(partitions.len());
        let mut spans = BTreeMap::new();
        for CommittedOffset { partition, offset, .. } in committed {
            let (start, end) = self.span_of(partition, offset)?;
            let (low, high) = self.watermarks(&self.topics.state, partition)?;
            if high > low {
                spans.insert(partition, (low, high));
            }
            restored.push(RestoredPartition { partition, start, end, states: Vec::new() });
        }
        let mut states = self.read_states(&spans)?;
        for partition in &mut restored {
            let states = states.remove(&partition.partition).unwrap_or_default();
            partition.states = states.into_iter().collect();
        }
        Ok(restored)
    }

    /// Step 1. Tried again while the group has no coordinator, or an offset is unstable.
    fn committed_offsets(&self, partitions: &[PartitionId]) -> Result<Vec<CommittedOffset>, RestoreError> {
        let mut waiting = Waiting::for_("committed offsets");
        loop {
            match self.handle.committed(partitions, REQUEST_TIMEOUT) {
                Ok(offsets) => return Ok(offsets),
                Err(error) if is_for_good(error.code) => {
                    return Err(RestoreError::Kafka(format!("no committed offsets: {error}")));
                }
                Err(error) => {
                    self.check_wanted()?;
                    waiting.goes_on(&error);
                    std::thread::sleep(RETRY_AFTER);
                }
            }
        }
    }

    fn check_wanted(&self) -> Result<(), RestoreError> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.contains(&self.request) { Ok(()) } else { Err(RestoreError::Unwanted) }
    }

    fn span_of(
        &self,
        partition: PartitionId,
        committed: Option<Offset>,
    ) -> Result<(Offset, Offset), RestoreError> {
        let (low, high) = self.watermarks(&self.topics.readings, partition)?;
        let Some(committed) = committed else {
            return Ok((low, high));
        };
        if (low..=high).contains(&committed) {
            return Ok((committed, high));
        }
        let topic = self.topics.readings.clone();
        match self.on_out_of_range {
            OnOutOfRange::Fail => Err(RestoreError::OutOfRange { topic, partition, committed, low, high }),
            OnOutOfRange::Earliest => {
                tracing::error!(%partition, %committed, %low, %high, "the committed offset is not in the log: going on from the earliest record");
                Ok((low, high))
            }
        }
    }

    /// First offset and high watermark, whatever transactions are open. Tried again while the partition has no leader.
    fn watermarks(&self, topic: &str, partition: PartitionId) -> Result<(Offset, Offset), RestoreError> {
        let mut waiting = Waiting::for_("watermarks");
        loop {
            match self.uncommitted.fetch_watermarks(topic, partition.0, REQUEST_TIMEOUT) {
                Ok((low, high)) => return Ok((Offset(low), Offset(high))),
                Err(error) if error.rdkafka_error_code().is_some_and(is_for_good) => {
                    return Err(RestoreError::Kafka(format!("no watermarks of {topic}: {error}")));
                }
                Err(error) => {
                    self.check_wanted()?;
                    waiting.goes_on(&error);
                    std::thread::sleep(RETRY_AFTER);
                    // librdkafka 2.12.1 takes "no leader", once it's in its cache, for final, and says "unknown partition"
                    // until somebody asks for metadata (rd_kafka_topic_partition_list_get_leaders): this client does nothing
                    // else that would.
                    if let Err(error) = self.uncommitted.fetch_metadata(Some(topic), REQUEST_TIMEOUT) {
                        tracing::debug!(%error, topic, "no metadata");
                    }
                }
            }
        }
    }

    /// Step 2: reads each partition of the state topic from its first offset up to its high watermark.
    fn read_states(
        &mut self,
        spans: &BTreeMap<PartitionId, (Offset, Offset)>,
    ) -> Result<States, RestoreError> {
        let mut states = States::new();
        if spans.is_empty() {
            return Ok(states);
        }
        let starts: Vec<_> = spans.iter().map(|(partition, (low, _))| (*partition, *low)).collect();
        let kafka = |error: ClientError| RestoreError::Kafka(error.to_string());
        self.reader.add(&starts).map_err(kafka)?;
        let outcome = self.read_up_to(spans, &mut states);
        self.reader.remove(&[]).map_err(kafka)?;
        outcome.map(|()| states)
    }

    fn read_up_to(
        &mut self,
        spans: &BTreeMap<PartitionId, (Offset, Offset)>,
        states: &mut States,
    ) -> Result<(), RestoreError> {
        let mut open: BTreeMap<PartitionId, Offset> =
            spans.iter().map(|(id, (_, high))| (*id, *high)).collect();
        let mut waiting = Waiting::for_("the end of transactions in the state topic");
        while !open.is_empty() {
            self.check_wanted()?;
            let batch = self.reader.poll(usize::MAX);
            if batch.is_empty() {
                drop(batch);
                waiting.goes_on(&"nothing comes");
                std::thread::park_timeout(Duration::from_millis(100));
                continue;
            }
            for event in batch.events() {
                let (partition, reached) = match event {
                    Event::Record(record) => {
                        apply(states.entry(record.partition).or_default(), &self.topics.state, &record)?;
                        (record.partition, record.offset.next())
                    }
                    // The end as a reader of committed records sees it: an open transaction keeps it below the high
                    // watermark, and another notice follows when it has ended.
                    Event::End(partition, end) => (partition, end),
                    Event::Error(_, error) if is_for_good(error.code) => {
                        return Err(RestoreError::Kafka(error.to_string()));
                    }
                    Event::Error(_, error) => {
                        tracing::debug!(%error, "reading the state topic is interrupted");
                        continue;
                    }
                };
                if open.get(&partition).is_some_and(|high| reached >= *high) {
                    open.remove(&partition);
                }
            }
        }
        Ok(())
    }
}

fn apply(
    states: &mut HashMap<GeneratorId, StoredState>,
    topic: &str,
    record: &Record<'_>,
) -> Result<(), RestoreError> {
    let foreign = |reason: String| RestoreError::Foreign {
        topic: topic.to_owned(),
        partition: record.partition,
        offset: record.offset,
        reason,
    };
    let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
    let generator = key.ok_or_else(|| foreign("its key is no generatorID".to_owned()))?;
    match record.value {
        None => {
            states.remove(generator);
        }
        Some(value) => {
            let state = StoredState::from_json(value).map_err(|error| foreign(error.to_string()))?;
            states.insert(GeneratorId::from(generator), state);
        }
    }
    Ok(())
}

/// Says now and then that something is waited for.
struct Waiting {
    what: &'static str,
    told: Instant,
}

impl Waiting {
    fn for_(what: &'static str) -> Waiting {
        Waiting { what, told: Instant::now() }
    }

    fn goes_on(&mut self, why: &dyn std::fmt::Display) {
        tracing::debug!(%why, "cannot get {} yet", self.what);
        if self.told.elapsed() > PATIENCE {
            self.told = Instant::now();
            tracing::warn!(%why, "partitions can't be started: still waiting for {}", self.what);
        }
    }
}

/// Errors that waiting doesn't mend.
fn is_for_good(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::Fatal
    )
}
