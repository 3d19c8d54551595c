//! Metrics for Prometheus: a service registers its own, HTTP renders them all.

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// A metric that can't be registered: its name is taken or isn't one.
#[derive(Debug, thiserror::Error)]
#[error("a metric could not be registered")]
pub struct MetricsError(#[from] prometheus::Error);

/// The metrics of a process. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MetricsRegistry(Registry);

impl MetricsRegistry {
    /// Registers a counter.
    ///
    /// # Errors
    /// When the name is taken, here and in the methods below.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, MetricsError> {
        self.register(IntCounter::new(name, help)?)
    }

    /// Registers a counter for each value of these labels.
    ///
    /// # Errors
    /// As [`MetricsRegistry::counter`].
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, MetricsError> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Registers a gauge of whole numbers.
    ///
    /// # Errors
    /// As [`MetricsRegistry::counter`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, MetricsError> {
        self.register(IntGauge::new(name, help)?)
    }

    /// Registers a gauge of whole numbers for each value of these labels.
    ///
    /// # Errors
    /// As [`MetricsRegistry::counter`].
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, MetricsError> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Registers a gauge.
    ///
    /// # Errors
    /// As [`MetricsRegistry::counter`].
    pub fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, MetricsError> {
        self.register(Gauge::new(name, help)?)
    }

    /// Registers a gauge for each value of these labels.
    ///
    /// # Errors
    /// As [`MetricsRegistry::counter`].
    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, MetricsError> {
        self.register(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// Registers a histogram with these upper bounds of buckets.
    ///
    /// # Errors
    /// As [`MetricsRegistry::counter`].
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, MetricsError> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn register<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, MetricsError> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// Returns the text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.0.gather(), &mut text) {
            tracing::warn!(%error, "the metrics could not be rendered");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}
