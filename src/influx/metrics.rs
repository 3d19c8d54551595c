//! The sink's metrics. Written by its loop and its writer, read by HTTP.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};

/// From a write on loopback to one that times out.
const WRITE_BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0];

/// All metrics of one sink.
#[derive(Debug)]
pub struct SinkMetrics {
    registry: Registry,
    /// `genwatch_sink_records_total{topic}`
    pub records: IntCounterVec,
    /// `genwatch_sink_points_total{topic}`: acknowledged.
    pub points: IntCounterVec,
    /// `genwatch_sink_skipped_total{topic,reason}`: records that made no point, or one that was refused.
    pub skipped: IntCounterVec,
    /// `genwatch_sink_lost_total{topic}`: deleted by retention before they were read.
    pub lost: IntCounterVec,
    /// `genwatch_sink_retries_total`
    pub retries: IntCounter,
    /// `genwatch_sink_write_seconds`
    pub write_seconds: Histogram,
}

impl SinkMetrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// When two metrics have one name: a mistake in this file.
    pub fn new() -> Result<SinkMetrics, prometheus::Error> {
        let registry = Registry::new();
        let records =
            IntCounterVec::new(Opts::new("genwatch_sink_records_total", "Records taken in."), &["topic"])?;
        let points = IntCounterVec::new(
            Opts::new("genwatch_sink_points_total", "Points that the database has acknowledged."),
            &["topic"],
        )?;
        let skipped = IntCounterVec::new(
            Opts::new(
                "genwatch_sink_skipped_total",
                "Records that made no point, or one that the database refused.",
            ),
            &["topic", "reason"],
        )?;
        let lost = IntCounterVec::new(
            Opts::new("genwatch_sink_lost_total", "Offsets that retention deleted before they were read."),
            &["topic"],
        )?;
        let retries = IntCounter::new("genwatch_sink_retries_total", "Writes that had to be repeated.")?;
        let write_seconds = Histogram::with_opts(
            HistogramOpts::new("genwatch_sink_write_seconds", "Duration of a write request.")
                .buckets(WRITE_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(records.clone()))?;
        registry.register(Box::new(points.clone()))?;
        registry.register(Box::new(skipped.clone()))?;
        registry.register(Box::new(lost.clone()))?;
        registry.register(Box::new(retries.clone()))?;
        registry.register(Box::new(write_seconds.clone()))?;
        Ok(SinkMetrics { registry, records, points, skipped, lost, retries, write_seconds })
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        crate::metrics::page(&self.registry)
    }
}
