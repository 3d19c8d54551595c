//! The alarm detector as a worker: its metrics and its summary.

use genwatch_core::alarm::detector::Detector;
use genwatch_core::alarm::event::AlertEvent;
use genwatch_core::types::Millis;
use prometheus::{Histogram, IntCounterVec};
use serde::Serialize;

use super::metrics::END_TO_END_BUCKETS;
use super::{Observed, WorkerSummary};
use crate::service::{MetricsError, MetricsRegistry};

/// The metrics of alarms.
#[derive(Clone, Debug)]
pub struct AlarmMetrics {
    /// `genwatch_alerts_total{rule,state}`: committed.
    alerts: IntCounterVec,
    /// `genwatch_late_total{rule}`
    late: IntCounterVec,
    /// `genwatch_alert_seconds`: timestamp of the deciding reading to the alert's commit; the offset may follow.
    alert_seconds: Histogram,
}

impl Observed for Detector {
    type Metrics = AlarmMetrics;

    fn register(&self, registry: &MetricsRegistry) -> Result<AlarmMetrics, MetricsError> {
        Ok(AlarmMetrics {
            alerts: registry.counters(
                "genwatch_alerts_total",
                "Alert events committed.",
                &["rule", "state"],
            )?,
            late: registry.counters(
                "genwatch_late_total",
                "Evaluations skipped because the reading was late.",
                &["rule"],
            )?,
            alert_seconds: registry.histogram(
                "genwatch_alert_seconds",
                "From the timestamp of the deciding reading to the commit of the alert.",
                &END_TO_END_BUCKETS,
            )?,
        })
    }

    fn committed(metrics: &AlarmMetrics, event: &Box<AlertEvent>, now: Millis) {
        metrics.alert_seconds.observe(now.since(event.at).max(0) as f64 / 1000.0);
        metrics.alerts.with_label_values(&[event.rule.name.as_str(), event.kind.as_str()]).inc();
    }

    fn counted(&self, metrics: &AlarmMetrics, counts: &[u64]) {
        for (rule, late) in self.rules().as_slice().iter().zip(counts) {
            metrics.late.with_label_values(&[&rule.name]).inc_by(*late);
        }
    }
}

/// What `genwatch worker` prints at its end.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AlarmSummary {
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

impl From<WorkerSummary> for AlarmSummary {
    fn from(summary: WorkerSummary) -> AlarmSummary {
        let WorkerSummary { records, outputs, dlq, seconds, records_per_second, commits, rebalances, .. } =
            summary;
        AlarmSummary { records, alerts: outputs, dlq, seconds, records_per_second, commits, rebalances }
    }
}
