//! Time from the moment a reading is due to the moment a reader of committed records sees its alert.
//!
//! Open loop, with an alert for each reading: see `numbered.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use genwatch_kafka::config::Connection;
use genwatch_kafka::group::Group;
use genwatch_kafka::producer::ReadingProducer;
use genwatch_kafka::topic_reader::{StartAt, TopicReader};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::contender::{Contender, ContenderJob};
use super::membership::wait_until_taken;
use super::numbered::{self, Schedule};
use super::report::{Report, rounded, row};
use super::scratch_topics::ScratchTopics;
use super::{BenchError, Tell, go_on, in_turn};

/// How long to wait for the last alerts.
const LAST_ALERTS_TIMEOUT: Duration = Duration::from_secs(30);

/// What to measure, and of which contenders.
#[derive(Clone, Debug)]
pub struct LatencyConfig {
    /// The cluster.
    pub connection: Connection,
    /// The contenders.
    pub contenders: Vec<Contender>,
    /// Readings a second.
    pub rate: u32,
    /// How long to measure.
    pub duration: Duration,
    /// Warm-up before that, not counted.
    pub warm_up: Duration,
    /// Generators that report.
    pub generators: u32,
    /// Partitions of the topic.
    pub partitions: i32,
    /// How often each contender runs.
    pub repetitions: u32,
}

/// Runs the benchmark.
///
/// # Errors
/// When an alert is missing or doubled, when the cluster fails, or when stopped.
pub fn run(config: &LatencyConfig, stop: &AtomicBool, tell: Tell<'_>) -> Result<Report, BenchError> {
    let mut report = Report::new(
        "latency",
        json!({
            "rate": config.rate, "duration_s": config.duration.as_secs_f64(),
            "warm_up_s": config.warm_up.as_secs_f64(), "generators": config.generators,
            "partitions": config.partitions, "repetitions": config.repetitions,
        }),
    );
    let mut sums: Vec<Histogram<u64>> = config.contenders.iter().map(|_| histogram()).collect();
    in_turn(config.repetitions, &config.contenders, "watches", stop, tell, |repetition, place| {
        let contender = &config.contenders[place];
        let found = measure(config, contender, stop)?;
        let mut cells = row(json!({ "contender": contender.name, "repetition": repetition }));
        cells.extend(percentiles(&found));
        report.runs.push(cells);
        // All have the same bounds and precision, so they can be added.
        let _ = sums[place].add(&found);
        Ok(())
    })?;
    for (contender, sum) in config.contenders.iter().zip(&sums) {
        let mut cells = row(json!({ "contender": contender.name }));
        cells.extend(percentiles(sum));
        report.results.push(cells);
    }
    Ok(report)
}

fn histogram() -> Histogram<u64> {
    // Three digits up to two minutes, in microseconds: valid constants. Longer times are counted as two minutes.
    Histogram::new_with_bounds(1, 120_000_000, 3).unwrap_or_else(|error| unreachable!("{error}"))
}

fn percentiles(found: &Histogram<u64>) -> Map<String, Value> {
    let ms = |micros: u64| rounded(micros as f64 / 1e3);
    let at = |quantile: f64| ms(found.value_at_quantile(quantile));
    row(json!({
        "alerts": found.len(), "p50_ms": at(0.5), "p95_ms": at(0.95), "p99_ms": at(0.99), "p99.9_ms": at(0.999),
        "max_ms": ms(found.max()),
    }))
}

fn measure(
    config: &LatencyConfig,
    contender: &Contender,
    stop: &AtomicBool,
) -> Result<Histogram<u64>, BenchError> {
    let arena = ScratchTopics::new(&config.connection, config.partitions)?;
    let mut tail = TopicReader::new(&arena.connection, &arena.cluster, arena.source().alerts, StartAt::Now)?;
    let group = arena.new_group();
    let running = contender.start(&arena, &group, &ContenderJob { work: Duration::ZERO, count: None })?;
    let group = Group::new(&arena.connection, &arena.cluster, &group, &arena.topic)?;
    wait_until_taken(&group, &running, stop)?;

    let total = ((config.warm_up + config.duration).as_secs_f64() * f64::from(config.rate)) as u64;
    let counted = (config.warm_up.as_secs_f64() * f64::from(config.rate)) as u64;
    let schedule = Schedule::new(Instant::now() + Duration::from_millis(500), config.rate);
    let generators: Vec<String> = (0..config.generators).map(|number| format!("generator{number}")).collect();
    let producer = ReadingProducer::without_linger(&arena.connection, &arena.topic)?;
    let over = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        let producing = scope.spawn(|| {
            let enough = |number| number == total || over.load(Ordering::Relaxed);
            numbered::produce(&producer, &generators, schedule, enough)
        });
        let found = watch(&mut tail, total, counted, schedule, stop);
        over.store(true, Ordering::Relaxed);
        match producing.join() {
            Ok(produced) => produced.and(found),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    running.stop(stop)?;
    Ok(found)
}

/// Sees each alert once, and how late it was.
fn watch(
    tail: &mut TopicReader,
    total: u64,
    counted: u64,
    schedule: Schedule,
    stop: &AtomicBool,
) -> Result<Histogram<u64>, BenchError> {
    let wrong = |what: String| BenchError::Wrong { name: "the contender".to_owned(), what };
    let mut found = histogram();
    let mut seen = vec![false; usize::try_from(total).unwrap_or(0)];
    let mut missing = total;
    let deadline = schedule.due(total) + LAST_ALERTS_TIMEOUT;
    while missing > 0 {
        go_on(stop)?;
        if Instant::now() > deadline {
            return Err(wrong(format!("{missing} of {total} alerts are missing")));
        }
        tail.read(Duration::from_millis(50), |record| {
            let at = Instant::now();
            let number = numbered::number_of(record.value.unwrap_or_default())
                .map_err(|error| wrong(format!("this is not an alert: {error}")))?;
            match seen.get_mut(usize::try_from(number).unwrap_or(usize::MAX)) {
                Some(seen) if !*seen => *seen = true,
                Some(_) => return Err(wrong(format!("the alert of reading {number} came twice"))),
                None => return Err(wrong(format!("no reading {number} was sent"))),
            }
            missing -= 1;
            if number >= counted {
                let late = at.saturating_duration_since(schedule.due(number));
                found.saturating_record(u64::try_from(late.as_micros()).unwrap_or(u64::MAX));
            }
            Ok::<(), BenchError>(())
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_recorded_in_milliseconds() {
        let mut found = histogram();
        for micros in 1..=1000 {
            found.saturating_record(micros * 100);
        }
        let cells = percentiles(&found);
        assert_eq!(cells["alerts"], 1000);
        for (column, wanted) in [("p50_ms", 50.0), ("p99_ms", 99.0), ("max_ms", 100.0)] {
            let told = cells[column].as_f64().expect("a number");
            assert!((told - wanted).abs() < 0.1, "{column}: {told}");
        }
    }
}
