//! The source's metrics. Written by its loop, read by HTTP.

use prometheus::{Gauge, Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::service::{MetricsError, MetricsRegistry};

/// From a query of nothing on loopback to one that times out.
const QUERY_BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 600.0];
/// From a small transaction on loopback to one that times out.
const COMMIT_BUCKETS: [f64; 10] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

/// All metrics of one source. Clones share them.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// `genwatch_source_rows_total`: produced and committed.
    pub rows: IntCounter,
    /// `genwatch_source_late_total`: of these, older than the cursor.
    pub late: IntCounter,
    /// `genwatch_source_corrections_total`: of these, new versions of rows.
    pub corrections: IntCounter,
    /// `genwatch_source_repeats_total`: rows found again and skipped.
    pub repeats: IntCounter,
    /// `genwatch_source_filtered_total`: dropped by a filter of `--transform`.
    pub filtered: IntCounter,
    /// `genwatch_source_dead_letters_total{step}`: rows that a step of `--transform` failed on, committed.
    pub dead_letters: IntCounterVec,
    /// `genwatch_source_queries_total`: answered completely.
    pub queries: IntCounter,
    /// `genwatch_source_errors_total{kind}`: `query`, `database` or `kafka`.
    pub errors: IntCounterVec,
    /// `genwatch_source_query_seconds`
    pub query_seconds: Histogram,
    /// `genwatch_source_commit_seconds`
    pub commit_seconds: Histogram,
    /// `genwatch_source_cursor_timestamp_seconds`
    pub cursor: Gauge,
    /// `genwatch_source_lag_seconds`
    pub lag: Gauge,
    /// `genwatch_source_remembered_rows`
    pub remembered: IntGauge,
}

impl SourceMetrics {
    /// Registers all metrics, at zero.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(registry: &MetricsRegistry) -> Result<SourceMetrics, MetricsError> {
        let counter = |name, help| registry.counter(name, help);
        Ok(SourceMetrics {
            rows: counter("genwatch_source_rows_total", "Rows produced and committed.")?,
            late: counter("genwatch_source_late_total", "Rows produced that were older than the cursor.")?,
            corrections: counter(
                "genwatch_source_corrections_total",
                "Rows produced because a value had changed.",
            )?,
            repeats: counter("genwatch_source_repeats_total", "Rows found again and skipped.")?,
            filtered: counter("genwatch_source_filtered_total", "Rows that a filter of --transform dropped.")?,
            dead_letters: registry.counters(
                "genwatch_source_dead_letters_total",
                "Rows that a step of --transform failed on, by number and kind of the step: they are dead letters.",
                &["step"],
            )?,
            queries: counter("genwatch_source_queries_total", "Queries answered completely.")?,
            errors: registry.counters(
                "genwatch_source_errors_total",
                "Failed queries (query, database) and transactions (kafka).",
                &["kind"],
            )?,
            query_seconds: registry.histogram(
                "genwatch_source_query_seconds",
                "Duration of a query, including the time in which its rows are taken.",
                &QUERY_BUCKETS,
            )?,
            commit_seconds: registry.histogram(
                "genwatch_source_commit_seconds",
                "Duration of a transaction.",
                &COMMIT_BUCKETS,
            )?,
            cursor: registry.float_gauge(
                "genwatch_source_cursor_timestamp_seconds",
                "Time of the newest row that was produced, or where the source began.",
            )?,
            lag: registry.float_gauge(
                "genwatch_source_lag_seconds",
                "Time between the newest row that was produced and now, by this machine's clock.",
            )?,
            remembered: registry.gauge(
                "genwatch_source_remembered_rows",
                "Rows whose digests are kept because a scan may find them again.",
            )?,
        })
    }
}
