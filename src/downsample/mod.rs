//! `genwatch downsample`: a worker whose handler makes aggregates.
//!
//! Everything but what is here is the worker's ([`crate::worker`]) and the handler's ([`genwatch_core::aggregate`]):
//! the names of topics and group, the topics that it creates, metrics, the summary.

mod names;

use genwatch_core::aggregate::downsampler::{COUNTERS, Downsampler, PlacedAggregate};
use genwatch_core::report::Kind;
use genwatch_core::types::Millis;
use genwatch_kafka::admin::{Cluster, ClusterError, TopicPlan};
use genwatch_kafka::config::Connection;
use genwatch_kafka::topics::{HandlerTopics, Role};
use prometheus::{Histogram, IntCounterVec};
use serde::Serialize;

use crate::service::{Context, MetricsError, MetricsRegistry};
use crate::worker::work::NoWork;
use crate::worker::{Observed, WorkerConfig, WorkerError, WorkerSummary, run as run_worker};

pub use names::{WindowName, group_name, topics};

/// From a fast commit to a grace of a day.
const AGGREGATE_BUCKETS: [f64; 12] =
    [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 86_400.0];

/// Makes aggregates until a stop request, the end that was to be reached, or a failure. Creates a missing topic of
/// aggregates, and a missing state topic.
///
/// # Errors
/// With what a user must fix.
pub fn run(
    config: WorkerConfig,
    handler: Downsampler,
    context: Context,
) -> Result<DownsampleSummary, WorkerError> {
    create_output(&config.connection, &config.topics)?;
    run_worker(config, handler, NoWork, context).map(DownsampleSummary::from)
}

/// Creates the topic of aggregates if it is missing: `topics create` knows that of one-minute windows only.
fn create_output(connection: &Connection, topics: &HandlerTopics) -> Result<(), ClusterError> {
    let cluster = Cluster::connect(connection)?;
    let partitions = cluster.require(&topics.readings)?;
    if cluster.topic(&topics.output)?.is_none() {
        let plan =
            TopicPlan::like_its_cluster(&cluster, &topics.output, partitions, Role::Aggregates.config())?;
        if cluster.create(&plan)? {
            tracing::info!(topic = topics.output, partitions, "created the topic of aggregates");
        }
    }
    Ok(())
}

/// The metrics of aggregates.
#[derive(Clone, Debug)]
pub struct AggregateMetrics {
    /// `genwatch_aggregates_total{kind}`: committed.
    aggregates: IntCounterVec,
    /// `genwatch_late_readings_total{outcome}`
    late: IntCounterVec,
    /// `genwatch_aggregate_seconds`: end of the window to the commit of its first aggregate.
    seconds: Histogram,
}

impl Observed for Downsampler {
    type Metrics = AggregateMetrics;
    const KIND: Kind = Kind::Downsample;

    fn reported_output(topics: &HandlerTopics) -> Option<String> {
        Some(topics.output.clone())
    }

    fn register(&self, registry: &MetricsRegistry) -> Result<AggregateMetrics, MetricsError> {
        let metrics = AggregateMetrics {
            aggregates: registry.counters(
                "genwatch_aggregates_total",
                "Aggregates committed: of a closed window, or corrected by a late reading.",
                &["kind"],
            )?,
            late: registry.counters(
                "genwatch_late_readings_total",
                "Readings that came out of order: dropped as late, taken as a correction, or still in time.",
                &["outcome"],
            )?,
            seconds: registry.histogram(
                "genwatch_aggregate_seconds",
                "From the end of a window to the commit of its aggregate.",
                &AGGREGATE_BUCKETS,
            )?,
        };
        for kind in ["closed", "corrected"] {
            metrics.aggregates.with_label_values(&[kind]);
        }
        for outcome in COUNTERS {
            metrics.late.with_label_values(&[outcome]);
        }
        Ok(metrics)
    }

    fn committed(metrics: &AggregateMetrics, output: &PlacedAggregate, now: Millis) {
        let PlacedAggregate { aggregate, .. } = output;
        let kind = if aggregate.revision().is_some() { "corrected" } else { "closed" };
        metrics.aggregates.with_label_values(&[kind]).inc();
        if aggregate.revision().is_none() {
            metrics.seconds.observe(now.since(aggregate.end()).max(0) as f64 / 1000.0);
        }
    }

    fn counted(&self, metrics: &AggregateMetrics, counts: &[u64]) {
        for (outcome, count) in COUNTERS.iter().zip(counts) {
            metrics.late.with_label_values(&[outcome]).inc_by(*count);
        }
    }
}

/// What `genwatch downsample` prints at its end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DownsampleSummary {
    /// Records whose effects and offsets are committed.
    pub records: u64,
    /// Aggregates committed.
    pub aggregates: u64,
    /// Records left out because they are bad.
    pub skipped: u64,
    /// Late readings that were dropped.
    pub late_dropped: u64,
    /// Late readings that have corrected a window.
    pub late_corrected: u64,
    /// From the first record received to the last commit.
    pub seconds: f64,
    /// `records / seconds`.
    pub records_per_second: f64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Changes of the assignment.
    pub rebalances: u64,
}

impl From<WorkerSummary> for DownsampleSummary {
    fn from(summary: WorkerSummary) -> DownsampleSummary {
        let count = |index: usize| summary.counts.get(index).copied().unwrap_or_default();
        DownsampleSummary {
            records: summary.records,
            aggregates: summary.outputs,
            skipped: summary.skipped,
            late_dropped: count(0),
            late_corrected: count(1),
            seconds: summary.seconds,
            records_per_second: summary.records_per_second,
            commits: summary.commits,
            rebalances: summary.rebalances,
        }
    }
}
