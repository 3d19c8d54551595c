//! `genwatch simulate`: a fleet of model generators reports.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use genwatch_core::pacer::Pacer;
use genwatch_core::reading::MAX_VALUE_BYTES;
use genwatch_core::simulator::{Faults, Fleet, SimulatedRecord};
use genwatch_core::types::Millis;
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::clock;
use genwatch_kafka::producer::{Produced, ReadingProducer};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::mqtt::MqttOptions;
use super::{ClusterOptions, Failure};
use crate::mqtt::fleet::{FleetError, MqttFleet};

/// How long to wait for undelivered records at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long after a stop request: the whole shutdown takes less than ten seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest sleep between two readings, and so until a stop request is seen.
const NAP: Duration = Duration::from_millis(50);
/// One machine has no ports for more connections: they would be refused one by one.
const MAX_CONNECTIONS: u32 = 20_000;
/// Other files that are open.
const OTHER_FILES: u64 = 64;

/// Produce readings of a simulated fleet.
///
/// The fleet is a model: each generator has a tank, a load profile, ambient temperature, burn and heating that follow
/// load, refuelling, now and then a failing fan or a leak. The same seed and number of generators give the same
/// readings. At the end one JSON line shows what was delivered; the exit code is 0 only if all was.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Number of generators that report.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_GENERATORS", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    generators: u32,

    /// Records a second; 0 is full speed.
    #[arg(long, default_value_t = 1000, env = "GENWATCH_RATE")]
    rate: u32,

    /// Stop after this many records.
    #[arg(long, env = "GENWATCH_COUNT")]
    count: Option<u64>,

    /// Stop after this time.
    #[arg(long, value_parser = super::duration, env = "GENWATCH_DURATION")]
    duration: Option<Duration>,

    /// Seed of the simulated fleet.
    #[arg(long, default_value_t = 1, env = "GENWATCH_SEED")]
    seed: u64,

    /// Produce the past: the first readings are this old, and each generator reports once a second of event time,
    /// however fast the records are sent. Without it a reading has the time of its sending.
    #[arg(long, value_name = "DURATION", value_parser = super::duration, env = "GENWATCH_BACKFILL")]
    backfill: Option<Duration>,

    /// Destination of the readings.
    #[arg(long, value_enum, default_value_t = Destination::Kafka, env = "GENWATCH_TO")]
    to: Destination,

    /// Mix in every kind of bad record, about one in a hundred.
    #[arg(long, env = "GENWATCH_FAULTS")]
    faults: bool,

    #[command(flatten)]
    mqtt: MqttOptions,

    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Destination {
    /// The readings topic.
    Kafka,
    /// An MQTT broker: each generator has its own connection, with a last will. `genwatch bridge` forwards to Kafka.
    Mqtt,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = super::stop_on_signals()?;
    let (way, faults) = match options.to {
        Destination::Kafka => to_kafka(options)?,
        Destination::Mqtt => (to_mqtt(options)?, Faults::None),
    };
    let mut fleet = Fleet::new(options.seed, options.generators, faults);

    let begun = Instant::now();
    let mut pacer = (options.rate > 0).then(|| Pacer::new(f64::from(options.rate), begun));
    let progress = progress_bar(options.count);
    let first = options.backfill.map(|age| clock::now().0.saturating_sub(clock::millis(age)));
    let round = |sent: u64| i64::try_from(sent / u64::from(options.generators)).unwrap_or(i64::MAX);
    let mut sent = 0_u64;
    let mut refused = None;
    let time_is_over = || {
        stop.load(Ordering::Relaxed) || options.duration.is_some_and(|duration| begun.elapsed() >= duration)
    };
    'sending: while !time_is_over() && options.count.is_none_or(|count| sent < count) {
        let due = match &mut pacer {
            None => 1000,
            Some(pacer) => pacer.due(Instant::now()),
        };
        let left = options.count.map_or(due as u64, |count| count - sent);
        let batch = (due as u64).min(left);
        for _ in 0..batch {
            let at = first.map(|first| Millis(first.saturating_add(round(sent).saturating_mul(1000))));
            match way.send(&fleet.next(), at, time_is_over) {
                Ok(true) => sent += 1,
                Ok(false) => break 'sending,
                Err(error) => {
                    sent += 1;
                    refused = Some(error.to_string());
                    break 'sending;
                }
            }
        }
        progress.set_position(sent);
        if let Some(pacer) = &mut pacer {
            pacer.took(batch as usize);
            std::thread::sleep(pacer.wait(Instant::now()).min(NAP));
        }
    }
    let Produced { delivered, first_error, .. } = way.finish(sent, &stop);
    let seconds = begun.elapsed().as_secs_f64();
    progress.finish_and_clear();

    let failed = sent - delivered.min(sent);
    let mut out = std::io::stdout().lock();
    let result = serde_json::json!({
        "sent": sent, "delivered": delivered, "failed": failed, "seconds": seconds,
        "records_per_second": if seconds > 0.0 { delivered as f64 / seconds } else { 0.0 },
    });
    writeln!(out, "{result}")?;
    if failed == 0 {
        return Ok(());
    }
    let reason = refused.or(first_error).unwrap_or_else(|| "no answer in time".to_owned());
    Err(anyhow::anyhow!("{failed} of {sent} records were not delivered: {reason}").into())
}

/// Where the readings go.
enum Way {
    Kafka(ReadingProducer),
    Mqtt(MqttFleet),
}

impl Way {
    /// Sends a record, waiting for room until `give_up`; returns whether it was sent.
    fn send(
        &self,
        record: &SimulatedRecord<'_>,
        at: Option<Millis>,
        give_up: impl Fn() -> bool,
    ) -> anyhow::Result<bool> {
        match self {
            Way::Kafka(producer) => Ok(producer.send_unless(record.key, record.value, at, give_up)?),
            // Without faults each record has both.
            Way::Mqtt(fleet) => {
                fleet.send(record.key.unwrap_or_default(), record.value.unwrap_or_default())?;
                Ok(true)
            }
        }
    }

    /// Waits for records in flight; only briefly after a stop request.
    fn finish(self, sent: u64, stop: &AtomicBool) -> Produced {
        let begun = Instant::now();
        let stopped = Cell::new(None);
        match self {
            Way::Kafka(producer) => producer.finish_unless(|| {
                if stop.load(Ordering::Relaxed) && stopped.get().is_none() {
                    stopped.set(Some(Instant::now()));
                }
                begun.elapsed() > FLUSH_TIMEOUT
                    || stopped.get().is_some_and(|at: Instant| at.elapsed() > STOP_TIMEOUT)
            }),
            Way::Mqtt(fleet) => {
                let timeout = if stop.load(Ordering::Relaxed) { STOP_TIMEOUT } else { FLUSH_TIMEOUT };
                fleet.finish(sent, timeout)
            }
        }
    }
}

fn to_kafka(options: &Options) -> Result<(Way, Faults), Failure> {
    let connection = options.cluster.connection()?;
    let cluster = Cluster::connect(&connection)?;
    cluster.require(&options.cluster.topic)?;
    let faults = which_faults(options, &cluster);
    // Conflicting properties are found when a client is made of them.
    let producer = match options.rate {
        0 => ReadingProducer::at_full_speed(&connection, &options.cluster.topic),
        _ => ReadingProducer::new(&connection, &options.cluster.topic),
    };
    let producer = producer.map_err(Failure::usage)?;
    Ok((Way::Kafka(producer), faults))
}

fn to_mqtt(options: &Options) -> Result<Way, Failure> {
    if options.backfill.is_some() {
        let reason = "--backfill is for --to kafka: by MQTT a device reports when it takes a reading";
        return Err(Failure::usage(anyhow::anyhow!(reason)));
    }
    if options.faults {
        let reason = "--faults is for --to kafka: MQTT knows no record without a key";
        return Err(Failure::usage(anyhow::anyhow!(reason)));
    }
    if options.generators > MAX_CONNECTIONS {
        let reason = format!("--to mqtt makes a connection for each generator: at most {MAX_CONNECTIONS}");
        return Err(Failure::usage(anyhow::anyhow!(reason)));
    }
    allow_connections(options.generators)?;
    let broker = options.mqtt.broker().map_err(Failure::usage)?;
    let ids = (1..=options.generators).map(|number| format!("generator{number}"));
    let fleet = MqttFleet::connect(&broker, &options.mqtt.tree(), ids).map_err(|error| match error {
        FleetError::Topic(_) => Failure::usage(error),
        _ => Failure::from(error),
    })?;
    Ok(Way::Mqtt(fleet))
}

/// A process may usually have 1,024 open files, and more on request.
fn allow_connections(connections: u32) -> Result<(), Failure> {
    let wanted = u64::from(connections) + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).map_err(|_| {
        let allowed = limit.maximum.unwrap_or_default();
        let reason = format!(
            "{connections} connections need {wanted} open files; this system allows {allowed} (ulimit -n)"
        );
        Failure::usage(anyhow::anyhow!(reason))
    })
}

/// A topic that we didn't create may refuse records over 1 MiB; then this kind of fault is left out.
fn which_faults(options: &Options, cluster: &Cluster) -> Faults {
    if !options.faults {
        return Faults::None;
    }
    let limit = cluster
        .topic_config(&options.cluster.topic, "max.message.bytes")
        .and_then(|limit| limit.parse().ok());
    if limit.is_some_and(|limit: usize| limit <= MAX_VALUE_BYTES + 65_536) {
        tracing::warn!(
            limit,
            "the topic's max.message.bytes refuses too_large records: that kind of fault is left out"
        );
        return Faults::WithoutTooLarge;
    }
    Faults::All
}

fn progress_bar(count: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match count {
        Some(count) => {
            (ProgressBar::new(count), "{bar:40} {human_pos}/{human_len} readings, {per_sec}, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} readings, {per_sec}, {elapsed}"),
    };
    // The templates are constants; an invalid one falls back to indicatif's default.
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
