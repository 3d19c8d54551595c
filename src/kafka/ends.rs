//! Where partitions end right now, for deadman rules: a generator is silent only if nothing of it waits in the log.
//!
//! The end that the last fetch saw won't do. While a broker can't be reached it stays as it is, and the readings that
//! wait behind it would be taken for silence. So the leaders are asked, on a thread of their own, and where they don't
//! answer nothing is known.

use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;

use super::config::{Connection, Context, Isolation};
use crate::clock::now;
use crate::log::{Millis, Offset, PartitionId};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The ends of some partitions: of those whose leader answered.
pub type Ends = Vec<(PartitionId, Offset)>;

/// The thread that asks, and the way to it.
#[derive(Debug)]
pub struct EndWatch {
    questions: Option<Sender<Vec<PartitionId>>>,
    answers: Receiver<Ends>,
    /// When the question under way was asked: the next one would only queue behind it.
    asking: Option<Millis>,
    thread: Option<JoinHandle<()>>,
}

impl EndWatch {
    /// Starts the thread. `waker` is unparked when an answer is there.
    ///
    /// # Errors
    /// When the client or the thread can't be made.
    pub fn start(
        connection: &Connection,
        group: &str,
        topic: &str,
        waker: Thread,
    ) -> Result<EndWatch, KafkaError> {
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
        let thread = thread.map_err(|error| KafkaError::ClientCreation(format!("no thread: {error}")))?;
        Ok(EndWatch { questions: Some(questions), answers, asking: None, thread: Some(thread) })
    }

    /// Asks for the ends of these partitions, unless the last question is still open.
    pub fn ask(&mut self, partitions: Vec<PartitionId>) {
        if let Some(questions) =
            self.questions.as_ref().filter(|_| self.asking.is_none() && !partitions.is_empty())
        {
            // The receiver lives as long as the thread, which ends only after `questions` is dropped.
            self.asking = questions.send(partitions).is_ok().then(now);
        }
    }

    /// The answer, if there is one, and when the question was asked.
    #[must_use]
    pub fn answer(&mut self) -> Option<(Millis, Ends)> {
        let ends = self.answers.try_recv().ok()?;
        Some((self.asking.take()?, ends))
    }
}

impl Drop for EndWatch {
    fn drop(&mut self) {
        self.questions = None;
        // Detached: a question under way may wait for a broker, and nobody needs the answer any more.
        drop(self.thread.take());
    }
}

fn ask(client: &BaseConsumer<Context>, topic: &str, partitions: &[PartitionId]) -> Ends {
    let mut ends = Ends::with_capacity(partitions.len());
    for partition in partitions {
        match client.fetch_watermarks(topic, partition.0, REQUEST_TIMEOUT) {
            Ok((_, high)) => ends.push((*partition, Offset(high))),
            Err(error) => {
                tracing::debug!(%error, topic, %partition, "cannot fetch the high watermark of a partition");
                // As in `restore`: librdkafka takes "no leader", once in its cache, for final until asked for metadata.
                if client.fetch_metadata(Some(topic), REQUEST_TIMEOUT).is_err() {
                    break;
                }
            }
        }
    }
    ends
}
