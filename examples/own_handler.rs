//! A handler of your own: looks up each reading's place, and writes a record when a generator has come to another
//! zone. In lanes, so that no generator waits for another's lookup; each record once, whatever crashes.
//!
//! ```text
//! cargo run --release --example own_handler -- localhost:9092 emergency_generators localhost:7000
//! ```
//!
//! The service there answers each line `LAT LON` with a line, the zone. The topic `<TOPIC>_zones` must have as many
//! partitions as the readings. A second instance takes over a part of them, with what is known of their generators.

use std::time::Duration;

use genwatch::service::{Context, MetricsError, MetricsRegistry};
use genwatch::worker::lookup::{LookupConfig, LookupError, Lookups};
use genwatch::worker::{self, Observed, WorkerConfig, WorkerSummary};
use genwatch_core::handler::effect::Keyed;
use genwatch_core::handler::{Handler, Incoming, Outputs, Place, Verdict};
use genwatch_core::reading::{self, BadRecord, Parsed};
use genwatch_core::types::Now;
use genwatch_kafka::{config::Connection, topics::HandlerTopics};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

#[derive(Clone, Debug)]
struct Zones;

/// What is known of a generator, in memory and in the state topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    zone: Option<String>,
}

impl Handler for Zones {
    /// Where it is; `None`: it is decommissioned.
    type Task = Option<(f64, f64)>;
    /// The zone; `None`: the lookup failed for good.
    type Answer = Option<String>;
    type State = Known;
    type Stored = Known;
    type Output = Keyed;

    fn parse<'a>(&self, record: &Incoming<'a>) -> Result<(&'a str, Self::Task), BadRecord> {
        Ok(match reading::parse(record.key, record.value)? {
            Parsed::Reading { generator, values } => (generator, Some((values.lat(), values.lon()))),
            Parsed::Decommissioned { generator } => (generator, None),
        })
    }

    fn create(&self, _: Now) -> Known {
        Known::default()
    }
    fn restore(&self, stored: Known, _: Now) -> Known {
        stored
    }
    fn store(&self, known: &Known) -> Known {
        known.clone()
    }

    fn handle(
        &self,
        known: &mut Known,
        task: Self::Task,
        zone: Self::Answer,
        at: &Place<'_>,
        out: &mut Outputs<'_, Keyed>,
    ) -> Verdict {
        if task.is_some() && (zone.is_none() || zone == known.zone) {
            return Verdict::Same;
        }
        let value = serde_json::json!({ "zone": zone, "offset": at.source.offset }).to_string().into_bytes();
        out.push(Keyed { generator: at.generator.clone(), value });
        known.zone = zone;
        if task.is_none() { Verdict::Gone } else { Verdict::Changed }
    }
}

impl Observed for Zones {
    type Metrics = ();

    fn register(&self, _: &MetricsRegistry) -> Result<(), MetricsError> {
        Ok(())
    }
}

async fn zone_of(service: String, place: Option<(f64, f64)>) -> Result<Option<String>, LookupError> {
    let Some((lat, lon)) = place else { return Ok(None) };
    let mut stream = BufReader::new(tokio::net::TcpStream::connect(service).await?);
    stream.write_all(format!("{lat} {lon}\n").as_bytes()).await?;
    let mut zone = String::new();
    stream.read_line(&mut zone).await?;
    Ok(Some(zone.strip_suffix('\n').ok_or("half an answer")?.to_owned()))
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Looks up the readings of `topic`, until the context says stop, or to their end.
pub fn run(to: [&str; 3], exit_at_end: bool, context: Context) -> Result<WorkerSummary, Failure> {
    let [brokers, topic, service] = to.map(str::to_owned);
    let (timeout, backoff) = (Duration::from_secs(1), Duration::from_millis(50));
    let config = LookupConfig { concurrency: 64, timeout, retries: 5, backoff };
    let lookups = Lookups::new(config, move |_, place| zone_of(service.clone(), place))?;
    let (output, group) = (format!("{topic}_zones"), format!("{topic}_zones"));
    let state = format!("{group}_state");
    let topics = HandlerTopics { readings: topic, output, state, dead_letters: None };
    let config = WorkerConfig::new(Connection::new(&brokers, &[])?, topics, &group);
    Ok(worker::run(WorkerConfig { exit_at_end, ..config }, Zones, lookups, context)?)
}

#[allow(dead_code)] // A test takes the file in as a module.
fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let to = arguments.iter().map(String::as_str).collect::<Vec<_>>();
    let to = to.try_into().map_err(|_| "usage: own_handler BROKERS READINGS-TOPIC LOOKUP-SERVICE")?;
    let context = Context::default();
    signal_hook::flag::register(signal_hook::consts::SIGINT, context.stop.clone())?;
    println!("{:?}", run(to, false, context)?);
    Ok(())
}
