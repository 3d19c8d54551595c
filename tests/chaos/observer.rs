//! A reader of committed alerts that runs during the whole run: when each alert became visible.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

/// More than a run ever grows to: a partition is read as soon as it exists.
const PARTITIONS_MAX: i32 = 64;

/// The first time that an alert was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    pub generator: String,
    /// The reading that caused it.
    pub partition: i32,
    pub offset: i64,
    /// Time since the beginning of the run.
    pub at: Duration,
}

/// All alerts by their id, and the last one of each generator.
#[derive(Default)]
struct Shared {
    seen: HashMap<String, Seen>,
    last: HashMap<String, (i32, i64)>,
}

pub struct Observer {
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Reads from these offsets on, and other partitions from their beginning. `begun` is the beginning of the run;
    /// times count from it.
    pub fn start(brokers: &str, topic: &str, from: &BTreeMap<i32, i64>, begun: Instant) -> Observer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", "chaos-observer")
            .set("group.id", "chaos-observer")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            // A late alert must be the workers' doing, not the reader's.
            .set("fetch.error.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500")
            .set("topic.metadata.refresh.interval.ms", "1000")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS_MAX {
            let offset = from.get(&partition).map_or(Offset::Beginning, |offset| Offset::Offset(*offset));
            list.add_partition_offset(topic, partition, offset).expect("an offset");
        }
        consumer.assign(&list).expect("assigned");
        let (shared, stop) = (Arc::<Mutex<Shared>>::default(), Arc::<AtomicBool>::default());
        let (ours, told) = (Arc::clone(&shared), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                // Errors come from brokers that fail, and from partitions that don't exist yet.
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
                let (id, alert) = read(message.payload().expect("a value"), begun.elapsed());
                let Shared { seen, last } = &mut *ours.lock().unwrap();
                last.insert(alert.generator.clone(), (alert.partition, alert.offset));
                seen.entry(id).or_insert(alert);
            }
        });
        Observer { shared, stop, thread: Some(thread) }
    }

    pub fn count(&self) -> usize {
        self.shared.lock().unwrap().seen.len()
    }

    /// Each generator and the causing reading of the last alert seen of it.
    pub fn last(&self) -> HashMap<String, (i32, i64)> {
        self.shared.lock().unwrap().last.clone()
    }

    /// Stops, and returns all that it saw.
    pub fn finish(&mut self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("not finished yet").join().expect("the observer reads alerts");
        std::mem::take(&mut self.shared.lock().unwrap().seen).into_values().collect()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn read(value: &[u8], at: Duration) -> (String, Seen) {
    let alert: Value = serde_json::from_slice(value).expect("an alert is JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let number = |value: &Value| value.as_i64().expect("an integer");
    let source = &alert["source"];
    let seen = Seen {
        generator: text(&alert["generatorID"]),
        partition: i32::try_from(number(&source["partition"])).expect("a partition"),
        offset: number(&source["offset"]),
        at,
    };
    (text(&alert["id"]), seen)
}
