//! The log as a reader of committed records sees it, read with rdkafka alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use genwatch_oracle::TopicRecord;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

const REQUEST: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// Headers of a record.
pub type HeaderList = Vec<(String, Option<Vec<u8>>)>;

/// A record in a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: HeaderList,
}

impl Stored {
    /// The last header of this name, as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().rev().find(|(key, _)| key == name)?;
        std::str::from_utf8(found.1.as_deref()?).ok()
    }

    /// The same as the oracle takes it.
    pub fn topic_record(&self) -> TopicRecord<'_> {
        TopicRecord {
            partition: self.partition,
            offset: self.offset,
            at: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        }
    }

    /// Its key as text.
    pub fn key(&self) -> &str {
        std::str::from_utf8(self.key.as_deref().expect("a key")).expect("UTF-8")
    }

    /// Its value as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(self.value.as_deref().expect("a value")).expect("JSON")
    }
}

/// Records of a topic: partition by partition, each in its order.
#[derive(Clone, Debug)]
pub struct Records(pub Vec<Stored>);

impl Records {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.0.iter()
    }

    /// Their values, which must be JSON.
    pub fn values(&self) -> impl Iterator<Item = Value> {
        self.iter().map(Stored::json)
    }

    /// The compacted topic: the last record of each key, without tombstones.
    pub fn compacted(&self) -> BTreeMap<String, &Stored> {
        let mut last = BTreeMap::new();
        for record in self.iter() {
            match record.value {
                Some(_) => last.insert(record.key().to_owned(), record),
                None => last.remove(record.key()),
            };
        }
        last
    }
}

/// All committed records of a topic, up to its present end.
pub fn read(brokers: &str, topic: &str) -> Records {
    // The high watermark, even while transactions are open; the reader below has to get there.
    let uncommitted = consumer(brokers, "read_uncommitted");
    let mut open: BTreeMap<i32, i64> = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for partition in 0..partition_count(&uncommitted, topic) {
        let (low, high) = uncommitted.fetch_watermarks(topic, partition, REQUEST).expect("watermarks");
        list.add_partition_offset(topic, partition, Offset::Offset(low)).expect("an offset");
        if low < high {
            open.insert(partition, high);
        }
    }
    let reader = consumer(brokers, "read_committed");
    reader.assign(&list).expect("assigned");
    let mut records = Vec::new();
    let mut deadline = Instant::now() + PATIENCE;
    while !open.is_empty() {
        let count = records.len();
        assert!(Instant::now() < deadline, "{topic} has no committed end: {open:?} after {count} records");
        let (partition, reached) = match reader.poll(Duration::from_millis(200)) {
            None => continue,
            Some(Ok(message)) => {
                let headers = message.headers().map_or_else(Vec::new, |headers| {
                    headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
                });
                records.push(Stored {
                    partition: message.partition(),
                    offset: message.offset(),
                    timestamp: message.timestamp().to_millis().expect("a timestamp"),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers,
                });
                deadline = Instant::now() + PATIENCE;
                (message.partition(), message.offset() + 1)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let position = reader.position().expect("a position");
                let offset = position.find_partition(topic, partition).map(|element| element.offset());
                let Some(Offset::Offset(offset)) = offset else { continue };
                (partition, offset)
            }
            Some(Err(error)) => {
                eprintln!("reading {topic}: {error}");
                continue;
            }
        };
        if open.get(&partition).is_some_and(|end| reached >= *end) {
            open.remove(&partition);
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Records(records)
}

fn partition_count(client: &BaseConsumer, topic: &str) -> i32 {
    let metadata = client.fetch_metadata(Some(topic), REQUEST).expect("metadata");
    let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    assert!(count > 0, "there is no topic {topic}");
    i32::try_from(count).expect("a number of partitions")
}

fn consumer(brokers: &str, isolation: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "oracle")
        .set("group.id", "none")
        .set("isolation.level", isolation)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        .create()
        .expect("a consumer")
}
