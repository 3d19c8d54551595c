//! `genwatch source`: from other stores to Kafka.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{ArgGroup, Args, Subcommand};
use genwatch_core::transform::record::Command as TransformCommand;
use genwatch_kafka::clock;
use genwatch_kafka::config::worker_name;
use genwatch_kafka::topic_reader::StartAt;
use genwatch_kafka::topics::Topics;

use super::influx::AccessOptions;
use super::options::topic_name;
use super::transform::TransformOptions;
use super::{ClusterOptions, Failure};
use crate::service::targets::refuse_own;
use crate::source::SourceConfig;
use crate::source::influx::client::QueryClient;
use crate::source::influx::query::Query;
use crate::source::record::RecordShape;
use crate::source::time::Nanos;

/// Produce what other stores have to a topic.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    store: Store,
}

#[derive(Debug, Subcommand)]
enum Store {
    Influx(Influx),
}

/// Produce the rows of a query of InfluxDB to a topic, each row exactly once.
///
/// The query is in Flux with --org (InfluxDB 2), in SQL with --database (InfluxDB 3; not tested against a real server).
/// It must read the range that it is asked for: in Flux `|> range(start: v.timeRangeStart, stop: v.timeRangeStop)`, in
/// SQL `WHERE $__timeFilter(time)`. Each row becomes a JSON object; its time is the record's timestamp.
///
/// Rows and cursor are written in one transaction, so readers with isolation.level=read_committed see each row once,
/// whatever is killed. Each scan begins --rescan before the newest row, so rows that arrive late are found; a value that
/// has changed there is produced again, as a correction. --transform changes rows before they are produced, in the same
/// transaction. One source of a --name runs at a time: a newer one replaces an
/// older one. SIGTERM ends after the transaction under way; at the end one JSON summary is printed.
#[derive(Debug, Args)]
#[command(
    override_usage = "genwatch source influx [OPTIONS] --to-topic <TOPIC> --org <ORG> --query <QUERY>\n       \
genwatch source influx [OPTIONS] --to-topic <TOPIC> --database <DATABASE> --query <QUERY>"
)]
#[command(group = ArgGroup::new("kind").required(true).args(["org", "database"]))]
#[command(group = ArgGroup::new("text").required(true).args(["query", "query_file"]))]
#[command(mut_arg("token", |token| token.help("The API token; it needs read access to what the query reads")))]
struct Influx {
    /// Address of InfluxDB.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://localhost:8086",
        env = "GENWATCH_URL",
        hide_env_values = true
    )]
    url: String,

    /// The organization in InfluxDB 2, where the query is in Flux.
    #[arg(long, env = "GENWATCH_ORG")]
    org: Option<String>,

    /// The database in InfluxDB 3, where the query is in SQL.
    #[arg(long, env = "GENWATCH_DATABASE")]
    database: Option<String>,

    /// The query.
    #[arg(long, env = "GENWATCH_QUERY")]
    query: Option<String>,

    /// A file with the query.
    #[arg(long, value_name = "FILE", env = "GENWATCH_QUERY_FILE")]
    query_file: Option<PathBuf>,

    #[command(flatten)]
    access: AccessOptions,

    /// The topic that the rows go to. It must exist, unless there is --create-topic.
    #[arg(long, value_name = "TOPIC", env = "GENWATCH_TO_TOPIC", value_parser = topic_name)]
    to_topic: String,

    /// Create the topic that the rows go to if it is missing, with as many partitions as <TOPIC>.
    #[arg(long, env = "GENWATCH_CREATE_TOPIC")]
    create_topic: bool,

    /// The source's name: its cursor in <GROUP>_sources has this key. Default: the topic.
    #[arg(long, env = "GENWATCH_NAME", value_parser = topic_name)]
    name: Option<String>,

    /// How often the query is asked.
    #[arg(long, default_value = "10s", value_parser = super::duration, env = "GENWATCH_EVERY")]
    every: Duration,

    /// How far behind the newest row each scan begins: rows that arrive later than that are not found. Each row within
    /// it takes 100 bytes of memory or so.
    #[arg(long, default_value = "10m", value_parser = super::duration, env = "GENWATCH_RESCAN")]
    rescan: Duration,

    /// Let ranges begin and end at multiples of this, in UTC: for queries that aggregate windows of this length, which
    /// would else be cut. Flux has it as v.windowPeriod.
    #[arg(long, value_name = "WINDOW", value_parser = window, env = "GENWATCH_ALIGN")]
    align: Option<Duration>,

    /// Where a source without a cursor begins: beginning (1970), now, or a time (2026-01-31T12:00:00Z, or a duration ago
    /// such as 2h).
    #[arg(long, default_value = "now", value_parser = super::alerts::from, env = "GENWATCH_FROM")]
    from: StartAt,

    /// The column whose value is the record's key, such as generatorID. Default: the group key as a JSON object; none in
    /// SQL.
    #[arg(long, value_name = "COLUMN", env = "GENWATCH_KEY_COLUMN")]
    key_column: Option<String>,

    /// The column that has a row's time. Default: _time in Flux, time in SQL.
    #[arg(long, value_name = "COLUMN", env = "GENWATCH_TIME_COLUMN")]
    time_column: Option<String>,

    #[command(flatten)]
    transform: TransformOptions,

    /// Stop once everything up to now is produced.
    #[arg(long, env = "GENWATCH_EXIT_AT_END")]
    exit_at_end: bool,

    /// Serve /metrics, /livez and /readyz here.
    #[arg(long, value_name = "HOST:PORT", env = "GENWATCH_HTTP")]
    http: Option<crate::service::http::HttpAddress>,

    #[command(flatten)]
    cluster: ClusterOptions,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    match &options.store {
        Store::Influx(options) => run_influx(options),
    }
}

fn run_influx(options: &Influx) -> Result<(), Failure> {
    let query = query(options)?;
    query.check().map_err(Failure::usage)?;
    let shape = RecordShape {
        time_column: options.time_column.clone().unwrap_or_else(|| query.time_column().to_owned()),
        key_column: options.key_column.clone(),
    };
    let client = QueryClient::new(
        &options.url,
        options.access.ca_file(),
        options.access.token()?,
        query,
        options.align,
        shape,
    );
    let topics = options.cluster.topics();
    refuse_own("--to-topic", &options.to_topic, &topics.own()).map_err(Failure::usage)?;
    let transform = options.transform.load_routes(TransformCommand::SOURCE, &topics)?;
    let config = SourceConfig {
        connection: options.cluster.connection()?,
        group: options.cluster.group.clone(),
        name: options.name.clone().unwrap_or_else(|| options.to_topic.clone()),
        to_topic: options.to_topic.clone(),
        create_like: options.create_topic.then(|| topics.readings.clone()),
        transform,
        dead_letters: Topics::new(&options.to_topic, &options.cluster.group).dead_letters,
        own_topics: topics.own().map(str::to_owned).to_vec(),
        cursors: topics.sources,
        worker: worker_name(),
        reports: topics.workers,
        client: client.map_err(Failure::usage)?,
        every: options.every,
        rescan: options.rescan,
        align: options.align,
        from: match options.from {
            StartAt::Beginning => Nanos(0),
            StartAt::Now => clock::now().into(),
            StartAt::Time(at) => at.into(),
        },
        exit_at_end: options.exit_at_end,
    };
    super::run_service(options.http.as_ref(), |context| Ok(crate::source::run(config, context)?))
}

fn query(options: &Influx) -> Result<Query, Failure> {
    let text = match (&options.query, &options.query_file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) => std::fs::read_to_string(path)
            .with_context(|| format!("--query-file {}", path.display()))
            .map_err(Failure::Usage)?,
        (None, None) => return Err(Failure::usage(anyhow!("--query or --query-file is missing"))),
    };
    match (&options.org, &options.database) {
        (Some(org), _) => Ok(Query::Flux { org: org.clone(), text }),
        (None, Some(database)) => Ok(Query::Sql { database: database.clone(), text }),
        (None, None) => Err(Failure::usage(anyhow!("--org or --database is missing"))),
    }
}

fn window(text: &str) -> Result<Duration, String> {
    match super::duration(text)? {
        Duration::ZERO => Err("longer than nothing".to_owned()),
        window => Ok(window),
    }
}
