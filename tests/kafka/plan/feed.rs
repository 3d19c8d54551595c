//! Readings at a steady rate, from generators of unequal shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::distr::weighted::WeightedIndex;
use rand::prelude::{Distribution as _, SeedableRng as _};
use rand_pcg::Pcg64;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};

use crate::world::PATIENCE;
use crate::world::records::Outgoing;

/// How often it produces.
const TICK: Duration = Duration::from_millis(20);

/// What is produced.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Readings a second.
    pub rate: f64,
    /// The weight of each generator, and its partition where the key doesn't decide.
    pub generators: Vec<(f64, Option<i32>)>,
    /// Whether each reading raises or clears an alarm.
    pub stormy: bool,
}

/// A feed under way. Ends when it is dropped.
pub struct Feeding {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts to produce.
    pub fn start(&self, brokers: &str, topic: &str, seed: u64) -> Feeding {
        let over = Arc::new(AtomicBool::new(false));
        let (feed, topic, ends) = (self.clone(), topic.to_owned(), Arc::clone(&over));
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .create()
            .expect("a producer");
        let thread = std::thread::spawn(move || feed.produce(&producer, &topic, seed, &ends));
        Feeding { over, thread: Some(thread) }
    }

    fn produce(
        &self,
        producer: &ThreadedProducer<DefaultProducerContext>,
        topic: &str,
        seed: u64,
        over: &AtomicBool,
    ) {
        let mut random = Pcg64::seed_from_u64(seed);
        let weights = WeightedIndex::new(self.generators.iter().map(|(weight, _)| *weight)).expect("weights");
        let mut high = vec![false; self.generators.len()];
        let begun = Instant::now();
        let mut sent = 0.0;
        while !over.load(Ordering::Relaxed) {
            let due = begun.elapsed().as_secs_f64() * self.rate;
            while sent < due {
                sent += 1.0;
                let generator = weights.sample(&mut random);
                high[generator] = !high[generator];
                let fuel = if self.stormy && high[generator] { 100.0 } else { 900.0 };
                let outgoing = Outgoing::reading(&format!("generator{generator}"), 74.0, fuel);
                let mut record = BaseRecord::<[u8], [u8]>::to(topic);
                record.partition = self.generators[generator].1;
                record.key = outgoing.key.as_deref();
                record.payload = outgoing.value.as_deref();
                producer.send(record).map_err(|(error, _)| error).expect("there is room");
            }
            std::thread::sleep(TICK);
        }
        producer.flush(PATIENCE).expect("all acknowledged");
    }
}

impl Feeding {
    /// Ends it, once all is acknowledged.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the feed failed");
        }
    }
}

impl Drop for Feeding {
    fn drop(&mut self) {
        self.end();
    }
}
