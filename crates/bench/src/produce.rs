//! How fast each contender produces readings, in turn, each into its own topic.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use genwatch_kafka::config::Connection;
use genwatch_kafka::group::Group;
use serde_json::json;

use super::contender::{Contender, ContenderJob};
use super::report::{Report, rounded, row};
use super::scratch_topics::ScratchTopics;
use super::statistics::median;
use super::{BenchError, Tell, in_turn};

/// What to produce, and by which contenders.
#[derive(Clone, Debug)]
pub struct ProduceConfig {
    /// The cluster.
    pub connection: Connection,
    /// The contenders; ratios are to the first.
    pub contenders: Vec<Contender>,
    /// Number of readings.
    pub count: u64,
    /// Partitions of the topic.
    pub partitions: i32,
    /// How often each contender produces them.
    pub repetitions: u32,
}

/// Runs the benchmark.
///
/// # Errors
/// When a contender fails or the topic doesn't hold its readings, when the cluster fails, or when stopped.
pub fn run(config: &ProduceConfig, stop: &AtomicBool, tell: Tell<'_>) -> Result<Report, BenchError> {
    let mut report = Report::new(
        "produce",
        json!({ "readings": config.count, "partitions": config.partitions, "repetitions": config.repetitions }),
    );
    let job = ContenderJob { work: Duration::ZERO, count: Some(config.count) };
    in_turn(config.repetitions, &config.contenders, "produces", stop, tell, |repetition, place| {
        let contender = &config.contenders[place];
        let arena = ScratchTopics::new(&config.connection, config.partitions)?;
        let group = arena.new_group();
        let ended = contender.run(&arena, &group, &job, stop)?;
        let records = records_in(&arena, &group)?;
        if records != config.count || ended.told.records != config.count {
            let what = format!("{records} readings are in the topic instead of {}", config.count);
            return Err(BenchError::Wrong { name: contender.name.clone(), what });
        }
        report.runs.push(row(json!({
            "contender": contender.name, "repetition": repetition,
            "records_per_s": rounded(records as f64 / ended.told.seconds),
            "cpu_us_per_record": rounded(ended.cpu.as_secs_f64() * 1e6 / records as f64),
            "peak_MiB": ended.peak_memory >> 20,
        })));
        Ok(())
    })?;
    let middle = |name: &str, column: &str| median(report.measured(name, column));
    let Some(first) = config.contenders.first() else { return Ok(report) };
    let results = config.contenders.iter().map(|contender| {
        let rate = middle(&contender.name, "records_per_s");
        row(json!({
            "contender": contender.name,
            "records_per_s": rate,
            "cpu_us_per_record": rounded(middle(&contender.name, "cpu_us_per_record")),
            "peak_MiB": middle(&contender.name, "peak_MiB"),
            "rate_ratio": rounded(rate / middle(&first.name, "records_per_s")),
        }))
    });
    report.results = results.collect();
    Ok(report)
}

fn records_in(arena: &ScratchTopics, group: &str) -> Result<u64, BenchError> {
    let group = Group::new(&arena.connection, &arena.cluster, group, &arena.topic)?;
    let records: i64 = group.progress()?.values().map(|progress| progress.end.0 - progress.start.0).sum();
    Ok(records.unsigned_abs())
}
