//! The worker's metrics, with the names of `docs/operations.md`. Written once a tick by the worker's thread, read by HTTP.

use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use genwatch_core::alarm::effect::Effect;
use genwatch_core::pool::Committed;
use genwatch_core::types::{Millis, PartitionId};

/// From a fast commit on loopback to an outage.
const COMMIT_BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0];
/// From a cache hit to a remote call that hangs.
const HANDLER_BUCKETS: [f64; 12] =
    [0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
/// From a commit's linger to a backlog of a day.
const END_TO_END_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0, 60.0, 600.0, 3600.0, 86400.0];

/// All metrics of one worker. Shared by the worker's thread, which writes, and HTTP, which reads.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `genwatch_records_total{partition}`
    pub records: IntCounterVec,
    /// `genwatch_alerts_total{rule,state}`: committed.
    pub alerts: IntCounterVec,
    /// `genwatch_dlq_total{code}`: committed.
    pub dead_letters: IntCounterVec,
    /// `genwatch_late_total{rule}`
    pub late: IntCounterVec,
    /// `genwatch_lag{partition}`: only owned partitions.
    pub lag: IntGaugeVec,
    /// `genwatch_in_flight`
    pub in_flight: IntGauge,
    /// `genwatch_generators`
    pub generators: IntGauge,
    /// `genwatch_commit_seconds`
    pub commit_seconds: Histogram,
    /// `genwatch_handler_seconds`
    pub handler_seconds: Histogram,
    /// `genwatch_work_timeouts_total`: readings whose work was cut short.
    pub work_timeouts: IntCounter,
    /// `genwatch_end_to_end_seconds`: record timestamp to committed offset.
    pub end_to_end_seconds: Histogram,
    /// `genwatch_alert_seconds`: timestamp of the deciding reading to the alert's commit, which needn't wait for the offset.
    pub alert_seconds: Histogram,
    /// `genwatch_rebalances_total`
    pub rebalances: IntCounter,
    /// `genwatch_restore_seconds`: the last restore.
    pub restore_seconds: Gauge,
    /// `genwatch_stalled{partition}`: 1 where there's lag and no progress, or no answer from the leader, for 30 s.
    pub stalled: GaugeVec,
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// When two metrics have one name: a mistake in this file.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let records = counters("genwatch_records_total", "Records taken in.", &["partition"])?;
        let alerts = counters("genwatch_alerts_total", "Alert events committed.", &["rule", "state"])?;
        let dead_letters = counters("genwatch_dlq_total", "Dead letters committed.", &["code"])?;
        let late =
            counters("genwatch_late_total", "Evaluations skipped as the reading was late.", &["rule"])?;
        let lag = IntGaugeVec::new(
            Opts::new("genwatch_lag", "Records from the committed offset to the end, of owned partitions."),
            &["partition"],
        )?;
        let in_flight = IntGauge::new("genwatch_in_flight", "Records taken in and not finished.")?;
        let generators = IntGauge::new(
            "genwatch_generators",
            "Generators of which a state is kept, or that were read in the last half minute.",
        )?;
        let commit_seconds = histogram("genwatch_commit_seconds", "Duration of a commit.", &COMMIT_BUCKETS)?;
        let handler_seconds = histogram(
            "genwatch_handler_seconds",
            "From the start of a reading's work to its end.",
            &HANDLER_BUCKETS,
        )?;
        let end_to_end_seconds = histogram(
            "genwatch_end_to_end_seconds",
            "From a record's timestamp to the commit of an offset behind it.",
            &END_TO_END_BUCKETS,
        )?;
        let alert_seconds = histogram(
            "genwatch_alert_seconds",
            "From the timestamp of the deciding reading to the commit of the alert.",
            &END_TO_END_BUCKETS,
        )?;
        let work_timeouts = IntCounter::new(
            "genwatch_work_timeouts_total",
            "Readings whose work was cut short by --work-timeout, and that were evaluated without it.",
        )?;
        let rebalances = IntCounter::new("genwatch_rebalances_total", "Changes of the assignment.")?;
        let restore_seconds =
            Gauge::new("genwatch_restore_seconds", "Duration of the last restore of alarm states.")?;
        let stalled = GaugeVec::new(
            Opts::new("genwatch_stalled", "1 where a partition has lag and made no progress for 30 s."),
            &["partition"],
        )?;
        registry.register(Box::new(lag.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(generators.clone()))?;
        registry.register(Box::new(work_timeouts.clone()))?;
        registry.register(Box::new(rebalances.clone()))?;
        registry.register(Box::new(restore_seconds.clone()))?;
        registry.register(Box::new(stalled.clone()))?;
        Ok(Metrics {
            registry,
            records,
            alerts,
            dead_letters,
            late,
            lag,
            in_flight,
            generators,
            commit_seconds,
            handler_seconds,
            work_timeouts,
            end_to_end_seconds,
            alert_seconds,
            rebalances,
            restore_seconds,
            stalled,
        })
    }

    /// Counts what a commit made durable.
    pub fn committed(&self, committed: &Committed, took: Duration, now: Millis) {
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
                match effect {
                    Effect::Alert(event) => {
                        self.alert_seconds.observe(now.since(event.at).max(0) as f64 / 1000.0);
                        self.alerts
                            .with_label_values(&[event.rule.name.as_str(), event.state.as_str()])
                            .inc();
                    }
                    Effect::DeadLetter(letter) => {
                        self.dead_letters.with_label_values(&[letter.error.code.as_str()]).inc();
                    }
                    Effect::State(_) => {}
                }
            }
        }
        end_to_end.flush();
    }

    /// The partition isn't ours any more: its gauges go, or two replicas would tell its lag.
    pub fn forget(&self, partition: PartitionId) {
        let label = partition.to_string();
        // An error means that it wasn't there.
        let _ = self.lag.remove_label_values(&[&label]);
        let _ = self.stalled.remove_label_values(&[&label]);
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        page(&self.registry)
    }
}

/// The page for Prometheus.
#[must_use]
pub fn page(registry: &Registry) -> String {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut text) {
        tracing::warn!(%error, "the metrics could not be rendered");
    }
    String::from_utf8(text).unwrap_or_default()
}
