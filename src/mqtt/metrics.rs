//! The bridge's metrics. Written once a turn by the bridge, read by HTTP.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::bridge::Summary;

/// All metrics of a bridge.
#[derive(Debug)]
pub struct BridgeMetrics {
    registry: Registry,
    readings: IntCounter,
    statuses: IntCounter,
    repeats: IntCounter,
    dropped: IntCounter,
    unacknowledged: IntGauge,
    connected: IntGauge,
}

impl BridgeMetrics {
    /// Registers them.
    ///
    /// # Errors
    /// When a name is taken, which would be a bug.
    pub fn new() -> prometheus::Result<BridgeMetrics> {
        let registry = Registry::new();
        let help =
            "Messages by MQTT: forwarded as readings or as statuses, repeats of what was forwarded, left out";
        let messages = IntCounterVec::new(Opts::new("genwatch_bridge_messages_total", help), &["outcome"])?;
        let unacknowledged = IntGauge::new(
            "genwatch_bridge_unacknowledged",
            "Messages that the MQTT broker has no acknowledgement for, as Kafka doesn't have them yet",
        )?;
        let connected =
            IntGauge::new("genwatch_bridge_connected", "1: there is a connection to the MQTT broker")?;
        registry.register(Box::new(messages.clone()))?;
        registry.register(Box::new(unacknowledged.clone()))?;
        registry.register(Box::new(connected.clone()))?;
        let of = |outcome| messages.with_label_values(&[outcome]);
        Ok(BridgeMetrics {
            readings: of("reading"),
            statuses: of("status"),
            repeats: of("repeat"),
            dropped: of("dropped"),
            unacknowledged,
            connected,
            registry,
        })
    }

    /// What the bridge has done, and how it stands.
    pub(super) fn observe(&self, summary: &Summary, unacknowledged: usize, connected: bool) {
        for (counter, value) in [
            (&self.readings, summary.readings),
            (&self.statuses, summary.statuses),
            (&self.repeats, summary.repeats),
            (&self.dropped, summary.dropped),
        ] {
            counter.inc_by(value.saturating_sub(counter.get()));
        }
        self.unacknowledged.set(i64::try_from(unacknowledged).unwrap_or(i64::MAX));
        self.connected.set(connected.into());
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        crate::metrics::page(&self.registry)
    }
}
