//! How fast the sink writes readings to InfluxDB, beside a bare client that pushes the same lines from memory: the
//! server's limit. In turn, A B A B, each into its own bucket whose points are counted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use genwatch_kafka::config::Connection;
use genwatch_kafka::consumer::Record;
use genwatch_kafka::topic_reader::{StartAt, TopicReader};
use serde_json::json;

use super::contender::{Contender, ContenderJob};
use super::database::{Database, DatabaseAccess};
use super::report::{Report, rounded, row};
use super::scratch_topics::ScratchTopics;
use super::statistics::median;
use super::{BenchError, Tell, go_on};

const LOOK: Duration = Duration::from_millis(100);
const SINK: &str = "genwatch sink influx";

/// Writes a request of lines, from several threads at once; returns the reason if that fails.
pub type Write = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Connects to the bucket of this name; returns the reason if that fails.
pub type Connect = Box<dyn Fn(&str) -> Result<Write, String>>;

/// The bare client; the sink supplies its parts.
pub struct BareWriter {
    /// Appends the line of a record.
    pub line: fn(topic: &str, record: &Record<'_>, lines: &mut String) -> Result<(), String>,
    /// Connects to a bucket.
    pub connect: Connect,
}

/// What to write, and where.
pub struct SinkBenchConfig {
    /// The cluster.
    pub connection: Connection,
    /// The database.
    pub access: DatabaseAccess,
    /// The sink, with its options.
    pub sink: Contender,
    /// The bare client.
    pub writer: BareWriter,
    /// Connections of the bare client; each number is a contender.
    pub bare: Vec<usize>,
    /// Points in a request.
    pub batch: usize,
    /// Number of readings.
    pub count: u64,
    /// Number of generators that send them.
    pub generators: u32,
    /// Partitions of the topic.
    pub partitions: i32,
    /// How often each writes them.
    pub repetitions: u32,
    /// Seed of the fleet.
    pub seed: u64,
}

/// Runs the benchmark.
///
/// # Errors
/// When a contender fails or its bucket doesn't hold each reading once, when cluster or database fail, or when stopped.
pub fn run(config: &SinkBenchConfig, stop: &AtomicBool, tell: Tell<'_>) -> Result<Report, BenchError> {
    let mut report = Report::new(
        "sink",
        json!({
            "readings": config.count, "generators": config.generators, "partitions": config.partitions,
            "repetitions": config.repetitions, "batch": config.batch, "seed": config.seed,
        }),
    );
    let database = Database::new(config.access.clone())?;
    let arena = ScratchTopics::new(&config.connection, config.partitions)?;
    arena.fill(config.seed, config.generators, config.count, stop, |sent| {
        tell("producing readings", sent, config.count);
    })?;
    let requests = requests(config, &arena, stop)?;
    let contenders: Vec<Option<usize>> = config.bare.iter().copied().map(Some).chain([None]).collect();
    let steps = u64::from(config.repetitions) * contenders.len() as u64;
    let mut done = 0;
    for repetition in 1..=config.repetitions {
        for bare in &contenders {
            let name = bare.map_or_else(|| SINK.to_owned(), bare_name);
            go_on(stop)?;
            tell(&format!("repetition {repetition}: {name} writes"), done, steps);
            let bucket = database.bucket()?;
            let (seconds, cpu) = match bare {
                Some(connections) => (write(config, &bucket.name, *connections, &requests, stop)?, None),
                None => {
                    let (seconds, cpu) = sink(config, &arena, &bucket.name, stop)?;
                    (seconds, Some(rounded(cpu.as_secs_f64() * 1e6 / config.count as f64)))
                }
            };
            let points = bucket.points()?;
            if points != config.count {
                let what = format!("{points} points are in the bucket instead of {}", config.count);
                return Err(BenchError::Wrong { name, what });
            }
            report.runs.push(row(json!({
                "contender": name, "repetition": repetition,
                "points_per_s": rounded(points as f64 / seconds),
                "cpu_us_per_point": cpu,
                "seconds": seconds,
            })));
            done += 1;
        }
    }
    summarize(config, &mut report);
    Ok(report)
}

fn bare_name(connections: usize) -> String {
    format!("bare client, {connections} connections")
}

/// Returns the lines as the sink would write them, one string per request.
fn requests(
    config: &SinkBenchConfig,
    arena: &ScratchTopics,
    stop: &AtomicBool,
) -> Result<Vec<String>, BenchError> {
    let mut tail = TopicReader::new(&arena.connection, &arena.cluster, &arena.topic, StartAt::Beginning)?;
    let (mut requests, mut lines) = (vec![String::new()], 0);
    while !tail.at_end() {
        go_on(stop)?;
        tail.read(LOOK, |record| {
            if lines == config.batch {
                requests.push(String::new());
                lines = 0;
            }
            lines += 1;
            let Some(request) = requests.last_mut() else { return Ok(()) };
            (config.writer.line)(&arena.topic, record, request).map_err(|reason| BenchError::Wrong {
                name: "the topic".to_owned(),
                what: format!("offset {}: {reason}", record.offset),
            })
        })?;
    }
    Ok(requests)
}

/// Writes all requests over `connections` connections; returns how long that took.
fn write(
    config: &SinkBenchConfig,
    bucket: &str,
    connections: usize,
    requests: &[String],
    stop: &AtomicBool,
) -> Result<f64, BenchError> {
    let write = (config.writer.connect)(bucket)
        .map_err(|reason| BenchError::Database { what: "the options".to_owned(), reason })?;
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let reason = match write(request) {
                        Ok(()) if !stop.load(Ordering::Relaxed) => continue,
                        Ok(()) => None,
                        Err(reason) => Some(reason),
                    };
                    if let Ok(mut failure) = failure.lock() {
                        *failure = reason;
                    }
                    next.store(requests.len(), Ordering::Relaxed);
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    go_on(stop)?;
    match failure.into_inner() {
        Ok(None) => Ok(seconds),
        other => Err(BenchError::Wrong { name: bare_name(connections), what: format!("{other:?}") }),
    }
}

/// Runs the sink to the end of the topic; returns how long it wrote, and its CPU time.
fn sink(
    config: &SinkBenchConfig,
    arena: &ScratchTopics,
    bucket: &str,
    stop: &AtomicBool,
) -> Result<(f64, Duration), BenchError> {
    let group = arena.new_group();
    let job = ContenderJob { work: Duration::ZERO, count: Some(config.count) };
    let ended = config.sink.with(&["--bucket", bucket]).run(arena, &group, &job, stop);
    // A sink derives its own group's name.
    arena.cluster.delete_groups(&[&format!("{group}_influx")])?;
    let ended = ended?;
    if ended.told.records != config.count {
        let what = format!("{} records instead of {}", ended.told.records, config.count);
        return Err(BenchError::Wrong { name: SINK.to_owned(), what });
    }
    Ok((ended.told.seconds, ended.cpu))
}

fn summarize(config: &SinkBenchConfig, report: &mut Report) {
    let rate = |name: &str| median(report.measured(name, "points_per_s"));
    let best = config.bare.iter().map(|connections| rate(&bare_name(*connections))).fold(0.0, f64::max);
    let names = config.bare.iter().copied().map(bare_name).chain([SINK.to_owned()]);
    let results = names.map(|name| {
        let cpu = report.measured(&name, "cpu_us_per_point");
        row(json!({
            "contender": name,
            "points_per_s": rate(&name),
            "cpu_us_per_point": (!cpu.is_empty()).then(|| rounded(median(cpu))),
            "of_the_best_bare_client": rounded(rate(&name) / best),
        }))
    });
    report.results = results.collect();
}
