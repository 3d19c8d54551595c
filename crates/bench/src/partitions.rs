//! What the number of partitions costs and brings: one worker, the same readings, more and more partitions.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use genwatch_kafka::config::Connection;
use genwatch_kafka::group::Group;
use genwatch_kafka::topic_reader::StartAt;
use serde_json::json;

use super::contender::{Contender, ContenderJob};
use super::membership::wait_until_taken;
use super::probe::Probe;
use super::report::{Report, rounded, row};
use super::scratch_topics::ScratchTopics;
use super::statistics::median;
use super::verify::{AlertsReader, expected};
use super::{BenchError, Tell, go_on};

/// What to try.
#[derive(Clone, Debug)]
pub struct PartitionsConfig {
    /// The cluster.
    pub connection: Connection,
    /// The worker.
    pub worker: Contender,
    /// Numbers of partitions.
    pub partitions: Vec<i32>,
    /// Number of readings.
    pub count: u64,
    /// Number of generators that send them.
    pub generators: u32,
    /// How often each is drained.
    pub repetitions: u32,
    /// Work per reading.
    pub work: Duration,
    /// Seed of the fleet.
    pub seed: u64,
}

/// Runs the benchmark.
///
/// # Errors
/// When the worker fails, an alert is wrong, the cluster fails, or when stopped.
pub fn run(config: &PartitionsConfig, stop: &AtomicBool, tell: Tell<'_>) -> Result<Report, BenchError> {
    let mut report = Report::new(
        "partitions",
        json!({
            "readings": config.count, "generators": config.generators, "partitions": config.partitions,
            "repetitions": config.repetitions, "work_ms": config.work.as_secs_f64() * 1e3, "seed": config.seed,
        }),
    );
    let steps = u64::from(config.repetitions) * config.partitions.len() as u64;
    for partitions in &config.partitions {
        tell(&format!("{partitions} partitions: producing"), report.runs.len() as u64, steps);
        let arena = ScratchTopics::new(&config.connection, *partitions)?;
        arena.fill(config.seed, config.generators, config.count, stop, |_| {})?;
        let expected = expected(&arena.source(), stop)?;
        let (mut rates, mut joins, mut restores) = (Vec::new(), Vec::new(), Vec::new());
        for repetition in 1..=config.repetitions {
            go_on(stop)?;
            let words = format!("{partitions} partitions: repetition {repetition}");
            tell(&words, report.runs.len() as u64, steps);
            let group = arena.new_group();
            let alerts = AlertsReader::new(arena.source(), StartAt::Now)?;
            let job = ContenderJob { work: config.work, count: Some(config.count) };
            let running = config.worker.start(&arena, &group, &job)?;
            let members = Group::new(&config.connection, &arena.cluster, &group, &arena.topic)?;
            let join = wait_until_taken(&members, &running, stop)? - running.begun();
            let ended = running.wait(stop)?;
            alerts.check(&config.worker.name, &expected, stop)?;
            // The same group again: no reading is left, and all states must be restored.
            let probe = Probe::new().map_err(|error| BenchError::file(Path::new("127.0.0.1"), error))?;
            let job = ContenderJob { count: None, ..job };
            let again = config.worker.with(&probe.options()).start(&arena, &group, &job)?;
            probe.wait_until_ready(&again, stop)?;
            let restore = probe.metric("genwatch_restore_seconds");
            let restore =
                restore.ok_or_else(|| again.failed("does not say how long it restored".to_owned()))?;
            again.stop(stop)?;
            let rate = ended.told.records as f64 / ended.told.seconds;
            report.runs.push(row(json!({
                "partitions": partitions, "repetition": repetition, "records_per_s": rounded(rate),
                "cpu_us_per_record": rounded(ended.cpu.as_secs_f64() * 1e6 / ended.told.records as f64),
                "join_s": rounded(join.as_secs_f64()), "restore_s": rounded(restore),
                "peak_MiB": ended.peak_memory >> 20,
            })));
            rates.push(rate);
            joins.push(join.as_secs_f64());
            restores.push(restore);
        }
        let group = Group::new(&config.connection, &arena.cluster, &arena.new_group(), &arena.topic)?;
        let sizes: Vec<i64> = group.progress()?.values().map(|p| p.end.0 - p.start.0).collect();
        let mean = sizes.iter().sum::<i64>() as f64 / sizes.len().max(1) as f64;
        let largest = sizes.iter().copied().max().unwrap_or(0) as f64;
        report.results.push(row(json!({
            "partitions": partitions,
            "records_per_s": rounded(median(rates)),
            "largest_to_mean": rounded(largest / mean),
            "join_s": rounded(median(joins)),
            "restore_s": rounded(median(restores)),
        })));
    }
    Ok(report)
}
