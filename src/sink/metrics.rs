//! The sink's metrics. Written by its loop and its writers, read by HTTP.

use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::service::{MetricsError, MetricsRegistry};

/// From a write on loopback to one that times out.
const WRITE_BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0];

/// All metrics of one sink. Clones share them.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    /// `genwatch_sink_records_total{topic}`
    pub records: IntCounterVec,
    /// `genwatch_sink_points_total{topic}`: acknowledged.
    pub points: IntCounterVec,
    /// `genwatch_sink_skipped_total{topic,reason}`: records that made no point, or one that was refused.
    pub skipped: IntCounterVec,
    /// `genwatch_sink_filtered_total{topic}`: by a step of the transformations.
    pub filtered: IntCounterVec,
    /// `genwatch_sink_dead_letters_total{topic,step}`: records that a step of the transformations failed on.
    pub dead_letters: IntCounterVec,
    /// `genwatch_sink_lost_total{topic}`: deleted by retention before they were read.
    pub lost: IntCounterVec,
    /// `genwatch_sink_retries_total`
    pub retries: IntCounter,
    /// `genwatch_sink_write_seconds`
    pub write_seconds: Histogram,
}

impl SinkMetrics {
    /// Registers all metrics, at zero.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &MetricsRegistry) -> Result<SinkMetrics, MetricsError> {
        let topic = &["topic"];
        Ok(SinkMetrics {
            records: registry.counters("genwatch_sink_records_total", "Records taken in.", topic)?,
            points: registry.counters(
                "genwatch_sink_points_total",
                "Points that the database has acknowledged.",
                topic,
            )?,
            skipped: registry.counters(
                "genwatch_sink_skipped_total",
                "Records that made no point, or one that the database refused.",
                &["topic", "reason"],
            )?,
            filtered: registry.counters(
                "genwatch_sink_filtered_total",
                "Records that a filter of --transform dropped.",
                topic,
            )?,
            dead_letters: registry.counters(
                "genwatch_sink_dead_letters_total",
                "Dead letters of records that a step of --transform failed on, by number and kind of the step.",
                &["topic", "step"],
            )?,
            lost: registry.counters(
                "genwatch_sink_lost_total",
                "Offsets that retention deleted before they were read.",
                topic,
            )?,
            retries: registry.counter("genwatch_sink_retries_total", "Writes that had to be repeated.")?,
            write_seconds: registry.histogram(
                "genwatch_sink_write_seconds",
                "Duration of a write request.",
                &WRITE_BUCKETS,
            )?,
        })
    }
}
