//! `genwatch bench`: how fast it drains, scales out and reacts.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, Subcommand};
use genwatch_bench::bare::{self, BARE_LOOPS, BareClient, BareConfig};
use genwatch_bench::bridge::BridgeBenchConfig;
use genwatch_bench::contender::Contender;
use genwatch_bench::database::{self, DatabaseAccess};
use genwatch_bench::drain::DrainConfig;
use genwatch_bench::latency::LatencyConfig;
use genwatch_bench::partitions::PartitionsConfig;
use genwatch_bench::produce::ProduceConfig;
use genwatch_bench::report::Report;
use genwatch_bench::scale::ScaleConfig;
use genwatch_bench::sink::{BareWriter, Connect, SinkBenchConfig};
use genwatch_bench::verify::{AlertsReader, VerifiedTopics};
use genwatch_bench::{self as bench, BenchError, Tell};
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::config::Connection;
use genwatch_kafka::consumer::Record;
use genwatch_kafka::topic_reader::StartAt;
use indicatif::{ProgressBar, ProgressStyle};
use secrecy::SecretString;

use super::options::Choice;
use super::{ClusterOptions, Failure};
use crate::mqtt;
use crate::sink::SourceRecord;
use crate::sink::influx::client::{self, Client, Destination, Token};
use crate::sink::influx::line_protocol::{PointShape, Precision};
use crate::sink::influx::response::Verdict;

/// Measure how fast genwatch drains, scales out and reacts, on any cluster.
///
/// Topics and groups are the benchmark's own and deleted afterwards, also after Ctrl-C. Every program under test is a
/// separate process; its output is compared with a serial evaluation before a figure counts. Results are printed, and
/// written as JSON and CSV.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    Drain(Drain),
    Scale(Scale),
    Latency(Latency),
    Partitions(Partitions),
    Produce(Produce),
    Bridge(Bridge),
    Sink(Sink),
    /// Draw the results in a folder as SVG.
    Plot(Folder),
    /// Compare the results in a folder with their targets.
    Table(Folder),
    Verify(Verify),
    /// The baseline of `drain`, a contender like others.
    #[command(hide = true)]
    Bare(Bare),
}

/// Options of all benchmarks.
#[derive(Debug, Args)]
struct Shared {
    /// Address of Kafka: host:port, several separated by commas.
    #[arg(short, long, default_value = "localhost:9092", env = "GENWATCH_BROKERS", value_parser = super::brokers)]
    brokers: String,

    /// A property of librdkafka's clients, as key=value, or @FILE with one a line. May be repeated; in GENWATCH_X one a
    /// line.
    #[arg(short = 'X', value_name = "KEY=VALUE", env = "GENWATCH_X", hide_env_values = true)]
    properties: Vec<SecretString>,

    /// Write results here, into a folder named by the date.
    #[arg(long, value_name = "DIR", default_value = "bench/results", env = "GENWATCH_RESULTS")]
    results: PathBuf,

    /// File name of the results. Default: the benchmark's name.
    #[arg(long, env = "GENWATCH_NAME")]
    name: Option<String>,

    /// Print one JSON document instead of the table.
    #[arg(long, env = "GENWATCH_JSON")]
    json: bool,

    /// Seed of the simulated fleet.
    #[arg(long, default_value_t = 1, env = "GENWATCH_SEED")]
    seed: u64,
}

/// Fill a topic and drain it, with genwatch and others in turn.
///
/// The baseline is a bare rust-rdkafka loop that parses with serde_json and compares two numbers, over BaseConsumer or
/// StreamConsumer, whichever is faster in this run; a variant also keeps states and commits alerts and offsets in
/// transactions.
#[derive(Debug, Args)]
struct Drain {
    /// Number of readings in the topic.
    #[arg(long, default_value_t = 1_000_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 10_000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 6, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,

    /// How often each contender drains it; the median counts.
    #[arg(long, default_value_t = 5, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,

    /// Simulated work per reading.
    #[arg(long, default_value = "0s", value_parser = super::duration, env = "GENWATCH_WORK")]
    work: Duration,

    /// More options of genwatch's worker, as one string.
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        allow_hyphen_values = true,
        env = "GENWATCH_WORKER"
    )]
    worker: String,

    /// Name of genwatch's worker in the results.
    #[arg(long, value_name = "NAME", default_value = "genwatch", env = "GENWATCH_WORKER_NAME")]
    worker_name: String,

    /// Another program for the same job: see bench/peers. May be repeated.
    #[arg(long, value_name = "NAME=COMMAND", env = "GENWATCH_PEER", value_delimiter = '\n')]
    peer: Vec<Contender>,

    /// Leave the baselines out; ratios are then relative to genwatch.
    #[arg(long, env = "GENWATCH_NO_BARE")]
    no_bare: bool,

    #[command(flatten)]
    shared: Shared,
}

/// Find the rate that each number of workers holds.
///
/// Runs real worker processes and an open-loop producer. The capacity is the highest rate at which the lag stays flat;
/// also shown are the bound set by the skew of the keys, and how long partitions stood still when workers were added.
#[derive(Debug, Args)]
struct Scale {
    /// Numbers of workers, ascending.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,6", env = "GENWATCH_REPLICAS")]
    replicas: Vec<usize>,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 12, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,

    /// Number of generators that report.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    generators: u32,

    /// Readings a second to begin with: more than one worker can hold. The demand of this rate is reported too.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_RATE", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    /// Simulated work per reading.
    #[arg(long, default_value = "2ms", value_parser = super::duration, env = "GENWATCH_WORK")]
    work: Duration,

    /// How long each rate is tried.
    #[arg(long, default_value = "15s", value_parser = super::duration, env = "GENWATCH_DURATION")]
    duration: Duration,

    /// Warm-up before that, not counted.
    #[arg(long, default_value = "3s", value_parser = super::duration, env = "GENWATCH_WARM_UP")]
    warm_up: Duration,

    /// More options of genwatch's worker, as one string.
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "--concurrency 1",
        allow_hyphen_values = true,
        env = "GENWATCH_WORKER"
    )]
    worker: String,

    #[command(flatten)]
    shared: Shared,
}

/// Measure the time from when a reading is due to when a reader of committed records sees its alert.
#[derive(Debug, Args)]
struct Latency {
    /// Readings a second.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_RATE", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,

    /// How long to measure.
    #[arg(long, default_value = "20s", value_parser = super::duration, env = "GENWATCH_DURATION")]
    duration: Duration,

    /// Warm-up before that, not counted.
    #[arg(long, default_value = "5s", value_parser = super::duration, env = "GENWATCH_WARM_UP")]
    warm_up: Duration,

    /// Number of generators that report.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 6, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,

    /// How often each contender runs.
    #[arg(long, default_value_t = 3, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,

    /// Another program for the same job: see bench/peers. May be repeated.
    #[arg(long, value_name = "NAME=COMMAND", env = "GENWATCH_PEER", value_delimiter = '\n')]
    peer: Vec<Contender>,

    #[command(flatten)]
    shared: Shared,
}

/// Drain the same readings from more and more partitions.
#[derive(Debug, Args)]
struct Partitions {
    /// Numbers of partitions.
    #[arg(short, long, value_delimiter = ',', default_value = "1,3,6,12,24,48", env = "GENWATCH_PARTITIONS")]
    partitions: Vec<i32>,

    /// Number of readings in each topic.
    #[arg(long, default_value_t = 1_000_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 10_000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    generators: u32,

    /// How often each is drained; the median counts.
    #[arg(long, default_value_t = 3, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,

    /// Simulated work per reading.
    #[arg(long, default_value = "0s", value_parser = super::duration, env = "GENWATCH_WORK")]
    work: Duration,

    #[command(flatten)]
    shared: Shared,
}

/// Produce readings at full speed, with `genwatch simulate --rate 0` and others in turn.
#[derive(Debug, Args)]
struct Produce {
    /// Number of readings.
    #[arg(long, default_value_t = 2_000_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 10_000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 6, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,

    /// How often each contender produces them; the median counts.
    #[arg(long, default_value_t = 5, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,

    /// Another program that produces: see bench/peers. May be repeated.
    #[arg(long, value_name = "NAME=COMMAND", env = "GENWATCH_PEER", value_delimiter = '\n')]
    peer: Vec<Contender>,

    #[command(flatten)]
    shared: Shared,
}

/// Write readings to InfluxDB, with the sink and a bare client in turn.
///
/// The bare client pushes the same lines from memory, compressed in the same way: the server's limit. Buckets are the
/// benchmark's own, so the token must be allowed to create them. `export $(scripts/influxdb start)` sets the options.
#[derive(Debug, Args)]
struct Sink {
    /// Address of InfluxDB.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://localhost:8086",
        env = "GENWATCH_URL",
        hide_env_values = true
    )]
    url: String,

    /// The organization.
    #[arg(long, env = "GENWATCH_ORG")]
    org: String,

    /// An API token that may create, read and delete buckets.
    #[arg(long, allow_hyphen_values = true, env = "GENWATCH_TOKEN", hide_env_values = true)]
    token: super::sink::TokenText,

    /// Trusted certificates for https://, in PEM.
    #[arg(long, value_name = "FILE", env = "GENWATCH_CA_FILE")]
    ca_file: Option<PathBuf>,

    /// Number of readings.
    #[arg(long, default_value_t = 1_000_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 6, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,

    /// How often each contender writes them; the median counts.
    #[arg(long, default_value_t = 3, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,

    /// The most points in a request.
    #[arg(long, default_value_t = 5000, env = "GENWATCH_BATCH", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,

    /// Connections of the bare client; the sink is compared with the best.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", env = "GENWATCH_BARE_CONNECTIONS", value_parser = clap::value_parser!(u8).range(1..=64))]
    bare_connections: Vec<u8>,

    /// More options of the sink, as one string.
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        allow_hyphen_values = true,
        env = "GENWATCH_SINK"
    )]
    sink: String,

    #[command(flatten)]
    shared: Shared,
}

/// Forward messages from MQTT, with the bridge and `mosquitto_sub`, which only receives, in turn.
///
/// Needs Mosquitto 2 (mosquitto, mosquitto_sub). Each turn has its own broker, which has queued the same messages of
/// QoS 1 for it. Kafka must have each message once, in its generator's order, or the bridge is disqualified.
#[derive(Debug, Args)]
struct Bridge {
    /// Number of messages.
    #[arg(long, default_value_t = 200_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 12, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,

    /// Numbers of bridges that share the fleet, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1", env = "GENWATCH_BRIDGES", value_parser = clap::value_parser!(u32).range(1..=100))]
    bridges: Vec<u32>,

    /// How often each contender runs; the median counts.
    #[arg(long, default_value_t = 5, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,

    #[command(flatten)]
    shared: Shared,
}

/// Compare all alerts of a topic with a serial evaluation of its readings by the built-in rules.
///
/// For a group that has processed all readings. Exit code 1 if an alert is missing, doubled, different or out of its
/// generator's order.
#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Options of the baseline.
#[derive(Debug, Args)]
struct Bare {
    /// Address of Kafka.
    #[arg(long)]
    brokers: String,
    /// The readings topic.
    #[arg(long)]
    topic: String,
    /// The consumer group.
    #[arg(long)]
    group: String,
    /// Serial work per reading, in milliseconds.
    #[arg(long, default_value_t = 0)]
    work_ms: u64,
    /// Stop after this many records.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Which of rust-rdkafka's consumers to use.
    #[arg(long, value_enum, default_value_t = Choice(BareClient::Base))]
    client: Choice<BareClient>,
    /// Keep states, produce alerts and commit offsets, in transactions.
    #[arg(long)]
    transactions: bool,
    /// Properties of librdkafka, one a line.
    #[arg(short = 'X', env = "GENWATCH_X", hide_env_values = true)]
    properties: Vec<SecretString>,
}

/// A folder of results.
#[derive(Debug, Args)]
struct Folder {
    /// The folder.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    match &options.benchmark {
        Benchmark::Drain(options) => drain(options),
        Benchmark::Scale(options) => scale(options),
        Benchmark::Latency(options) => latency(options),
        Benchmark::Partitions(options) => partitions(options),
        Benchmark::Produce(options) => produce(options),
        Benchmark::Bridge(options) => bridge(options),
        Benchmark::Sink(options) => sink(options),
        Benchmark::Plot(options) => plot(&options.folder),
        Benchmark::Table(options) => table(&options.folder),
        Benchmark::Verify(options) => verify(options),
        Benchmark::Bare(options) => run_bare(options),
    }
}

fn drain(options: &Drain) -> Result<(), Failure> {
    let mut contenders = vec![worker(&options.worker_name, &options.worker)?];
    if !options.no_bare {
        contenders.push(Contender::bare(BARE_LOOPS[0], &["--client", "base"])?);
        contenders.push(Contender::bare(BARE_LOOPS[1], &["--client", "stream"])?);
        contenders.push(Contender::bare("bare + transactions", &["--client", "base", "--transactions"])?);
    }
    contenders.extend(options.peer.iter().cloned());
    let config = DrainConfig {
        connection: options.shared.connection()?,
        baselines: if options.no_bare {
            vec![options.worker_name.clone()]
        } else {
            BARE_LOOPS.map(str::to_owned).to_vec()
        },
        contenders,
        count: options.count,
        generators: options.generators,
        partitions: options.partitions,
        repetitions: options.repetitions,
        work: options.work,
        seed: options.shared.seed,
    };
    options.shared.publish(|stop, tell| bench::drain::run(&config, stop, tell))?;
    Ok(())
}

fn scale(options: &Scale) -> Result<(), Failure> {
    if options.replicas.is_empty() || options.replicas.contains(&0) || !options.replicas.is_sorted() {
        return Err(Failure::usage(anyhow::anyhow!(
            "--replicas must be ascending numbers from 1, such as 1,2,3,6"
        )));
    }
    let config = ScaleConfig {
        connection: options.shared.connection()?,
        worker: worker("genwatch", &options.worker)?,
        replicas: options.replicas.clone(),
        partitions: options.partitions,
        generators: options.generators,
        work: options.work,
        rate: f64::from(options.rate),
        duration: options.duration,
        warm_up: options.warm_up,
        seed: options.shared.seed,
    };
    let report = options.shared.publish(|stop, tell| bench::scale::run(&config, stop, tell))?;
    if !options.shared.json {
        let mut out = std::io::stdout();
        match bench::scale::demand(&report, f64::from(options.rate)) {
            Some(replicas) => {
                writeln!(out, "demand of {} readings a second: {replicas} workers", options.rate)?
            }
            None => writeln!(out, "none of these holds {} readings a second", options.rate)?,
        }
    }
    Ok(())
}

fn latency(options: &Latency) -> Result<(), Failure> {
    let mut contenders = vec![
        worker("genwatch exactly-once", "--delivery exactly-once")?,
        worker("genwatch at-least-once", "--delivery at-least-once")?,
    ];
    contenders.extend(options.peer.iter().cloned());
    let config = LatencyConfig {
        connection: options.shared.connection()?,
        contenders,
        rate: options.rate,
        duration: options.duration,
        warm_up: options.warm_up,
        generators: options.generators,
        partitions: options.partitions,
        repetitions: options.repetitions,
    };
    options.shared.publish(|stop, tell| bench::latency::run(&config, stop, tell))?;
    Ok(())
}

fn partitions(options: &Partitions) -> Result<(), Failure> {
    if options.partitions.iter().any(|partitions| *partitions < 1) {
        return Err(Failure::usage(anyhow::anyhow!("--partitions must be numbers from 1, such as 1,6,12")));
    }
    let config = PartitionsConfig {
        connection: options.shared.connection()?,
        worker: worker("genwatch", "")?,
        partitions: options.partitions.clone(),
        count: options.count,
        generators: options.generators,
        repetitions: options.repetitions,
        work: options.work,
        seed: options.shared.seed,
    };
    options.shared.publish(|stop, tell| bench::partitions::run(&config, stop, tell))?;
    Ok(())
}

fn produce(options: &Produce) -> Result<(), Failure> {
    let mut contenders = vec![Contender::simulator(options.generators, options.shared.seed)?];
    contenders.extend(options.peer.iter().cloned());
    let config = ProduceConfig {
        connection: options.shared.connection()?,
        contenders,
        count: options.count,
        partitions: options.partitions,
        repetitions: options.repetitions,
    };
    options.shared.publish(|stop, tell| bench::produce::run(&config, stop, tell))?;
    Ok(())
}

fn sink(options: &Sink) -> Result<(), Failure> {
    let token = Token::new(options.token.as_str()).map_err(Failure::usage)?;
    let ca_file = options.ca_file.as_deref();
    let access = DatabaseAccess {
        url: options.url.clone(),
        org: options.org.clone(),
        authorization: token.header().clone(),
        agent: client::agent(&options.url, ca_file, database::TIMEOUT).map_err(Failure::usage)?,
    };
    let batch = options.batch.to_string();
    let arguments = ["--url", &options.url, "--org", &options.org, "--batch", &batch];
    let more = options.sink.split_whitespace();
    let mut arguments: Vec<OsString> = arguments.into_iter().chain(more).map(OsString::from).collect();
    if let Some(file) = &options.ca_file {
        arguments.extend(["--ca-file".into(), file.into()]);
    }
    let config = SinkBenchConfig {
        connection: options.shared.connection()?,
        access,
        writer: BareWriter { line: append_line, connect: connector(options, token) },
        sink: Contender::sink(&arguments, options.token.as_str())?,
        bare: options.bare_connections.iter().copied().map(usize::from).collect(),
        batch: options.batch as usize,
        count: options.count,
        generators: options.generators,
        partitions: options.partitions,
        repetitions: options.repetitions,
        seed: options.shared.seed,
    };
    options.shared.publish(|stop, tell| bench::sink::run(&config, stop, tell))?;
    Ok(())
}

/// Makes the line as the sink writes it.
fn append_line(topic: &str, record: &Record<'_>, lines: &mut String) -> Result<(), String> {
    let (at, offset) = (Some(record.timestamp), record.offset);
    let source = SourceRecord { topic: 0, key: record.key, value: record.value, at, offset };
    let appended = PointShape::of_readings(topic, Precision::Ns).append(&source, lines);
    appended.map_err(|reason| reason.to_string())
}

fn connector(options: &Sink, token: Token) -> Connect {
    let (url, org, ca_file) = (options.url.clone(), options.org.clone(), options.ca_file.clone());
    Box::new(move |bucket| {
        let (url, org, bucket) = (url.clone(), org.clone(), bucket.to_owned());
        let destination = Destination { url, org, bucket, precision: Precision::Ns };
        let client = Client::new(destination, Some(token.clone()), ca_file.as_deref());
        let client = client.map_err(|error| error.to_string())?;
        Ok(Box::new(move |lines: &str| match client.write(lines) {
            Verdict::Written => Ok(()),
            other => Err(format!("{other:?}")),
        }))
    })
}

fn bridge(options: &Bridge) -> Result<(), Failure> {
    let config = BridgeBenchConfig {
        connection: options.shared.connection()?,
        connect: mqtt::client::new,
        timestamp: mqtt::message::TIMESTAMP,
        bridges: options.bridges.iter().map(|bridges| *bridges as usize).collect(),
        count: options.count,
        generators: options.generators,
        partitions: options.partitions,
        repetitions: options.repetitions,
        seed: options.shared.seed,
    };
    options.shared.publish(|stop, tell| bench::bridge::run(&config, stop, tell))?;
    Ok(())
}

fn run_bare(options: &Bare) -> Result<(), Failure> {
    let config = BareConfig {
        connection: Connection::new(&options.brokers, &options.properties).map_err(Failure::usage)?,
        topic: options.topic.clone(),
        group: options.group.clone(),
        work_ms: options.work_ms,
        count: options.count,
        client: options.client.0,
        transactions: options.transactions,
    };
    Ok(bare::run(&config)?)
}

fn plot(folder: &Path) -> Result<(), Failure> {
    for path in bench::plot::draw(folder)? {
        writeln!(std::io::stdout(), "{}", path.display())?;
    }
    Ok(())
}

fn table(folder: &Path) -> Result<(), Failure> {
    let results = bench::report::read(folder)?;
    write!(std::io::stdout(), "{}", bench::targets::table(&results))?;
    Ok(())
}

fn verify(options: &Verify) -> Result<(), Failure> {
    let connection = options.cluster.connection()?;
    let cluster = Cluster::connect(&connection)?;
    let topics = options.cluster.topics();
    let (readings, alerts) = (&topics.readings, &topics.alerts);
    let source = VerifiedTopics { connection: &connection, cluster: &cluster, readings, alerts };
    let stop = super::stop_on_signals()?;
    let expected = bench::verify::expected(&source, &stop)?;
    AlertsReader::new(source, StartAt::Beginning)?.check("the group", &expected, &stop)?;
    writeln!(std::io::stdout(), "{}", serde_json::json!({ "alerts": expected.alerts, "verified": true }))?;
    Ok(())
}

fn worker(name: &str, options: &str) -> std::io::Result<Contender> {
    let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
    Contender::worker(name, &options)
}

impl Shared {
    fn connection(&self) -> Result<Connection, Failure> {
        Connection::new(&self.brokers, &self.properties).map_err(Failure::usage)
    }

    /// Runs a benchmark and shows its progress; writes and prints the results.
    fn publish(
        &self,
        run: impl FnOnce(&AtomicBool, Tell<'_>) -> Result<Report, BenchError>,
    ) -> Result<Report, Failure> {
        let stop = super::stop_on_signals()?;
        bench::report::check_writable(&self.results)
            .map_err(|error| Failure::Usage(anyhow::anyhow!("--results: {error}")))?;
        let progress = progress();
        let told = RefCell::new(String::new());
        let tell = |words: &str, done, of| {
            // Without a visible bar, each step is a line.
            if told.borrow().as_str() != words {
                words.clone_into(&mut told.borrow_mut());
                if progress.is_hidden() {
                    tracing::info!("{words}");
                }
                progress.set_message(words.to_owned());
            }
            progress.set_length(of);
            progress.set_position(done);
        };
        let outcome = run(&stop, &tell);
        progress.finish_and_clear();
        let report = outcome?;
        let path = report.write(&self.results, self.name.as_deref().unwrap_or(report.benchmark))?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", report.to_json())?;
        } else {
            write!(out, "{}", report.to_table())?;
            writeln!(out, "written to {}", path.display())?;
        }
        Ok(report)
    }
}

fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {elapsed} {bar:24} {pos}/{len} {msg}");
    // The template is a constant; an invalid one falls back to indicatif's default.
    let bar = ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
