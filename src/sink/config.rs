//! A sink's configuration, summary and errors.

use std::time::Duration;

use genwatch_core::engine::start::OnOutOfRange;
use genwatch_core::types::{Offset, PartitionId};
use genwatch_kafka::admin::ClusterError;
use genwatch_kafka::config::Connection;
use genwatch_kafka::error::ClientError;
use genwatch_kafka::forward::Undelivered;
use genwatch_kafka::subscriber::SubscriberError;
use serde::Serialize;

use super::store::StoreRefusal;
use crate::service::MetricsError;

/// A sink's configuration.
pub struct SinkConfig<S> {
    /// The cluster.
    pub connection: Connection,
    /// The sinks' own consumer group: the workers' group reads only readings, and commits with its effects.
    pub group: String,
    /// The topics; the first is the main one.
    pub topics: Vec<String>,
    /// The sink's name in its reports; unique in the group.
    pub name: String,
    /// The topic of its reports: `<group>_workers` of the workers' group.
    pub reports: String,
    /// The topic of records that a step of the transformations failed on; `None` if there are no steps.
    pub dead_letters: Option<String>,
    /// The store that their records go to.
    pub store: S,
    /// The most requests under way at once.
    pub connections: usize,
    /// The most records written together.
    pub batch: usize,
    /// How long a record waits for others.
    pub linger: Duration,
    /// Stops at the ends that the partitions had at the start.
    pub exit_at_end: bool,
    /// The reaction to records that retention deleted before they were read.
    pub on_out_of_range: OnOutOfRange,
}

/// A sink's results, printed at its end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SinkSummary {
    /// Records taken in.
    pub records: u64,
    /// Points that the store has acknowledged.
    pub points: u64,
    /// Records that made no point, or one that the store refused.
    pub skipped: u64,
    /// Records that a filter of `--transform` dropped.
    pub filtered: u64,
    /// Records that a step of `--transform` failed on, and that are in Kafka as dead letters.
    pub dead_letters: u64,
    /// Offsets that retention deleted before they were read.
    pub lost: u64,
    /// Write requests that were acknowledged.
    pub writes: u64,
    /// Write requests that had to be repeated.
    pub retries: u64,
    /// From the first record taken in to the last one written.
    pub seconds: f64,
}

/// Why a sink failed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The cluster or a topic doesn't meet the requirements.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The topics can't be read.
    #[error(transparent)]
    Subscriber(#[from] SubscriberError),
    /// The store refuses everything.
    #[error(transparent)]
    Refused(StoreRefusal),
    /// A dead letter can't be written.
    #[error("a record that a step of --transform failed on can't be written to the dead letters")]
    DeadLetter(#[source] Undelivered),
    /// The client for dead letters couldn't be created.
    #[error("cannot create the producer of dead letters")]
    Producer(#[source] ClientError),
    /// A mistake in the code.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Retention has overtaken the group, or a topic was recreated.
    #[error(
        "partition {partition} of {topic} was read up to offset {next}, but the log has {low} to {high}: records were \
         deleted before they were written, or the topic was recreated; pass --on-out-of-range earliest to continue \
         from offset {low}"
    )]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: PartitionId,
        /// The next record to read.
        next: Offset,
        /// The first offset in the log.
        low: Offset,
        /// The end of the log.
        high: Offset,
    },
    /// Written points could not be committed.
    #[error(
        "everything acknowledged is written, but Kafka did not take the offsets in time: the next sink writes the last \
         points again, which changes nothing"
    )]
    Commit,
    /// The system can't start a thread.
    #[error("a thread could not be started")]
    Thread(#[from] std::io::Error),
}

impl From<StoreRefusal> for SinkError {
    fn from(refusal: StoreRefusal) -> Self {
        SinkError::Refused(refusal)
    }
}
