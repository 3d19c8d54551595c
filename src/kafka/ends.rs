//! Where partitions end right now, for deadman rules: a generator is silent only if nothing of it waits in the log.
//!
//! The end that the last fetch saw won't do. While a broker can't be reached it stays as it is, and the readings that
//! wait behind it would be taken for silence. So the leaders are asked, and where they don't answer nothing is known.

use std::thread::Thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;

use super::asker::Asker;
use super::config::{Connection, Context, Isolation};
use crate::log::{Offset, PartitionId};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Asked for partitions, answers with the ends of those whose leader answered.
pub type EndWatch = Asker<Vec<PartitionId>, Vec<(PartitionId, Offset)>>;

/// Starts it for one topic. `waker` is unparked when an answer is there.
///
/// # Errors
/// When the client or the thread can't be made.
pub fn watch(
    connection: &Connection,
    group: &str,
    topic: &str,
    waker: Thread,
) -> Result<EndWatch, KafkaError> {
    let client: BaseConsumer<Context> =
        connection.reader(group, Isolation::Uncommitted).create_with_context(Context::default())?;
    let topic = topic.to_owned();
    Asker::start("ends", waker, move |partitions: Vec<PartitionId>| ends(&client, &topic, &partitions))
}

fn ends(
    client: &BaseConsumer<Context>,
    topic: &str,
    partitions: &[PartitionId],
) -> Vec<(PartitionId, Offset)> {
    let mut ends = Vec::with_capacity(partitions.len());
    for partition in partitions {
        match client.fetch_watermarks(topic, partition.0, REQUEST_TIMEOUT) {
            Ok((_, high)) => ends.push((*partition, Offset(high))),
            Err(error) => {
                tracing::debug!(%error, topic, %partition, "the end of a partition is not to be had");
                // As in `restore`: librdkafka takes "no leader", once in its cache, for final until asked for metadata.
                if client.fetch_metadata(Some(topic), REQUEST_TIMEOUT).is_err() {
                    break;
                }
            }
        }
    }
    ends
}
