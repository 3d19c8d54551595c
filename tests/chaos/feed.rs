//! The producer: readings at a steady rate, every one acknowledged by all replicas in sync before it counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg32;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::oracle::Rule;

const GENERATORS: usize = 48;

/// The rules that workers go by, and the oracle. `heartbeat` fires at every reading: by it, what is proven of alerts is
/// proven of readings. `hot` has delays, so that a pending phase has to move with its partition.
pub const RULES: [Rule; 4] = [
    Rule::BUILT_IN[0],
    Rule::BUILT_IN[1],
    Rule { realarm: Some(1), ..Rule::above("heartbeat", "temperature", "info", -1000.0) },
    Rule {
        clear: Some(85.0),
        on_delay: 700,
        off_delay: 400,
        ..Rule::above("hot", "temperature", "warning", 90.0)
    },
];

/// The ends of partitions as delivery reports tell them, and what was delivered.
#[derive(Clone, Default)]
pub struct Delivered(Arc<Counts>);

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    failures: Mutex<Vec<String>>,
    ends: Mutex<BTreeMap<i32, i64>>,
}

impl Delivered {
    pub fn count(&self) -> u64 {
        self.0.delivered.load(Ordering::Relaxed)
    }

    /// Partition → the offset behind its last acknowledged record.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.0.ends.lock().unwrap().clone()
    }
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.0.delivered.fetch_add(1, Ordering::Relaxed);
                let mut ends = self.0.ends.lock().unwrap();
                let end = ends.entry(message.partition()).or_default();
                *end = (*end).max(message.offset() + 1);
            }
            Err((error, _)) => self.0.failures.lock().unwrap().push(error.to_string()),
        }
    }
}

pub struct Feed {
    pub delivered: Delivered,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Feed {
    pub fn start(brokers: &str, topic: &str, rate: u32, seed: u64) -> Feed {
        let delivered = Delivered::default();
        let producer: ThreadedProducer<Delivered> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", "chaos-feed")
            .set("partitioner", "murmur2_random")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Whatever the brokers go through, a record is not given up.
            .set("message.timeout.ms", "0")
            .create_with_context(delivered.clone())
            .expect("a producer");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let topic = topic.to_owned();
        let thread = std::thread::spawn(move || produce(&producer, &topic, rate, seed, &told));
        Feed { delivered, stop, thread: Some(thread) }
    }

    /// Stops and waits until everything is acknowledged. How many records there are.
    pub fn finish(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.thread.take().expect("not finished yet").join().expect("the producer's thread");
        let failures = self.delivered.0.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} records were not delivered: {:?}", failures.len(), failures.first());
        assert_eq!(self.delivered.count(), sent, "all records are acknowledged");
        sent
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn produce(
    producer: &ThreadedProducer<Delivered>,
    topic: &str,
    rate: u32,
    seed: u64,
    stop: &AtomicBool,
) -> u64 {
    let mut fleet = Fleet::new(seed);
    let begun = Instant::now();
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while sent < due {
            let (key, value, late) = fleet.next();
            let mut record = BaseRecord::<str, [u8]>::to(topic).timestamp(now_ms() - late);
            record.key = key.as_deref();
            record.payload = value.as_deref();
            producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    producer.flush(Duration::from_secs(90)).expect("all acknowledged");
    sent
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Generators in turn, each on a random walk that crosses all thresholds often; now and then a bad record, a late one, a
/// decommissioning.
struct Fleet {
    random: Pcg32,
    walks: Vec<(f64, f64)>,
    turn: usize,
}

impl Fleet {
    fn new(seed: u64) -> Fleet {
        Fleet { random: Pcg32::seed_from_u64(seed), walks: vec![(85.0, 260.0); GENERATORS], turn: 0 }
    }

    /// Key, value, and by how many milliseconds it is late.
    fn next(&mut self) -> (Option<String>, Option<Vec<u8>>, i64) {
        self.turn = (self.turn + 1) % GENERATORS;
        let id = format!("generator{}", self.turn);
        let (temperature, fuel) = &mut self.walks[self.turn];
        *temperature = (*temperature + self.random.random_range(-6.0..6.0)).clamp(70.0, 110.0);
        *fuel = (*fuel + self.random.random_range(-25.0..25.0)).clamp(120.0, 330.0);
        let reading = serde_json::json!({
            "generatorID": id, "lat": 40.65995, "lon": -111.99633,
            "temperature": *temperature, "pressure": 198, "fuel": *fuel,
        });
        let good = reading.to_string();
        let late = if self.random.random_ratio(1, 50) { 3000 } else { 0 };
        let (key, value) = match self.random.random_range(0..600) {
            0 => (Some(id), None),
            1 => (None, Some(good)),
            2 => (Some(format!("{id}0")), Some(good)),
            3 => (Some(id), Some(good.replace("\"fuel\"", "\"diesel\""))),
            4 => (Some(id), Some(good[..good.len() / 2].to_owned())),
            5 => (Some(id), Some(good.replace("198", "\"high\""))),
            6 => (Some(id), Some(good.replace("40.65995", "90.65995"))),
            _ => (Some(id), Some(good)),
        };
        (key, value.map(String::into_bytes), late)
    }
}
