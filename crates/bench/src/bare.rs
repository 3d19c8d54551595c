//! The baseline: the least a rust-rdkafka consumer must do.
//!
//! A loop that parses with serde_json and compares two numbers, over each of rust-rdkafka's two consumers; the faster
//! one counts. Queues have librdkafka's default sizes, but a full queue doesn't pause the fetcher for a second, as it
//! does by default. The loop keeps no state, produces nothing, commits nothing. With `--transactions` it does
//! genwatch's whole job in the plainest way: a map of alarm states, and alerts and offsets in a transaction every 100
//! ms.
//!
//! It is a contender among others: it takes their common options and runs as its own process. It uses rdkafka directly,
//! and from this crate only the connection to the cluster.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde::Deserialize;

use genwatch_kafka::config::Connection;

/// Names of the loops over [`BareClient::Base`] and [`BareClient::Stream`] in results.
pub const BARE_LOOPS: [&str; 2] = ["bare BaseConsumer", "bare StreamConsumer"];
/// Time between transactions.
const INTERVAL: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(10);

/// The options of the loop.
#[derive(Clone, Debug)]
pub struct BareConfig {
    /// The cluster.
    pub connection: Connection,
    /// The readings topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// Serial work per reading, in milliseconds.
    pub work_ms: u64,
    /// End after `count` records.
    pub count: u64,
    /// Which of rust-rdkafka's consumers to use.
    pub client: BareClient,
    /// Keep states, produce alerts and commit offsets, in transactions.
    pub transactions: bool,
}

impl BareConfig {
    /// A client with librdkafka's defaults and the properties that reach the cluster.
    fn cluster(&self) -> ClientConfig {
        let shared = self.connection.shared_properties();
        shared.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

/// A consumer of rust-rdkafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareClient {
    /// `BaseConsumer`: polled by a thread.
    Base,
    /// `StreamConsumer`: awaited in a task.
    Stream,
}

#[derive(Deserialize)]
struct Reading<'a> {
    #[serde(rename = "generatorID", borrow)]
    generator: &'a str,
    temperature: f64,
    fuel: f64,
}

/// Runs the loop, and prints its result.
///
/// # Errors
/// When the client fails.
pub fn run(options: &BareConfig) -> anyhow::Result<()> {
    let mut config = options.cluster();
    config
        .set("group.id", &options.group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "1");
    let told = match options.client {
        BareClient::Base => poll(config.create()?, options)?,
        BareClient::Stream => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            // Made within the runtime, as it starts a task.
            runtime.block_on(async { receive(config.create()?, options).await })?
        }
    };
    writeln!(std::io::stdout(), "{told}")?;
    Ok(())
}

fn poll(consumer: BaseConsumer, options: &BareConfig) -> anyhow::Result<serde_json::Value> {
    consumer.subscribe(&[&options.topic])?;
    let mut tally = Tally::new(options)?;
    while tally.records < options.count {
        let Some(message) = consumer.poll(TIMEOUT) else { continue };
        let message = message?;
        if options.work_ms > 0 {
            std::thread::sleep(Duration::from_millis(options.work_ms));
        }
        tally.take(&message, &consumer)?;
    }
    tally.finish(&consumer)
}

async fn receive(consumer: StreamConsumer, options: &BareConfig) -> anyhow::Result<serde_json::Value> {
    consumer.subscribe(&[&options.topic])?;
    let mut tally = Tally::new(options)?;
    while tally.records < options.count {
        let message = consumer.recv().await?;
        if options.work_ms > 0 {
            tokio::time::sleep(Duration::from_millis(options.work_ms)).await;
        }
        tally.take(&message, &consumer)?;
    }
    tally.finish(&consumer)
}

/// What the loop does with a record.
struct Tally {
    records: u64,
    flagged: u64,
    first: Option<Instant>,
    whole: Option<Whole>,
}

impl Tally {
    fn new(options: &BareConfig) -> anyhow::Result<Tally> {
        let whole = options.transactions.then(|| Whole::new(options)).transpose()?;
        Ok(Tally { records: 0, flagged: 0, first: None, whole })
    }

    fn take<C: ConsumerContext>(
        &mut self,
        message: &BorrowedMessage<'_>,
        consumer: &impl Consumer<C>,
    ) -> anyhow::Result<()> {
        self.first.get_or_insert_with(Instant::now);
        let Ok(reading) = serde_json::from_slice::<Reading<'_>>(message.payload().unwrap_or_default()) else {
            return Ok(());
        };
        self.records += 1;
        self.flagged += u64::from(reading.fuel < 200.0 || reading.temperature > 100.0);
        if let Some(whole) = &mut self.whole {
            let at = message.timestamp().to_millis().unwrap_or_default();
            whole.judge(&reading, message.partition(), message.offset(), at)?;
            if whole.begun.elapsed() >= INTERVAL {
                whole.commit(consumer)?;
            }
        }
        Ok(())
    }

    fn finish<C: ConsumerContext>(
        mut self,
        consumer: &impl Consumer<C>,
    ) -> anyhow::Result<serde_json::Value> {
        if let Some(whole) = &mut self.whole {
            whole.commit(consumer)?;
        }
        let seconds = self.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        let alerts = self.whole.map(|whole| whole.alerts);
        let (records, flagged) = (self.records, self.flagged);
        Ok(
            serde_json::json!({ "records": records, "seconds": seconds, "alerts": alerts, "flagged": flagged }),
        )
    }
}

/// The whole job, in the plainest way.
struct Whole {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
    active: HashMap<String, [bool; 2]>,
    next: HashMap<i32, i64>,
    begun: Instant,
    alerts: u64,
}

impl Whole {
    fn new(options: &BareConfig) -> anyhow::Result<Whole> {
        let producer: ThreadedProducer<_> = options
            .cluster()
            .set("transactional.id", &options.group)
            .set("retry.backoff.ms", "5")
            .set("partitioner", "murmur2_random")
            .create()?;
        producer.init_transactions(TIMEOUT)?;
        producer.begin_transaction()?;
        let (active, next) = (HashMap::new(), HashMap::new());
        Ok(Whole { producer, topic: options.topic.clone(), active, next, begun: Instant::now(), alerts: 0 })
    }

    fn judge(
        &mut self,
        reading: &Reading<'_>,
        partition: i32,
        offset: i64,
        at: i64,
    ) -> Result<(), KafkaError> {
        self.next.insert(partition, offset + 1);
        if !self.active.contains_key(reading.generator) {
            self.active.insert(reading.generator.to_owned(), [false; 2]);
        }
        let Some(active) = self.active.get_mut(reading.generator) else { return Ok(()) };
        let (fuel, heat) = (reading.fuel, reading.temperature);
        let rules = [
            ("low_fuel", "fuel", "warning", fuel, 200.0, fuel < 200.0, fuel > 250.0),
            ("over_temperature", "temperature", "critical", heat, 100.0, heat > 100.0, heat < 95.0),
        ];
        for (active, (rule, field, severity, value, threshold, raise, clear)) in active.iter_mut().zip(rules)
        {
            if !(if *active { clear } else { raise }) {
                continue;
            }
            *active = !*active;
            let state = if *active { "raised" } else { "cleared" };
            let alert = serde_json::json!({
                "id": format!("{}-{partition}-{offset}-{rule}", self.topic), "generatorID": reading.generator,
                "rule": rule, "state": state, "severity": severity, "field": field, "value": value,
                "threshold": threshold, "at": at,
                "source": { "topic": self.topic, "partition": partition, "offset": offset },
            })
            .to_string();
            let topic = format!("{}_alerts", self.topic);
            let record = BaseRecord::to(&topic).key(reading.generator).payload(&alert);
            self.producer.send(record).map_err(|(error, _)| error)?;
            self.alerts += 1;
        }
        Ok(())
    }

    fn commit<C: ConsumerContext>(&mut self, consumer: &impl Consumer<C>) -> anyhow::Result<()> {
        if !self.next.is_empty() {
            let mut offsets = TopicPartitionList::new();
            for (partition, next) in self.next.drain() {
                offsets.add_partition_offset(&self.topic, partition, Offset::Offset(next))?;
            }
            let group = consumer.group_metadata().ok_or_else(|| anyhow::anyhow!("no group"))?;
            self.producer.send_offsets_to_transaction(&offsets, &group, TIMEOUT)?;
            self.producer.commit_transaction(TIMEOUT)?;
            self.producer.begin_transaction()?;
        }
        self.begun = Instant::now();
        Ok(())
    }
}
