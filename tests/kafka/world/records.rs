//! Records in and out of Kafka, by rdkafka alone.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::{PATIENCE, now_ms, until_some};
use crate::oracle::log::HeaderList;
pub use crate::oracle::log::{Records, read};

const REQUEST: Duration = Duration::from_secs(20);

/// A record to be produced.
#[derive(Clone, Debug, Default)]
pub struct Outgoing {
    /// `None` leaves it to the key.
    pub partition: Option<i32>,
    /// `None` is null.
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since the epoch; `None` is now.
    pub timestamp: Option<i64>,
    /// Its headers.
    pub headers: HeaderList,
}

impl Outgoing {
    /// A record of a key and a value.
    pub fn new(key: &str, value: &[u8]) -> Outgoing {
        Outgoing { key: Some(key.into()), value: Some(value.to_vec()), ..Outgoing::default() }
    }

    /// A good reading.
    pub fn reading(generator: &str, temperature: f64, fuel: f64) -> Outgoing {
        let value = serde_json::json!({
            "generatorID": generator, "lat": 40.65995, "lon": -111.99633,
            "temperature": temperature, "pressure": 198, "fuel": fuel,
        });
        Outgoing::new(generator, value.to_string().as_bytes())
    }

    /// The generator is decommissioned.
    pub fn tombstone(generator: &str) -> Outgoing {
        Outgoing { key: Some(generator.into()), ..Outgoing::default() }
    }

    /// The same at another time.
    pub fn at(self, timestamp: i64) -> Outgoing {
        Outgoing { timestamp: Some(timestamp), ..self }
    }

    /// The same to this partition, whatever its key.
    pub fn to(self, partition: i32) -> Outgoing {
        Outgoing { partition: Some(partition), ..self }
    }
}

/// `count` readings of some generators in turn, a second apart for each of them, the last ones now. Tanks are emptied
/// and filled and engines run hot all the time, so that about one reading in six changes some alarm.
pub fn stormy_readings(generators: usize, count: usize) -> Vec<Outgoing> {
    let begun = now_ms() - 1000 * i64::try_from(count / generators + 1).unwrap();
    (0..count)
        .map(|n| {
            let (generator, step) = (n % generators, n / generators);
            let fuel = 300.0 - ((step * 13 + generator * 7) % 30) as f64 * 6.0;
            let temperature = 80.0 + ((step * 7 + generator * 3) % 25) as f64;
            let at = begun + 1000 * i64::try_from(step).unwrap();
            Outgoing::reading(&format!("generator{generator}"), temperature, fuel).at(at)
        })
        .collect()
}

/// Produces records and waits until all are acknowledged.
pub fn produce(brokers: &str, topic: &str, records: &[Outgoing]) {
    let producer: ThreadedProducer<DefaultProducerContext> = client(brokers)
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("message.max.bytes", "16000000")
        .create()
        .expect("a producer");
    for outgoing in records {
        let headers = outgoing.headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header { key, value: value.as_deref() })
        });
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
        record.partition = outgoing.partition;
        record.key = outgoing.key.as_deref();
        record.payload = outgoing.value.as_deref();
        record.timestamp = outgoing.timestamp;
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((error, unsent)) => {
                    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                    record = unsent;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
    producer.flush(PATIENCE).expect("all acknowledged");
}

/// A group's committed offsets, by partition.
#[derive(Clone, Debug)]
pub struct Group {
    /// Committed offset (`None`: nothing yet), first offset, end.
    pub partitions: BTreeMap<i32, (Option<i64>, i64, i64)>,
}

impl Group {
    /// Records between the committed offset and the end.
    pub fn lag(&self) -> i64 {
        self.partitions.values().map(|(committed, low, high)| high - committed.unwrap_or(*low)).sum()
    }

    /// Records below the committed offset.
    pub fn done(&self) -> i64 {
        self.partitions.values().map(|(committed, low, _)| committed.unwrap_or(*low)).sum()
    }

    /// Records in the log.
    pub fn end(&self) -> i64 {
        self.partitions.values().map(|(_, _, high)| high).sum()
    }
}

/// A group's committed offsets.
pub fn progress(brokers: &str, topic: &str, group: &str) -> Group {
    let client = consumer(brokers, group, "read_uncommitted");
    let mut list = TopicPartitionList::new();
    for partition in 0..partition_count(&client, topic) {
        list.add_partition(topic, partition);
    }
    // Refused for a moment while the group's coordinator moves or a transaction is open.
    let committed = until_some("the committed offsets are known", || {
        client
            .committed_offsets(list.clone(), REQUEST)
            .ok()
            .filter(|list| list.elements().iter().all(|element| element.error().is_ok()))
    });
    let partitions = committed.elements().into_iter().map(|element| {
        // A new partition has no leader yet.
        let (low, high) = until_some("the watermarks are known", || {
            client.fetch_watermarks(topic, element.partition(), REQUEST).ok()
        });
        let committed = match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        (element.partition(), (committed, low, high))
    });
    Group { partitions: partitions.collect() }
}

fn partition_count(client: &BaseConsumer, topic: &str) -> i32 {
    let count = until_some(&format!("topic {topic} is there"), || {
        let metadata = client.fetch_metadata(Some(topic), REQUEST).ok()?;
        let partitions = metadata.topics().first()?.partitions().len();
        (partitions > 0).then_some(partitions)
    });
    i32::try_from(count).unwrap()
}

fn consumer(brokers: &str, group: &str, isolation: &str) -> BaseConsumer {
    client(brokers)
        .set("group.id", group)
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .create()
        .expect("a consumer")
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", "genwatch-test");
    config
}
