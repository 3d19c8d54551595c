//! How fast each contender drains a backlog, in turn: A B A B, so that other load on the machine affects all alike.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use genwatch_kafka::config::Connection;
use genwatch_kafka::topic_reader::StartAt;
use serde_json::json;

use super::contender::{Contender, ContenderExit, ContenderJob};
use super::report::{Report, rounded, row};
use super::scratch_topics::ScratchTopics;
use super::statistics::median;
use super::verify::{AlertsReader, expected};
use super::{BenchError, Tell, in_turn};

/// What to drain, and by which contenders.
#[derive(Clone, Debug)]
pub struct DrainConfig {
    /// The cluster.
    pub connection: Connection,
    /// The contenders.
    pub contenders: Vec<Contender>,
    /// Ratios are to the fastest of these, by name.
    pub baselines: Vec<String>,
    /// Number of readings.
    pub count: u64,
    /// Number of generators that send them.
    pub generators: u32,
    /// Partitions of the topic.
    pub partitions: i32,
    /// How often each contender drains it.
    pub repetitions: u32,
    /// Work per reading.
    pub work: Duration,
    /// Seed of the fleet.
    pub seed: u64,
}

/// Runs the benchmark.
///
/// # Errors
/// When a contender fails or does another job, when the cluster fails, or when stopped.
pub fn run(config: &DrainConfig, stop: &AtomicBool, tell: Tell<'_>) -> Result<Report, BenchError> {
    let mut report = Report::new(
        "drain",
        json!({
            "readings": config.count, "generators": config.generators, "partitions": config.partitions,
            "repetitions": config.repetitions, "work_ms": config.work.as_secs_f64() * 1e3, "seed": config.seed,
        }),
    );
    let arena = ScratchTopics::new(&config.connection, config.partitions)?;
    let bytes = arena.fill(config.seed, config.generators, config.count, stop, |sent| {
        tell("producing the backlog", sent, config.count);
    })?;
    tell("evaluating the expected alerts", 0, 1);
    let expected = expected(&arena.source(), stop)?;
    let job = ContenderJob { work: config.work, count: Some(config.count) };
    in_turn(config.repetitions, &config.contenders, "drains", stop, tell, |repetition, place| {
        let contender = &config.contenders[place];
        let alerts = AlertsReader::new(arena.source(), StartAt::Now)?;
        let ended = contender.run(&arena, &arena.new_group(), &job, stop)?;
        if ended.told.records != config.count {
            let what = format!("{} records instead of {}", ended.told.records, config.count);
            return Err(BenchError::Wrong { name: contender.name.clone(), what });
        }
        if ended.told.alerts.is_some() {
            alerts.check(&contender.name, &expected, stop)?;
        }
        report.runs.push(row(run_row(&contender.name, repetition, &ended, bytes)));
        Ok(())
    })?;
    summarize(config, &mut report, expected.alerts);
    Ok(report)
}

fn run_row(name: &str, repetition: u32, ended: &ContenderExit, bytes: u64) -> serde_json::Value {
    let (records, seconds) = (ended.told.records as f64, ended.told.seconds);
    json!({
        "contender": name,
        "repetition": repetition,
        "records_per_s": rounded(records / seconds),
        "MB_per_s": rounded(bytes as f64 / seconds / 1e6),
        "cpu_us_per_record": rounded(ended.cpu.as_secs_f64() * 1e6 / records),
        "peak_MiB": ended.peak_memory >> 20,
        // Starting, joining the group, leaving: not part of the drain, as in kafka-consumer-perf-test.
        "apart_s": rounded((ended.wall.as_secs_f64() - seconds).max(0.0)),
        "seconds": seconds,
        "alerts": ended.told.alerts,
    })
}

fn summarize(config: &DrainConfig, report: &mut Report, alerts: u64) {
    let middle = |name: &str, column: &str| median(report.measured(name, column));
    let rate = |name: &String| middle(name, "records_per_s");
    let baseline = config.baselines.iter().max_by(|one, other| rate(one).total_cmp(&rate(other)));
    let baseline = baseline.cloned().unwrap_or_default();
    let mut results = Vec::new();
    for contender in &config.contenders {
        let name = contender.name.as_str();
        let rates = report.measured(name, "records_per_s");
        let to_baseline = |column: &str| rounded(middle(name, column) / middle(&baseline, column));
        results.push(row(json!({
            "contender": name,
            "records_per_s": middle(name, "records_per_s"),
            "lowest": rates.iter().copied().fold(f64::INFINITY, f64::min),
            "highest": rates.iter().copied().fold(0.0, f64::max),
            "MB_per_s": rounded(middle(name, "MB_per_s")),
            "cpu_us_per_record": rounded(middle(name, "cpu_us_per_record")),
            "peak_MiB": middle(name, "peak_MiB"),
            "apart_s": rounded(middle(name, "apart_s")),
            "rate_ratio": to_baseline("records_per_s"),
            "cpu_ratio": to_baseline("cpu_us_per_record"),
            "alerts_verified": report.runs.iter().any(|run| run["contender"] == name && !run["alerts"].is_null()).then_some(alerts),
        })));
    }
    report.configuration["baseline"] = json!(baseline);
    report.results = results;
}
