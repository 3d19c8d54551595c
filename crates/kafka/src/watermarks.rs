//! Where partitions end right now, as their leaders say: for the watchdogs, and for deadman rules, as a generator is silent only if
//! nothing of it waits in the log.
//!
//! The end that the last fetch saw won't do. While a leader can't be reached it stays as it is; no lag would be seen, and the readings
//! that wait behind it would be taken for silence. So the leaders are asked, on a thread of their own, and where one doesn't
//! answer nothing is known.

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

/// The ends of some partitions: of those whose leader answered.
pub type HighWatermarks = Vec<(PartitionId, Offset)>;

/// The thread that asks, and the way to it.
#[derive(Debug)]
pub struct WatermarkQuery {
    questions: Option<Sender<Vec<PartitionId>>>,
    answers: Receiver<HighWatermarks>,
    /// When the question under way was asked: the next one would only queue behind it.
    asking: Option<Now>,
    thread: Option<JoinHandle<()>>,
}

impl WatermarkQuery {
    /// Starts the thread. `waker` is unparked when an answer is there.
    ///
    /// # Errors
    /// When the client or the thread can't be made.
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

    /// Asks for the ends of these partitions, unless the last question is still open.
    pub fn ask(&mut self, partitions: Vec<PartitionId>) {
        if let Some(questions) =
            self.questions.as_ref().filter(|_| self.asking.is_none() && !partitions.is_empty())
        {
            // The receiver lives as long as the thread, which ends only after `questions` is dropped.
            self.asking = questions.send(partitions).is_ok().then(both);
        }
    }

    /// The answer, if there is one, and when the question was asked.
    #[must_use]
    pub fn answer(&mut self) -> Option<(Now, HighWatermarks)> {
        let ends = self.answers.try_recv().ok()?;
        Some((self.asking.take()?, ends))
    }
}

impl Drop for WatermarkQuery {
    fn drop(&mut self) {
        self.questions = None;
        // Detached: a question under way may wait for a broker, and nobody needs the answer any more.
        drop(self.thread.take());
    }
}

/// One question to each leader.
fn ask(client: &BaseConsumer<Context>, topic: &str, partitions: &[PartitionId]) -> HighWatermarks {
    // librdkafka takes "no leader", once in its cache, for final until asked for metadata.
    let Ok(metadata) = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT) else {
        return HighWatermarks::new();
    };
    let known = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let mut by_leader: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in known.filter(|known| partitions.contains(&PartitionId(known.id()))) {
        by_leader.entry(partition.leader()).or_default().push(partition.id());
    }
    let mut ends = HighWatermarks::with_capacity(partitions.len());
    for (leader, ids) in by_leader {
        let mut list = TopicPartitionList::with_capacity(ids.len());
        for id in ids {
            // In the place of a time: the end.
            let _ = list.add_partition_offset(topic, id, KafkaOffset::End);
        }
        match client.offsets_for_times(list, REQUEST_TIMEOUT) {
            Ok(answer) => {
                ends.extend(answer.elements().iter().filter_map(|element| match element.offset() {
                    KafkaOffset::Offset(end) if element.error().is_ok() => {
                        Some((PartitionId(element.partition()), Offset(end)))
                    }
                    _ => None,
                }))
            }
            Err(error) => {
                tracing::debug!(%error, topic, leader, "a leader doesn't tell where its partitions end")
            }
        }
    }
    ends
}
