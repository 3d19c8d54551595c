//! `genwatch sink`: from Kafka to other stores.

use std::time::Duration;

use clap::{Args, Subcommand};
use genwatch_core::engine::start::OnOutOfRange;
use genwatch_core::transform::record::Command as TransformCommand;
use genwatch_kafka::config::worker_name;
use genwatch_kafka::subscriber::SubscriberError;

use super::influx::AccessOptions;
use super::options::Choice;
use super::transform::TransformOptions;
use super::{ClusterOptions, Failure};
use crate::sink::influx::InfluxStore;
use crate::sink::influx::client::{Client, Destination};
use crate::sink::influx::line_protocol::{self, PointShape, Precision};
use crate::sink::{SinkConfig, SinkError};

/// Write readings, alerts and aggregates to a database.
#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    store: Store,
}

#[derive(Debug, Subcommand)]
enum Store {
    Influx(Influx),
}

/// Write <TOPIC>, <TOPIC>_alerts and <TOPIC>_1m to InfluxDB, by its v2 write API.
///
/// Start as many as needed: they share the partitions as the consumer group <GROUP>_influx, separate from the workers'.
/// Offsets are committed once InfluxDB has acknowledged the points; a point written twice overwrites itself. While
/// InfluxDB is away the sink waits. Invalid readings and refused points are skipped and counted. --transform changes
/// what is written. SIGTERM writes and
/// commits what was taken in; at the end one JSON summary is printed.
#[derive(Debug, Args)]
#[command(mut_arg("token", |token| token.help("The API token; it needs write access to the bucket")))]
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

    /// The organization.
    #[arg(long, env = "GENWATCH_ORG")]
    org: String,

    /// The bucket.
    #[arg(long, env = "GENWATCH_BUCKET")]
    bucket: String,

    #[command(flatten)]
    access: AccessOptions,

    /// Unit of the points' timestamps.
    #[arg(long, value_enum, default_value_t = Choice(Precision::Ns), env = "GENWATCH_PRECISION")]
    precision: Choice<Precision>,

    /// Measurement of the readings; alerts go to <NAME>_alerts, aggregates to <NAME>_1m. Default: the topic's name.
    #[arg(long, value_name = "NAME", env = "GENWATCH_MEASUREMENT", value_parser = measurement)]
    measurement: Option<String>,

    #[command(flatten)]
    transform: TransformOptions,

    /// The most records written together.
    #[arg(long, value_name = "RECORDS", default_value_t = 5000, env = "GENWATCH_BATCH", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,

    /// The most batches written at once. Each partition's records are still written in order.
    #[arg(long, value_name = "N", default_value_t = 4, env = "GENWATCH_CONNECTIONS", value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,

    /// How long a record waits for others to be written with.
    #[arg(long, default_value = "1s", value_parser = super::duration, env = "GENWATCH_LINGER")]
    linger: Duration,

    /// Stop once every assigned partition has reached the end it had at the start.
    #[arg(long, env = "GENWATCH_EXIT_AT_END")]
    exit_at_end: bool,

    /// What to do when retention has deleted records before they were read.
    #[arg(long, value_enum, default_value_t = Choice(OnOutOfRange::Fail), env = "GENWATCH_ON_OUT_OF_RANGE")]
    on_out_of_range: Choice<OnOutOfRange>,

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
    let destination = Destination {
        url: options.url.clone(),
        org: options.org.clone(),
        bucket: options.bucket.clone(),
        precision: options.precision.0,
    };
    let client = Client::new(destination, options.access.token()?, options.access.ca_file());
    let transform = options.transform.load(TransformCommand::sink("sink influx", check_measurement))?;
    let (topics, shapes): (Vec<String>, _) = topics(options).into_iter().unzip();
    let mut store = InfluxStore::new(client.map_err(Failure::usage)?, shapes);
    let dead_letters = transform.as_ref().map(|_| options.cluster.topics().dead_letters);
    if let Some(transform) = transform {
        store = store.transforming(transform, topics.clone());
    }
    let config = SinkConfig {
        connection: options.cluster.connection()?,
        group: format!("{}_influx", options.cluster.group),
        topics,
        name: worker_name(),
        reports: options.cluster.topics().workers,
        dead_letters,
        store,
        connections: options.connections as usize,
        batch: options.batch as usize,
        linger: options.linger,
        exit_at_end: options.exit_at_end,
        on_out_of_range: options.on_out_of_range.0,
    };
    super::run_service(options.http.as_ref(), |context| {
        crate::sink::run(config, context).map_err(|error| match error {
            // Conflicting properties are found when a client is made of them.
            SinkError::Subscriber(SubscriberError::Client(_)) => Failure::usage(error),
            _ => Failure::from(error),
        })
    })
}

/// Returns the topics, and how each topic's records become points.
fn topics(options: &Influx) -> Vec<(String, PointShape)> {
    let topics = options.cluster.topics();
    let name = options.measurement.as_ref().unwrap_or(&topics.readings);
    let precision = options.precision.0;
    vec![
        (topics.readings.clone(), PointShape::of_readings(name, precision)),
        (topics.alerts.clone(), PointShape::of_alerts(&format!("{name}_alerts"), precision)),
        (topics.aggregates.clone(), PointShape::of_aggregates(&format!("{name}_1m"), precision)),
    ]
}

fn measurement(name: &str) -> Result<String, String> {
    check_measurement(name).map(|()| name.to_owned())
}

fn check_measurement(name: &str) -> Result<(), String> {
    if line_protocol::is_measurement(name) {
        return Ok(());
    }
    Err("a name without line feed, not beginning with '#', and no backslash before a comma, a space or at its end".to_owned())
}
