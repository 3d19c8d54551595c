//! High watermarks of partitions, as their leaders report them: for the watchdogs, and for deadman rules, as a
//! generator is silent only if none of its readings waits in the log.
//!
//! The one that the last fetch saw won't do: it freezes while the leader is unreachable, so no lag would show, and the
//! readings that wait behind it would count as silence. So a thread asks the leaders; if one doesn't answer, nothing is
//! known.

use std::collections::BTreeMap;
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use genwatch_core::types::{Now, Offset, PartitionId};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::config::{Connection, Context, Isolation};
use super::error::ClientError;
use crate::clock::both;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// High watermarks of the partitions whose leader answered.
pub type HighWatermarks = Vec<(PartitionId, Offset)>;

/// The thread that asks, and its channels.
#[derive(Debug)]
pub struct WatermarkQuery {
    questions: Option<Sender<Vec<PartitionId>>>,
    answers: Receiver<HighWatermarks>,
    /// When the open question was asked: another one would only queue behind it.
    asking: Option<Now>,
    thread: Option<JoinHandle<()>>,
}

impl WatermarkQuery {
    /// Starts the thread, which unparks `waker` when an answer is there.
    ///
    /// # Errors
    /// When the client or the thread can't be created.
    pub fn start(
        connection: &Connection,
        group: &str,
        topic: &str,
        waker: Thread,
    ) -> Result<WatermarkQuery, ClientError> {
        let client: BaseConsumer<Context> =
            connection.reader(group, Isolation::Uncommitted).create_with_context(Context::default())?;
        let topic = topic.to_owned();
        let (questions, incoming) = crossbeam_channel::unbounded::<Vec<PartitionId>>();
        let (outgoing, answers) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new().name("ends".to_owned()).spawn(move || {
            for partitions in incoming {
                if outgoing.send(ask(&client, &topic, &partitions)).is_err() {
                    return;
                }
                waker.unpark();
            }
        });
        let thread = thread.map_err(|error| ClientError::of_ours(format!("no thread: {error}")))?;
        Ok(WatermarkQuery { questions: Some(questions), answers, asking: None, thread: Some(thread) })
    }

    /// Asks for the high watermarks of these partitions, unless the last question is still open.
    pub fn ask(&mut self, partitions: Vec<PartitionId>) {
        if let Some(questions) =
            self.questions.as_ref().filter(|_| self.asking.is_none() && !partitions.is_empty())
        {
            // The receiver lives as long as the thread, which ends only after `questions` is dropped.
            self.asking = questions.send(partitions).is_ok().then(both);
        }
    }

    /// Returns the answer, if there is one, and when the question was asked.
    #[must_use]
    pub fn answer(&mut self) -> Option<(Now, HighWatermarks)> {
        let ends = self.answers.try_recv().ok()?;
        Some((self.asking.take()?, ends))
    }
}

impl Drop for WatermarkQuery {
    fn drop(&mut self) {
        self.questions = None;
        // Detached: an open question may wait for a broker, and nobody needs the answer any more.
        drop(self.thread.take());
    }
}

/// Asks each leader once.
fn ask(client: &BaseConsumer<Context>, topic: &str, partitions: &[PartitionId]) -> HighWatermarks {
    list_offsets(client, topic, |id| partitions.contains(&id), KafkaOffset::End, REQUEST_TIMEOUT)
}

/// Returns the offset of each partition at this time, or its beginning or end, by one request per leader. Omits those
/// whose leader doesn't answer, and those without a record at or after the time.
pub(crate) fn list_offsets(
    client: &BaseConsumer<Context>,
    topic: &str,
    wanted: impl Fn(PartitionId) -> bool,
    at: KafkaOffset,
    timeout: Duration,
) -> Vec<(PartitionId, Offset)> {
    // librdkafka treats a cached "no leader" as final until metadata is requested.
    let Ok(metadata) = client.fetch_metadata(Some(topic), timeout) else {
        return Vec::new();
    };
    let known = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in known.filter(|known| wanted(PartitionId(known.id()))) {
        by_leader.entry(partition.leader()).or_default().push(partition.id());
    }
    let mut offsets = Vec::new();
    for (leader, ids) in by_leader {
        let mut list = TopicPartitionList::with_capacity(ids.len());
        for id in ids {
            // A beginning or an end goes in the place of the time.
            let _ = list.add_partition_offset(topic, id, at);
        }
        match client.offsets_for_times(list, timeout) {
            Ok(answer) => {
                offsets.extend(answer.elements().iter().filter_map(|element| match element.offset() {
                    KafkaOffset::Offset(offset) if element.error().is_ok() => {
                        Some((PartitionId(element.partition()), Offset(offset)))
                    }
                    _ => None,
                }))
            }
            Err(error) => tracing::debug!(%error, topic, leader, "a leader does not report its offsets"),
        }
    }
    offsets
}
