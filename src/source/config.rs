//! A source's configuration, summary and errors.

use std::sync::Arc;
use std::time::Duration;

use genwatch_core::transform::Transform;
use genwatch_kafka::admin::ClusterError;
use genwatch_kafka::config::Connection;
use genwatch_kafka::error::ClientError;
use genwatch_kafka::topic_reader::TopicReaderError;
use genwatch_kafka::transactions::TransactionFailure;
use serde::Serialize;

use super::cursor::StateError;
use super::influx::client::{QueryClient, Refused};
use super::time::Nanos;
use crate::service::MetricsError;
use crate::service::targets::TargetError;

/// A source's configuration.
pub struct SourceConfig {
    /// The cluster.
    pub connection: Connection,
    /// The group from which names derive.
    pub group: String,
    /// The source's name, which names its cursor.
    pub name: String,
    /// The topic that the rows go to.
    pub to_topic: String,
    /// If that is missing, it is created with as many partitions as this topic has; `None`: it must exist.
    pub create_like: Option<String>,
    /// What is changed of rows on the way.
    pub transform: Option<Arc<Transform>>,
    /// The topic of rows that a step fails on: `<to-topic>_dlq`. Needed only with `transform`.
    pub dead_letters: String,
    /// The group's own topics: no row may go there.
    pub own_topics: Vec<String>,
    /// The topic of cursors: `<group>_sources`.
    pub cursors: String,
    /// The process's name in its reports; unique in the group.
    pub worker: String,
    /// The topic of its reports: `<group>_workers`.
    pub reports: String,
    /// The database and its query.
    pub client: QueryClient,
    /// Interval of scans.
    pub every: Duration,
    /// How far behind the newest row each scan begins.
    pub rescan: Duration,
    /// What the bounds of ranges are multiples of.
    pub align: Option<Duration>,
    /// Where a source without a cursor begins.
    pub from: Nanos,
    /// Stops at the end that the data had at the start.
    pub exit_at_end: bool,
}

/// A source's results, printed at its end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SourceSummary {
    /// Rows produced and committed.
    pub rows: u64,
    /// Of these, older than the newest one before.
    pub late: u64,
    /// Of these, new versions of rows.
    pub corrections: u64,
    /// Rows found again and skipped.
    pub repeats: u64,
    /// Rows that a filter of `--transform` dropped.
    pub filtered: u64,
    /// Rows that a step of `--transform` failed on, and that are in Kafka as dead letters.
    pub dead_letters: u64,
    /// Queries answered completely.
    pub queries: u64,
    /// Queries and transactions that failed.
    pub errors: u64,
    /// Transactions committed.
    pub commits: u64,
    /// The time of the newest row that was ever produced, or where the source began.
    pub cursor: Nanos,
    /// From the first query to the last commit.
    pub seconds: f64,
}

/// Why a source failed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The cluster or a topic doesn't meet the requirements.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The cursors can't be read.
    #[error("the cursor can't be read")]
    Reader(#[from] TopicReaderError),
    /// A topic that a step of the transformations names.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is no topic for rows that a step fails on.
    #[error(
        "topic {topic} does not exist, and with --transform the rows that a step fails on go there: create it by \
         `genwatch topics create --topic {to_topic}`"
    )]
    NoDeadLetters {
        /// The missing topic.
        topic: String,
        /// The topic that the rows go to.
        to_topic: String,
    },
    /// A request failed.
    #[error("Kafka refuses")]
    Client(#[from] ClientError),
    /// The cursor is none.
    #[error(transparent)]
    State(#[from] StateError),
    /// Kafka takes no transaction.
    #[error(transparent)]
    Transaction(TransactionFailure),
    /// The database answers no question.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A newer process has the name.
    #[error(
        "another source with --name {name} has started, and only one may run: this one ends, and nothing is lost; give \
         sources with different queries different names"
    )]
    Replaced {
        /// The name.
        name: String,
    },
    /// The cursor was deleted.
    #[error(
        "topic {topic}, which has the cursor of {name}, was deleted or recreated: rows that are in the topic already \
         could be produced again; start the source with --from where it shall continue"
    )]
    CursorGone {
        /// The topic.
        topic: String,
        /// The source's name.
        name: String,
    },
    /// A mistake in the code.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The system can't start a thread.
    #[error("a thread could not be started")]
    Thread(#[from] std::io::Error),
}
