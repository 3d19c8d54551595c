//! What a worker is told, what it tells, and why it may end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use genwatch_core::alarm::rules::Rules;
use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::restore::Fault;
use genwatch_core::engine::start::Policies;
use genwatch_core::pool::Bounds;
use genwatch_core::reading::bad_ratio;
use genwatch_core::types::PartitionId;
use genwatch_kafka::admin::ClusterError;
use genwatch_kafka::committer::CommitError;
use genwatch_kafka::config::{Connection, GroupProtocol};
use genwatch_kafka::error::ClientError;
use genwatch_kafka::restore::RestoreError;
use serde::Serialize;

use crate::fleet::FleetView;
use crate::service::MetricsError;

/// What a worker is told to do.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// The cluster.
    pub connection: Connection,
    /// The readings topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// The rules.
    pub rules: Rules,
    /// Forget generators that have been silent for so long, as if they were decommissioned; see
    /// [`Detector::forget_silent_after`](genwatch_core::alarm::detector::Detector::forget_silent_after).
    pub forget_silent_after: Option<Duration>,
    /// How many generators are worked at once.
    pub concurrency: usize,
    /// What each reading costs.
    pub work: Duration,
    /// What readings of single generators cost instead.
    pub work_of: HashMap<String, Duration>,
    /// The longest that a reading's work may take; what takes longer is cut short, and the reading evaluated without it.
    pub work_timeout: Option<Duration>,
    /// The promise about effects.
    pub delivery: Delivery,
    /// Between commits while only offsets move.
    pub commit_interval: Duration,
    /// How the group agrees.
    pub protocol: GroupProtocol,
    /// Records a second that this replica takes in at most.
    pub rate_limit: Option<u32>,
    /// End when every assigned partition has reached the end it had at the start.
    pub exit_at_end: bool,
    /// How long a partition that is given up may drain.
    pub drain_timeout: Duration,
    /// What to do when the committed offset isn't in the log, or the log is another.
    pub policies: Policies,
    /// Stop with an error when more of the records than this are bad.
    pub max_bad_ratio: Option<f64>,
    /// What the buffers may hold.
    pub bounds: Bounds,
    /// A name for logs and the fleet view.
    pub name: String,
    /// The live view of all workers in this process, if somebody watches.
    pub fleet: Option<Arc<FleetView>>,
}

/// What a worker has done, printed at its end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct WorkerSummary {
    /// Records whose effects and offsets are committed.
    pub records: u64,
    /// Alert events committed.
    pub alerts: u64,
    /// Dead letters committed.
    pub dlq: u64,
    /// From the first record received to the last commit.
    pub seconds: f64,
    /// `records / seconds`.
    pub records_per_second: f64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Changes of the assignment.
    pub rebalances: u64,
}

/// Why a worker ended that should have gone on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The cluster or a topic isn't as it must be.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A client couldn't be made.
    #[error("the Kafka client could not be made: {0}")]
    Client(#[from] ClientError),
    /// A mistake in the code.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// librdkafka refused a call.
    #[error("{what}: {error}")]
    Consumer {
        /// What was tried.
        what: &'static str,
        /// What was said.
        error: ClientError,
    },
    /// The group refuses us.
    #[error("not authorized for group {group}: ask for its ACL (read)")]
    GroupUnauthorized {
        /// The group.
        group: String,
    },
    /// A partition couldn't be worked.
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
         {topic}; look there for the reasons, mend the producer, start again",
        bad_ratio::WINDOW
    )]
    BadRatio {
        /// How many were bad.
        bad: u32,
        /// The dead letter queue.
        topic: String,
    },
    /// Effects can't be made durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}
