//! Where a topic begins and ends, and where to begin reading it: one request per leader, however many partitions there
//! are.

use std::collections::BTreeMap;
use std::time::Duration;

use genwatch_core::types::{Millis, Offset, PartitionId};
use rdkafka::Offset as KafkaOffset;

use super::admin::{Cluster, ClusterError};
use super::error::ClientError;
use super::topic_reader::TopicReaderError;
use super::watermarks::list_offsets;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record.
    Beginning,
    /// At what is written from now on.
    Now,
    /// At the first record with this timestamp or a later one.
    Time(Millis),
}

/// Where to begin in one partition, and where it ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The offset to begin at.
    pub begin: Offset,
    /// The end of the log.
    pub end: Offset,
}

/// Returns where to begin in each partition. An embedded broker finds no times: there a time is the
/// beginning.
///
/// # Errors
/// When the topic doesn't exist or a leader doesn't answer.
pub fn starts(
    cluster: &Cluster,
    topic: &str,
    from: StartAt,
) -> Result<BTreeMap<PartitionId, Start>, TopicReaderError> {
    let bounds = bounds::<TopicReaderError>(cluster, topic)?;
    let at_time: Option<BTreeMap<_, _>> = match from {
        StartAt::Time(at) if !cluster.is_embedded() => {
            let at = KafkaOffset::Offset(at.0.max(0));
            Some(list_offsets(cluster.client(), topic, |_| true, at, REQUEST_TIMEOUT).into_iter().collect())
        }
        _ => None,
    };
    let start = |(id, (first, end))| {
        let begin = match (from, &at_time) {
            (StartAt::Now, _) => end,
            // All records are older.
            (StartAt::Time(_), Some(found)) => found.get(&id).copied().unwrap_or(end),
            (StartAt::Time(_), None) | (StartAt::Beginning, _) => first,
        };
        (id, Start { begin, end })
    };
    Ok(bounds.into_iter().map(start).collect())
}

/// Returns the first offset of each partition of a topic, and its end.
///
/// # Errors
/// When the topic doesn't exist or a leader doesn't answer.
pub(crate) fn bounds<E: From<ClusterError> + From<ClientError>>(
    cluster: &Cluster,
    topic: &str,
) -> Result<BTreeMap<PartitionId, (Offset, Offset)>, E> {
    let partitions = cluster.require(topic)?;
    let ask = |at| -> BTreeMap<PartitionId, Offset> {
        list_offsets(cluster.client(), topic, |_| true, at, REQUEST_TIMEOUT).into_iter().collect()
    };
    let (firsts, ends) = (ask(KafkaOffset::Beginning), ask(KafkaOffset::End));
    let mut bounds = BTreeMap::new();
    for id in (0..i32::try_from(partitions).unwrap_or(i32::MAX)).map(PartitionId) {
        let of_one = match (firsts.get(&id), ends.get(&id)) {
            (Some(first), Some(end)) => (*first, *end),
            // Its leader didn't answer: this names the reason, or succeeds now.
            _ => cluster.watermarks(topic, id)?,
        };
        bounds.insert(id, of_one);
    }
    Ok(bounds)
}
