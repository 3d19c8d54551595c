//! A worker's configuration, summary and errors.

use std::sync::Arc;
use std::time::Duration;

use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::restore::Fault;
use genwatch_core::engine::start::{OnNewTopic, OnOutOfRange, Policies};
use genwatch_core::pool::Bounds;
use genwatch_core::reading::bad_ratio;
use genwatch_core::types::PartitionId;
use genwatch_kafka::admin::ClusterError;
use genwatch_kafka::commit::CommitError;
use genwatch_kafka::config::{Connection, GroupProtocol, worker_name};
use genwatch_kafka::error::ClientError;
use genwatch_kafka::restore::RestoreError;
use genwatch_kafka::topics::HandlerTopics;

use crate::fleet::FleetView;
use crate::service::MetricsError;

/// A worker's configuration, whatever it handles.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The cluster.
    pub connection: Connection,
    /// The topics.
    pub topics: HandlerTopics,
    /// The consumer group.
    pub group: String,
    /// The topic of reports.
    pub reports: String,
    /// The delivery guarantee of effects.
    pub delivery: Delivery,
    /// The time between commits while only offsets move, and the longest time for which a changed state isn't stored.
    pub commit_interval: Duration,
    /// The group protocol.
    pub protocol: GroupProtocol,
    /// Records a second that this worker takes in at most.
    pub rate_limit: Option<u32>,
    /// Ends when every assigned partition has reached the end it had at the start.
    pub exit_at_end: bool,
    /// How long a revoked partition may drain.
    pub drain_timeout: Duration,
    /// The reaction to a committed offset that isn't in the log, and to a different log.
    pub policies: Policies,
    /// Stops with an error when a larger share of the records is bad.
    pub max_bad_ratio: Option<f64>,
    /// Threads that take records in.
    pub threads: usize,
    /// The bounds of the buffers.
    pub bounds: Bounds,
    /// A name for logs, reports and the fleet view; unique in the group.
    pub name: String,
    /// The live view of all workers in this process, if there is one.
    pub fleet: Option<Arc<FleetView>>,
}

impl WorkerConfig {
    /// A worker of this group with the defaults of `genwatch worker`: exactly-once, commits each 100 ms, a drain of 20 s.
    #[must_use]
    pub fn new(connection: Connection, topics: HandlerTopics, group: &str) -> WorkerConfig {
        WorkerConfig {
            connection,
            topics,
            group: group.to_owned(),
            reports: format!("{group}_workers"),
            delivery: Delivery::ExactlyOnce,
            commit_interval: Duration::from_millis(100),
            protocol: GroupProtocol::Classic,
            rate_limit: None,
            exit_at_end: false,
            drain_timeout: Duration::from_secs(20),
            policies: Policies { on_out_of_range: OnOutOfRange::Fail, on_new_topic: OnNewTopic::Fail },
            max_bad_ratio: None,
            threads: 1,
            bounds: Bounds { records: 400_000, bytes: 64 << 20 },
            name: worker_name(),
            fleet: None,
        }
    }
}

/// A worker's results.
#[derive(Clone, Debug, Default)]
pub struct WorkerSummary {
    /// Records whose effects and offsets are committed.
    pub records: u64,
    /// Outputs committed: alert events, aggregates.
    pub outputs: u64,
    /// Dead letters committed.
    pub dlq: u64,
    /// Bad records left out, as they have no dead letter here.
    pub skipped: u64,
    /// What the handler has counted, by counter.
    pub counts: Vec<u64>,
    /// From the first record received to the last commit.
    pub seconds: f64,
    /// `records / seconds`.
    pub records_per_second: f64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Changes of the assignment.
    pub rebalances: u64,
}

/// Why a worker failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The cluster or a topic doesn't meet the requirements.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A client couldn't be created.
    #[error("the Kafka client could not be made")]
    Client(#[from] ClientError),
    /// A mistake in the code.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// librdkafka refused a call.
    #[error("{what}")]
    Consumer {
        /// What failed.
        what: &'static str,
        /// librdkafka's error.
        #[source]
        error: ClientError,
    },
    /// The group refuses us.
    #[error("not authorized for group {group}: ask for its ACL (read)")]
    GroupUnauthorized {
        /// The group.
        group: String,
    },
    /// A partition couldn't be processed.
    #[error("partition {partition} of {topic} {fault}")]
    Refused {
        /// The readings topic.
        topic: String,
        /// The partition.
        partition: PartitionId,
        /// Why.
        fault: Fault,
    },
    /// State couldn't be restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A producer is broken.
    #[error(
        "{bad} of {} records are bad, more than --max-bad-ratio allows: stopped, so that the topic isn't emptied into \
         {topic}; see the reasons there, fix the producer, start again",
        bad_ratio::WINDOW
    )]
    BadRatio {
        /// Number of bad records.
        bad: u32,
        /// The dead letter queue.
        topic: String,
    },
    /// Effects can't be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The system has no thread.
    #[error("the thread of the worker's reports could not be started")]
    Thread(#[from] std::io::Error),
}
