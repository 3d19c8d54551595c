//! The worker's metrics, with the names of `docs/operations.md`. Written once a tick by the worker's thread, read by
//! HTTP.

use std::time::Duration;

use genwatch_core::handler::effect::Effect;
use genwatch_core::pool::Committed;
use genwatch_core::report::load::Load;
use genwatch_core::types::{Millis, PartitionId};
use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::service::{MetricsError, MetricsRegistry};

/// From a fast commit on loopback to an outage.
const COMMIT_BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0];
/// From a cache hit to a remote call that hangs.
const HANDLER_BUCKETS: [f64; 12] =
    [0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// From a commit's linger to a backlog of a day.
pub(super) const END_TO_END_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0, 60.0, 600.0, 3600.0, 86400.0];

/// All metrics of one worker. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct WorkerMetrics {
    /// `genwatch_records_total{partition}`
    pub(super) records: IntCounterVec,
    /// `genwatch_dlq_total{code}`: committed.
    pub(super) dead_letters: IntCounterVec,
    /// `genwatch_skipped_total{code}`: bad records that have no dead letter here.
    pub(super) skipped: IntCounterVec,
    /// `genwatch_lag{partition}`: only owned partitions.
    pub(super) lag: IntGaugeVec,
    /// `genwatch_in_flight`
    pub(super) in_flight: IntGauge,
    /// `genwatch_generators`
    pub(super) generators: IntGauge,
    /// `genwatch_commit_seconds`
    pub(super) commit_seconds: Histogram,
    /// `genwatch_handler_seconds`
    pub(super) handler_seconds: Histogram,
    /// `genwatch_work_timeouts_total`: readings whose work was cut short.
    pub(super) work_timeouts: IntCounter,
    /// `genwatch_end_to_end_seconds`: record timestamp to committed offset.
    pub(super) end_to_end_seconds: Histogram,
    /// `genwatch_rebalances_total`
    pub(super) rebalances: IntCounter,
    /// `genwatch_restore_seconds`: the last restore.
    pub(super) restore_seconds: Gauge,
    /// `genwatch_stalled{partition}`: 1 where there's lag and no progress, or no answer from the leader, for 30 s.
    pub(super) stalled: GaugeVec,
    /// `genwatch_loop_busy`, and below: see [`Load`].
    loop_busy: Gauge,
    /// `genwatch_lanes_busy`
    lanes_busy: Gauge,
    /// `genwatch_committing`
    committing: Gauge,
    /// `genwatch_full`
    full: Gauge,
    /// `genwatch_throttled{path}`
    throttled: GaugeVec,
    /// `genwatch_top_generator_share`
    top_generator_share: Gauge,
}

impl WorkerMetrics {
    /// Registers all metrics, at zero.
    pub(super) fn register(registry: &MetricsRegistry) -> Result<WorkerMetrics, MetricsError> {
        let partition = &["partition"];
        let metrics = WorkerMetrics {
            records: registry.counters("genwatch_records_total", "Records taken in.", partition)?,
            dead_letters: registry.counters("genwatch_dlq_total", "Dead letters committed.", &["code"])?,
            skipped: registry.counters(
                "genwatch_skipped_total",
                "Bad records left out, as another worker keeps them.",
                &["code"],
            )?,
            lag: registry.gauges(
                "genwatch_lag",
                "Records from the committed offset to the end, of owned partitions.",
                partition,
            )?,
            in_flight: registry.gauge("genwatch_in_flight", "Records taken in and not finished.")?,
            generators: registry.gauge(
                "genwatch_generators",
                "Generators with a state, or with a reading in the last 30 seconds.",
            )?,
            commit_seconds: registry.histogram(
                "genwatch_commit_seconds",
                "Duration of a commit.",
                &COMMIT_BUCKETS,
            )?,
            handler_seconds: registry.histogram(
                "genwatch_handler_seconds",
                "From the start of a reading's work to its end.",
                &HANDLER_BUCKETS,
            )?,
            work_timeouts: registry.counter(
                "genwatch_work_timeouts_total",
                "Readings whose work was cut short by --work-timeout, and that were evaluated without it.",
            )?,
            end_to_end_seconds: registry.histogram(
                "genwatch_end_to_end_seconds",
                "From a record's timestamp to the commit of an offset behind it.",
                &END_TO_END_BUCKETS,
            )?,
            rebalances: registry.counter("genwatch_rebalances_total", "Changes of the assignment.")?,
            restore_seconds: registry
                .float_gauge("genwatch_restore_seconds", "Duration of the last restore of states.")?,
            stalled: registry.float_gauges(
                "genwatch_stalled",
                "1 where a partition has lag and made no progress for 30 s.",
                partition,
            )?,
            loop_busy: registry.float_gauge(
                "genwatch_loop_busy",
                "Share of time in which the worker's loop was at work.",
            )?,
            lanes_busy: registry.float_gauge(
                "genwatch_lanes_busy",
                "Share of the lanes' time in which work was under way; 0 without work.",
            )?,
            committing: registry
                .float_gauge("genwatch_committing", "Share of time in which a commit was under way.")?,
            full: registry.float_gauge(
                "genwatch_full",
                "Share of time in which a partition was paused: unfinished records or effects filled its room.",
            )?,
            throttled: registry.float_gauges(
                "genwatch_throttled",
                "Share of time for which a broker's quota delayed the worker.",
                &["path"],
            )?,
            top_generator_share: registry.float_gauge(
                "genwatch_top_generator_share",
                "Estimated share of the worker's records that its fullest generator has; 0 below 1 %.",
            )?,
        };
        metrics.loaded(&Load::default());
        Ok(metrics)
    }

    /// Shows the load of the last second.
    pub(super) fn loaded(&self, load: &Load) {
        self.loop_busy.set(load.loop_busy);
        self.lanes_busy.set(load.lanes_busy);
        self.committing.set(load.committing);
        self.full.set(load.full);
        self.throttled.with_label_values(&["fetch"]).set(load.fetch_throttled);
        self.throttled.with_label_values(&["produce"]).set(load.produce_throttled);
        self.top_generator_share.set(load.top.first().map_or(0.0, |top| top.share));
    }

    /// Counts what a commit made durable.
    pub(super) fn committed<O>(&self, committed: &Committed<O>, took: Duration, now: Millis) {
        self.commit_seconds.observe(took.as_secs_f64());
        let end_to_end = self.end_to_end_seconds.local();
        for part in &committed.parts {
            for (at, records) in &part.times {
                let seconds = now.since(*at).max(0) as f64 / 1000.0;
                for _ in 0..*records {
                    end_to_end.observe(seconds);
                }
            }
            for effect in part.effects.iter().flat_map(|chunk| chunk.iter()) {
                if let Effect::DeadLetter(letter) = effect {
                    self.dead_letters.with_label_values(&[letter.error.code.as_str()]).inc();
                }
            }
        }
        end_to_end.flush();
    }

    /// Removes the gauges of a partition that isn't ours any more; otherwise two workers would report its lag.
    pub(super) fn forget(&self, partition: PartitionId) {
        let label = partition.to_string();
        // An error means that it wasn't there.
        let _ = self.lag.remove_label_values(&[&label]);
        let _ = self.stalled.remove_label_values(&[&label]);
    }
}
