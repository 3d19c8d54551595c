//! The producer: readings at a steady rate. Each counts once all replicas in sync have acknowledged it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::fleet::{Fleet, Outgoing, SLOW, SLOW_EVERY, SLOW_PARTITION, drag};

/// How long a partition that a topic should have may be unknown.
const GROWTH_TIMEOUT: Duration = Duration::from_secs(60);

/// The ends of partitions by their delivery reports, and what was delivered.
#[derive(Clone, Default)]
pub struct Delivered(Arc<Counts>);

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    failures: Mutex<Vec<String>>,
    ends: Mutex<BTreeMap<i32, i64>>,
    produced: Mutex<HashMap<(i32, i64), Duration>>,
}

impl Delivered {
    pub fn count(&self) -> u64 {
        self.0.delivered.load(Ordering::Relaxed)
    }

    /// Partition → the offset behind its last acknowledged record.
    pub fn ends(&self) -> BTreeMap<i32, i64> {
        self.0.ends.lock().unwrap().clone()
    }

    /// When each reading, by partition and offset, was handed to the producer, since the beginning of the run.
    pub fn produced(&self) -> HashMap<(i32, i64), Duration> {
        self.0.produced.lock().unwrap().clone()
    }

    /// The same for one reading.
    pub fn produced_at(&self, place: (i32, i64)) -> Option<Duration> {
        self.0.produced.lock().unwrap().get(&place).copied()
    }
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    /// Milliseconds since the beginning of the run.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, produced: usize) {
        match result {
            Ok(message) => {
                self.0.delivered.fetch_add(1, Ordering::Relaxed);
                let mut ends = self.0.ends.lock().unwrap();
                let end = ends.entry(message.partition()).or_default();
                *end = (*end).max(message.offset() + 1);
                let place = (message.partition(), message.offset());
                self.0.produced.lock().unwrap().insert(place, Duration::from_millis(produced as u64));
            }
            Err((error, _)) => self.0.failures.lock().unwrap().push(error.to_string()),
        }
    }
}

/// Commands to the producer.
enum Command {
    /// The topic now has this many partitions.
    Grow(i32),
    /// A reading of the slow generator. Its next one follows an interval later.
    ReportSlow,
    /// Readings.
    Send(Vec<Outgoing>),
}

pub struct Feed {
    pub delivered: Delivered,
    commands: Option<Sender<Command>>,
    partitions_at_first: i32,
    thread: Option<JoinHandle<u64>>,
}

impl Feed {
    /// `begun` is the beginning of the run; times count from it.
    pub fn start(brokers: &str, topic: &str, partitions: i32, rate: u32, seed: u64, begun: Instant) -> Feed {
        let delivered = Delivered::default();
        let producer: ThreadedProducer<Delivered> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", "chaos-feed")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Whatever the brokers go through, no record is given up.
            .set("message.timeout.ms", "0")
            .create_with_context(delivered.clone())
            .expect("a producer");
        let (commands, incoming) = channel();
        let (topic, fleet) = (topic.to_owned(), Fleet::new(seed, partitions));
        let thread = std::thread::spawn(move || {
            let mut line = Line { producer, topic, begun, sent: 0 };
            line.run(fleet, rate, &incoming);
            line.producer.flush(Duration::from_secs(90)).expect("all acknowledged");
            line.sent
        });
        Feed { delivered, commands: Some(commands), partitions_at_first: partitions, thread: Some(thread) }
    }

    /// The topic now has this many partitions: new generators report there.
    pub fn grow(&self, partitions: i32) {
        self.tell(Command::Grow(partitions));
    }

    /// The slow generator reports now, in addition to its turn.
    pub fn report_slow(&self) {
        self.tell(Command::ReportSlow);
    }

    /// In every initial partition a generator reports whose work takes a while.
    pub fn report_drags(&self) {
        let all =
            (0..self.partitions_at_first).map(|partition| Outgoing::reading(&drag(partition), partition));
        self.tell(Command::Send(all.collect()));
    }

    /// In each of these partitions a reading comes from the future, after which every window of the others is closed.
    pub fn close_windows(&self, partitions: i32) {
        self.tell(Command::Send((0..partitions).map(Outgoing::last).collect()));
    }

    /// Sending fails if the thread has ended; [`Feed::finish`] says why.
    fn tell(&self, command: Command) {
        let _ = self.commands.as_ref().expect("not finished yet").send(command);
    }

    /// Stops and waits until everything is acknowledged. Returns the number of records.
    pub fn finish(&mut self) -> u64 {
        self.commands = None;
        let sent = self.thread.take().expect("not finished yet").join().expect("the producer's thread");
        let failures = self.delivered.0.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} records were not delivered: {:?}", failures.len(), failures.first());
        assert_eq!(self.delivered.count(), sent, "all records are acknowledged");
        sent
    }
}

/// The producer's thread.
struct Line {
    producer: ThreadedProducer<Delivered>,
    topic: String,
    begun: Instant,
    sent: u64,
}

impl Line {
    /// Runs until the command channel closes.
    fn run(&mut self, mut fleet: Fleet, rate: u32, commands: &Receiver<Command>) {
        let begun = Instant::now();
        let (mut steady, mut slow) = (0_u64, Instant::now());
        loop {
            match commands.try_recv() {
                Ok(Command::Grow(partitions)) => fleet.grow(partitions),
                Ok(Command::ReportSlow) => {
                    self.send(&Outgoing::reading(SLOW, SLOW_PARTITION));
                    slow = Instant::now();
                }
                Ok(Command::Send(all)) => all.iter().for_each(|one| self.send(one)),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                    while steady < due {
                        self.send(&fleet.next());
                        steady += 1;
                    }
                    if slow.elapsed() > SLOW_EVERY {
                        self.send(&Outgoing::reading(SLOW, SLOW_PARTITION));
                        slow = Instant::now();
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    fn send(&mut self, outgoing: &Outgoing) {
        let asked = Instant::now();
        let produced = self.begun.elapsed().as_millis() as usize;
        let mut record = BaseRecord::<str, [u8], usize>::with_opaque_to(&self.topic, produced)
            .partition(outgoing.partition)
            .timestamp(now_ms() - outgoing.late);
        record.key = outgoing.key.as_deref();
        record.payload = outgoing.value.as_deref();
        while let Err((error, unsent)) = self.producer.send(record) {
            let unknown = KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition);
            assert!(error == unknown && asked.elapsed() < GROWTH_TIMEOUT, "not produced: {error}");
            // By default the client refreshes its metadata only every few minutes.
            let _ = self.producer.client().fetch_metadata(Some(&self.topic), Duration::from_secs(2));
            record = unsent;
        }
        self.sent += 1;
    }
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
