//! The bridge's metrics. The bridge writes them once per loop, HTTP reads them.

use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::summary::{BridgeSummary, DropReason};
use crate::service::{MetricsError, MetricsRegistry};

/// All metrics of a bridge.
#[derive(Debug)]
pub(super) struct BridgeMetrics {
    readings: IntCounter,
    statuses: IntCounter,
    repeats: IntCounter,
    of_others: IntCounter,
    dropped: IntCounter,
    filtered: IntCounter,
    dead_letters: IntCounter,
    failed_by: IntCounterVec,
    dropped_by: [(DropReason, IntCounter); DropReason::ALL.len()],
    sessions_lost: IntCounter,
    unacknowledged: IntGauge,
    connected: IntGauge,
}

impl BridgeMetrics {
    /// Returns metrics that are all zero.
    pub(super) fn register(registry: &MetricsRegistry) -> Result<BridgeMetrics, MetricsError> {
        let messages = registry.counters(
            "genwatch_bridge_messages_total",
            "Messages by MQTT: readings, statuses and dead letters that Kafka has, repeats of what was forwarded, \
             generators of other bridges, left out, filtered by --transform",
            &["outcome"],
        )?;
        let unacknowledged = registry.gauge(
            "genwatch_bridge_unacknowledged",
            "Messages not yet acknowledged to the MQTT broker, as Kafka doesn't have them yet",
        )?;
        let dropped = registry.counters(
            "genwatch_bridge_dropped_total",
            "Messages by MQTT that were left out, by reason",
            &["reason"],
        )?;
        let failed_by = registry.counters(
            "genwatch_bridge_transform_failures_total",
            "Messages by MQTT that a step of --transform failed on, by number and kind of the step",
            &["step"],
        )?;
        let sessions_lost = registry.counter(
            "genwatch_bridge_sessions_lost_total",
            "How often the MQTT broker had forgotten the bridge's session: what it held is lost",
        )?;
        let connected = registry.gauge(
            "genwatch_bridge_connected",
            "1: there is a connection to the MQTT broker, as far as is known: while the bridge holds as much as it may \
             (Kafka takes nothing), it neither reads nor pings, and the broker may have closed it",
        )?;
        let of = |outcome| messages.with_label_values(&[outcome]);
        Ok(BridgeMetrics {
            readings: of("reading"),
            statuses: of("status"),
            repeats: of("repeat"),
            of_others: of("other_share"),
            dropped: of("dropped"),
            filtered: of("filtered"),
            dead_letters: of("dead_letter"),
            failed_by,
            dropped_by: DropReason::ALL.map(|reason| (reason, dropped.with_label_values(&[reason.as_str()]))),
            sessions_lost,
            unacknowledged,
            connected,
        })
    }

    /// Copies the bridge's counts and state into the metrics.
    pub(super) fn observe(&self, summary: &BridgeSummary, unacknowledged: usize, connected: bool) {
        let dropped_by = self
            .dropped_by
            .iter()
            .map(|(reason, counter)| (counter, summary.dropped_by.get(reason).copied().unwrap_or(0)));
        for (counter, value) in dropped_by.chain([
            (&self.readings, summary.readings),
            (&self.statuses, summary.statuses),
            (&self.repeats, summary.repeats),
            (&self.of_others, summary.of_others),
            (&self.dropped, summary.dropped),
            (&self.filtered, summary.filtered),
            (&self.dead_letters, summary.dead_letters),
            (&self.sessions_lost, summary.sessions_lost),
        ]) {
            counter.inc_by(value.saturating_sub(counter.get()));
        }
        for (step, value) in &summary.failed_by {
            let counter = self.failed_by.with_label_values(&[step]);
            counter.inc_by(value.saturating_sub(counter.get()));
        }
        self.unacknowledged.set(i64::try_from(unacknowledged).unwrap_or(i64::MAX));
        self.connected.set(connected.into());
    }
}
