//! A group's progress, sampled all the time: the longest gap of each partition, and how soon it recovers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use crate::feed::Delivered;

const EVERY: Duration = Duration::from_millis(200);
const REQUEST: Duration = Duration::from_secs(2);
/// A coordinator that has moved is found by then.
const DEAF: Duration = Duration::from_secs(10);

/// The state of one partition.
#[derive(Clone, Copy, Debug)]
struct Progress {
    committed: i64,
    /// When it last progressed, or had nothing to do.
    moved: Instant,
    /// The longest time without progress while there was something to do.
    gap: Duration,
}

#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Mutex<BTreeMap<i32, Progress>>>,
    delivered: Delivered,
    stop: Arc<AtomicBool>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Monitor {
    pub fn start(brokers: &str, topic: &str, group: &str, partitions: i32, delivered: Delivered) -> Monitor {
        let (brokers, group) = (brokers.to_owned(), group.to_owned());
        let client = move || -> BaseConsumer {
            ClientConfig::new()
                .set("bootstrap.servers", &brokers)
                .set("client.id", "chaos-monitor")
                .set("group.id", &group)
                .set("enable.auto.commit", "false")
                // The committed offset, even while a transaction is open.
                .set("isolation.level", "read_uncommitted")
                .create()
                .expect("a client")
        };
        let monitor =
            Monitor { shared: Arc::default(), delivered, stop: Arc::default(), thread: Arc::default() };
        monitor.grow(partitions);
        let (sampler, topic) = (monitor.clone(), topic.to_owned());
        let thread = std::thread::spawn(move || {
            let (mut asks, mut heard) = (client(), Instant::now());
            while !sampler.stop.load(Ordering::Relaxed) {
                match sampler.sample(&asks, &topic) {
                    Ok(()) => heard = Instant::now(),
                    // What a client of librdkafka has lost isn't what the group has.
                    Err(error) if heard.elapsed() > DEAF => {
                        println!("           the monitor hears nothing: {error}; another client asks");
                        (asks, heard) = (client(), Instant::now());
                    }
                    Err(_) => {}
                }
                std::thread::sleep(EVERY);
            }
        });
        *monitor.thread.lock().unwrap() = Some(thread);
        monitor
    }

    /// The topic now has this many partitions.
    pub fn grow(&self, partitions: i32) {
        let mut shared = self.shared.lock().unwrap();
        for id in 0..partitions {
            let begun = Progress { committed: 0, moved: Instant::now(), gap: Duration::ZERO };
            shared.entry(id).or_insert(begun);
        }
    }

    fn sample(&self, client: &BaseConsumer, topic: &str) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for id in self.shared.lock().unwrap().keys() {
            list.add_partition(topic, *id);
        }
        // While the coordinator moves there is no answer, and the gap goes on.
        let committed = client.committed_offsets(list, REQUEST)?;
        let ends = self.delivered.ends();
        let mut shared = self.shared.lock().unwrap();
        for element in committed.elements() {
            if element.error().is_err() {
                continue;
            }
            let Some(progress) = shared.get_mut(&element.partition()) else { continue };
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                // Nobody has committed anything in a new partition yet.
                _ if progress.committed == 0 => 0,
                _ => continue,
            };
            let idle = offset >= ends.get(&element.partition()).copied().unwrap_or(0);
            progress.gap = progress.gap.max(progress.moved.elapsed());
            if offset > progress.committed || idle {
                progress.moved = Instant::now();
            }
            assert!(offset >= progress.committed, "partition {} went back", element.partition());
            progress.committed = offset;
        }
        Ok(())
    }

    /// The ends of all partitions, as far as the producer knows.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.delivered.ends()
    }

    /// Partitions that have not been committed up to these offsets, with the number of records left.
    pub fn behind(&self, ends: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
        let shared = self.shared.lock().unwrap();
        let left = |(id, end): (&i32, &i64)| (*id, end - shared[id].committed);
        ends.iter().map(left).filter(|(_, left)| *left > 0).collect()
    }

    /// The longest gap of each partition since the last call.
    pub fn take_gaps(&self) -> BTreeMap<i32, Duration> {
        let mut shared = self.shared.lock().unwrap();
        shared.iter_mut().map(|(id, progress)| (*id, std::mem::take(&mut progress.gap))).collect()
    }

    /// How long each partition has stood still so far.
    pub fn standing(&self) -> BTreeMap<i32, Duration> {
        let shared = self.shared.lock().unwrap();
        shared.iter().map(|(id, progress)| (*id, progress.moved.elapsed())).collect()
    }

    /// Fails if the sampler has ended: it panics when an offset goes back.
    pub fn check(&self) {
        let ended = self.thread.lock().unwrap().as_ref().is_some_and(JoinHandle::is_finished);
        assert!(!ended, "the committed offset of a partition went back");
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // The thread's own clone is the last but one.
        if Arc::strong_count(&self.stop) <= 2 {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}
