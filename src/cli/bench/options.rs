//! The options of the benchmarks.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use genwatch_bench::bare::BareClient;
use genwatch_bench::contender::Contender;
use genwatch_bench::rebalance::Scenario;
use secrecy::SecretString;

use crate::cli::options::Choice;
use crate::cli::{ClusterOptions, brokers, duration};

/// Measure how fast genwatch drains, scales out and reacts, on any cluster.
///
/// Topics and groups are the benchmark's own and deleted afterwards, also after Ctrl-C. Every program under test is a
/// separate process; its output is compared with a serial evaluation before a figure counts. Results are printed, and
/// written as JSON and CSV.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(super) benchmark: Benchmark,
}

#[derive(Debug, Subcommand)]
pub(super) enum Benchmark {
    Drain(Drain),
    Scale(Scale),
    Latency(Latency),
    Partitions(Partitions),
    Produce(Produce),
    Rebalance(Rebalance),
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
pub(super) struct Shared {
    /// Address of Kafka: host:port, several separated by commas.
    #[arg(short, long, default_value = "localhost:9092", env = "GENWATCH_BROKERS", value_parser = brokers)]
    pub(super) brokers: String,

    /// A property of librdkafka's clients, as key=value, or @FILE with one a line. May be repeated; in GENWATCH_X one a
    /// line.
    #[arg(short = 'X', value_name = "KEY=VALUE", env = "GENWATCH_X", hide_env_values = true)]
    pub(super) properties: Vec<SecretString>,

    /// Write results here, into a folder named by the date.
    #[arg(long, value_name = "DIR", default_value = "bench/results", env = "GENWATCH_RESULTS")]
    pub(super) results: PathBuf,

    /// File name of the results. Default: the benchmark's name.
    #[arg(long, env = "GENWATCH_NAME")]
    pub(super) name: Option<String>,

    /// Print one JSON document instead of the table.
    #[arg(long, env = "GENWATCH_JSON")]
    pub(super) json: bool,

    /// Seed of the simulated fleet.
    #[arg(long, default_value_t = 1, env = "GENWATCH_SEED")]
    pub(super) seed: u64,
}

/// Who is measured beside genwatch.
#[derive(Debug, Args)]
pub(super) struct Peers {
    /// Another program for the same job: see bench/peers. May be repeated.
    #[arg(long, value_name = "NAME=COMMAND", env = "GENWATCH_PEER", value_delimiter = '\n')]
    pub(super) peer: Vec<Contender>,
}

/// Fill a topic and drain it, with genwatch and others in turn.
///
/// The baseline is a bare rust-rdkafka loop that parses with serde_json and compares two numbers, over BaseConsumer or
/// StreamConsumer, whichever is faster in this run; a variant also keeps states and commits alerts and offsets in
/// transactions.
#[derive(Debug, Args)]
pub(super) struct Drain {
    /// Number of readings in the topic.
    #[arg(long, default_value_t = 1_000_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 10_000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 6, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(super) partitions: i32,

    /// How often each contender drains it; the median counts.
    #[arg(long, default_value_t = 5, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repetitions: u32,

    /// Simulated work per reading.
    #[arg(long, default_value = "0s", value_parser = duration, env = "GENWATCH_WORK")]
    pub(super) work: Duration,

    /// More options of genwatch's worker, as one string.
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        allow_hyphen_values = true,
        env = "GENWATCH_WORKER"
    )]
    pub(super) worker: String,

    /// Name of genwatch's worker in the results.
    #[arg(long, value_name = "NAME", default_value = "genwatch", env = "GENWATCH_WORKER_NAME")]
    pub(super) worker_name: String,

    #[command(flatten)]
    pub(super) peers: Peers,

    /// Leave the baselines out; ratios are then relative to genwatch.
    #[arg(long, env = "GENWATCH_NO_BARE")]
    pub(super) no_bare: bool,

    #[command(flatten)]
    pub(super) shared: Shared,
}

/// Find the rate that each number of workers holds.
///
/// Runs real worker processes and an open-loop producer. The capacity is the highest rate at which the lag stays flat;
/// also shown are the bound set by the skew of the keys, and how long partitions stood still when workers were added.
/// What the advisor (`topics plan`) said that one more worker brings is shown beside what it then brought, with the limit
/// that it names.
#[derive(Debug, Args)]
pub(super) struct Scale {
    /// Numbers of workers, ascending.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3,6", env = "GENWATCH_REPLICAS")]
    pub(super) replicas: Vec<usize>,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 12, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(super) partitions: i32,

    /// Number of generators that report.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) generators: u32,

    /// Readings a second to begin with: more than one worker can hold. The demand of this rate is reported too.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rate: u32,

    /// Simulated work per reading.
    #[arg(long, default_value = "2ms", value_parser = duration, env = "GENWATCH_WORK")]
    pub(super) work: Duration,

    /// How long each rate is tried.
    #[arg(long, default_value = "15s", value_parser = duration, env = "GENWATCH_DURATION")]
    pub(super) duration: Duration,

    /// Warm-up before that, not counted.
    #[arg(long, default_value = "3s", value_parser = duration, env = "GENWATCH_WARM_UP")]
    pub(super) warm_up: Duration,

    /// More options of genwatch's worker, as one string.
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "--concurrency 1",
        allow_hyphen_values = true,
        env = "GENWATCH_WORKER"
    )]
    pub(super) worker: String,

    #[command(flatten)]
    pub(super) shared: Shared,
}

/// Measure the time from when a reading is due to when a reader of committed records sees its alert.
#[derive(Debug, Args)]
pub(super) struct Latency {
    /// Readings a second.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_RATE", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) rate: u32,

    /// How long to measure.
    #[arg(long, default_value = "20s", value_parser = duration, env = "GENWATCH_DURATION")]
    pub(super) duration: Duration,

    /// Warm-up before that, not counted.
    #[arg(long, default_value = "5s", value_parser = duration, env = "GENWATCH_WARM_UP")]
    pub(super) warm_up: Duration,

    /// Number of generators that report.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 6, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(super) partitions: i32,

    /// How often each contender runs.
    #[arg(long, default_value_t = 3, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repetitions: u32,

    #[command(flatten)]
    pub(super) peers: Peers,

    #[command(flatten)]
    pub(super) shared: Shared,
}

/// Drain the same readings from more and more partitions.
#[derive(Debug, Args)]
pub(super) struct Partitions {
    /// Numbers of partitions.
    #[arg(short, long, value_delimiter = ',', default_value = "1,3,6,12,24,48", env = "GENWATCH_PARTITIONS")]
    pub(super) partitions: Vec<i32>,

    /// Number of readings in each topic.
    #[arg(long, default_value_t = 1_000_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 10_000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) generators: u32,

    /// How often each is drained; the median counts.
    #[arg(long, default_value_t = 3, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repetitions: u32,

    /// Simulated work per reading.
    #[arg(long, default_value = "0s", value_parser = duration, env = "GENWATCH_WORK")]
    pub(super) work: Duration,

    #[command(flatten)]
    pub(super) shared: Shared,
}

/// Produce readings at full speed, with `genwatch simulate --rate 0` and others in turn.
#[derive(Debug, Args)]
pub(super) struct Produce {
    /// Number of readings.
    #[arg(long, default_value_t = 2_000_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 10_000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 6, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(super) partitions: i32,

    /// How often each contender produces them; the median counts.
    #[arg(long, default_value_t = 5, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repetitions: u32,

    /// Another program that produces: see bench/peers. May be repeated.
    #[arg(long, value_name = "NAME=COMMAND", env = "GENWATCH_PEER", value_delimiter = '\n')]
    pub(super) peer: Vec<Contender>,

    #[command(flatten)]
    pub(super) shared: Shared,
}

/// Measure how long partitions stand still when workers join, leave, crash and are restarted one after the other.
///
/// Readings come open-loop to every partition. The standstill of a partition is the longest time that one of its readings
/// waits until a reader of committed records sees its alert; shown is the worst partition of each event, of those that
/// change hands and of those that stay. Each process, of a peer too, is to be one member of the group.
#[derive(Debug, Args)]
pub(super) struct Rebalance {
    /// What happens, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Scenario::ALL.map(Choice), env = "GENWATCH_SCENARIO")]
    pub(super) scenario: Vec<Choice<Scenario>>,

    /// How many events of each kind: joins, kills, restarts.
    #[arg(long, default_value_t = 30, env = "GENWATCH_EVENTS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) events: u32,

    /// Readings a second, over all partitions.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_RATE", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(super) rate: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 12, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(u32).range(6..=1000))]
    pub(super) partitions: u32,

    /// More options of genwatch's worker, as one string.
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        allow_hyphen_values = true,
        env = "GENWATCH_WORKER"
    )]
    pub(super) worker: String,

    #[command(flatten)]
    pub(super) peers: Peers,

    #[command(flatten)]
    pub(super) shared: Shared,
}

/// Write readings to InfluxDB, with the sink and a bare client in turn.
///
/// The bare client pushes the same lines from memory, compressed in the same way: the server's limit. Buckets are the
/// benchmark's own, so the token must be allowed to create them. `export $(scripts/influxdb start)` sets the options.
#[derive(Debug, Args)]
pub(super) struct Sink {
    /// Address of InfluxDB.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://localhost:8086",
        env = "GENWATCH_URL",
        hide_env_values = true
    )]
    pub(super) url: String,

    /// The organization.
    #[arg(long, env = "GENWATCH_ORG")]
    pub(super) org: String,

    /// An API token that may create, read and delete buckets.
    #[arg(long, allow_hyphen_values = true, env = "GENWATCH_TOKEN", hide_env_values = true)]
    pub(super) token: crate::cli::influx::TokenText,

    /// Trusted certificates for https://, in PEM.
    #[arg(long, value_name = "FILE", env = "GENWATCH_CA_FILE")]
    pub(super) ca_file: Option<PathBuf>,

    /// Number of readings.
    #[arg(long, default_value_t = 1_000_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 6, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(super) partitions: i32,

    /// How often each contender writes them; the median counts.
    #[arg(long, default_value_t = 3, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repetitions: u32,

    /// The most points in a request.
    #[arg(long, default_value_t = 5000, env = "GENWATCH_BATCH", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) batch: u32,

    /// Connections of the bare client; the sink is compared with the best.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", env = "GENWATCH_BARE_CONNECTIONS", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) bare_connections: Vec<u8>,

    /// More options of the sink, as one string.
    #[arg(
        long,
        value_name = "OPTIONS",
        default_value = "",
        allow_hyphen_values = true,
        env = "GENWATCH_SINK"
    )]
    pub(super) sink: String,

    #[command(flatten)]
    pub(super) shared: Shared,
}

/// Forward messages from MQTT, with the bridge and `mosquitto_sub`, which only receives, in turn.
///
/// Needs Mosquitto 2 (mosquitto, mosquitto_sub). Each turn has its own broker, which has queued the same messages of
/// QoS 1 for it. Kafka must have each message once, in its generator's order, or the bridge is disqualified.
#[derive(Debug, Args)]
pub(super) struct Bridge {
    /// Number of messages.
    #[arg(long, default_value_t = 200_000, env = "GENWATCH_COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: u64,

    /// Number of generators that send them.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(super) generators: u32,

    /// Partitions of the topic.
    #[arg(short, long, default_value_t = 12, env = "GENWATCH_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub(super) partitions: i32,

    /// Numbers of bridges that share the fleet, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1", env = "GENWATCH_BRIDGES", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) bridges: Vec<u32>,

    /// How often each contender runs; the median counts.
    #[arg(long, default_value_t = 5, env = "GENWATCH_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) repetitions: u32,

    #[command(flatten)]
    pub(super) shared: Shared,
}

/// Compare all alerts of a topic with a serial evaluation of its readings by the built-in rules.
///
/// For a group that has processed all readings. Exit code 1 if an alert is missing, doubled, different or out of its
/// generator's order.
#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
}

/// Options of the baseline.
#[derive(Debug, Args)]
pub(super) struct Bare {
    /// Address of Kafka.
    #[arg(long)]
    pub(super) brokers: String,
    /// The readings topic.
    #[arg(long)]
    pub(super) topic: String,
    /// The consumer group.
    #[arg(long)]
    pub(super) group: String,
    /// Serial work per reading, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pub(super) work_ms: u64,
    /// Stop after this many records.
    #[arg(long, default_value_t = u64::MAX)]
    pub(super) count: u64,
    /// Which of rust-rdkafka's consumers to use.
    #[arg(long, value_enum, default_value_t = Choice(BareClient::Base))]
    pub(super) client: Choice<BareClient>,
    /// Keep states, produce alerts and commit offsets, in transactions.
    #[arg(long)]
    pub(super) transactions: bool,
    /// Properties of librdkafka, one a line.
    #[arg(short = 'X', env = "GENWATCH_X", hide_env_values = true)]
    pub(super) properties: Vec<SecretString>,
}

/// A folder of results.
#[derive(Debug, Args)]
pub(super) struct Folder {
    /// The folder.
    #[arg(value_name = "DIR")]
    pub(super) folder: PathBuf,
}
