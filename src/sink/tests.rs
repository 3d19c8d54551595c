//! Tests writers, lanes and offsets together, with a store in memory whose answers a test scripts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use genwatch_core::types::{Offset, PartitionId, TopicPartition};

use super::batch::Origin;
use super::lanes::WriteLanes;
use super::metrics::SinkMetrics;
use super::offsets::OffsetTracker;
use super::store::{NotWritten, Skipped, SourceRecord, Store, StoreRefusal, WriteAnswer};
use super::writer::{Writers, Written};
use crate::service::{Context, NotReady};

/// Nothing here takes a second; ends a test that hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// Keeps each line once. Refuses a batch that has a line with `bad`.
#[derive(Default)]
struct MemoryStore {
    lines: Mutex<BTreeSet<String>>,
    /// The answer to the check of write access; `None` is yes.
    check: Mutex<Option<WriteAnswer>>,
    /// The next answers to writes; without any the store writes.
    answers: Mutex<VecDeque<WriteAnswer>>,
    /// Number of lines of each write.
    writes: Mutex<Vec<usize>>,
    /// While closed, writes of slow lines wait.
    gate: (Mutex<bool>, Condvar),
}

impl MemoryStore {
    fn answering(answers: impl IntoIterator<Item = WriteAnswer>) -> MemoryStore {
        MemoryStore { answers: Mutex::new(answers.into_iter().collect()), ..MemoryStore::default() }
    }

    fn close(&self, closed: bool) {
        *self.gate.0.lock().unwrap() = closed;
        self.gate.1.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().cloned().collect()
    }
}

impl Store for MemoryStore {
    fn name(&self) -> &str {
        "memory"
    }

    fn address(&self) -> &str {
        "here"
    }

    fn append(&self, record: &SourceRecord<'_>, batch: &mut String) -> Result<(), NotWritten> {
        let Some(value) = record.value else {
            return Err(Skipped { label: "tombstone", reason: "a tombstone".to_owned() }.into());
        };
        batch.push_str(std::str::from_utf8(value).unwrap());
        batch.push('\n');
        Ok(())
    }

    fn check(&self) -> WriteAnswer {
        self.check.lock().unwrap().take().unwrap_or(WriteAnswer::Written)
    }

    fn write(&self, records: &str) -> WriteAnswer {
        let (closed, opened) = &self.gate;
        let waits = records.contains("slow");
        drop(opened.wait_while(closed.lock().unwrap(), |closed| *closed && waits).unwrap());
        self.writes.lock().unwrap().push(records.lines().count());
        if let Some(answer) = self.answers.lock().unwrap().pop_front() {
            return answer;
        }
        if records.contains("bad") {
            return WriteAnswer::NotAsOne("there is a bad one among them".to_owned());
        }
        self.lines.lock().unwrap().extend(records.lines().map(str::to_owned));
        WriteAnswer::Written
    }
}

/// A sink without Kafka.
struct Bench {
    store: Arc<MemoryStore>,
    lanes: WriteLanes,
    offsets: OffsetTracker,
    context: Context,
    _store_away: NotReady,
}

impl Bench {
    /// Creates batches of four records; holds partitions 0 to 3.
    fn new(store: MemoryStore, lanes: usize) -> Bench {
        let (store, context) = (Arc::new(store), Context::default());
        let metrics = SinkMetrics::register(&context.metrics).unwrap();
        let store_away = context.health.register("away", false);
        let topics = vec!["readings".to_owned()];
        let writers = Writers::start(lanes, Arc::clone(&store), topics, metrics, store_away.clone()).unwrap();
        let lanes = WriteLanes::new(writers, lanes, 4, Duration::from_secs(3600));
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&(0..4).map(place).collect::<Vec<_>>());
        Bench { store, lanes, offsets, context, _store_away: store_away }
    }

    fn take_in(&mut self, partition: i32, offset: i64, value: Option<&str>) {
        let origin = Origin { place: place(partition), offset: Offset(offset) };
        let epoch = self.offsets.take_in(origin.place, origin.offset).expect("held");
        let value = value.map(str::as_bytes);
        let source = SourceRecord { value, offset: origin.offset, ..SourceRecord::default() };
        let store = Arc::clone(&self.store);
        let _ = self.lanes.take_in(origin, epoch, Instant::now(), |text| store.append(&source, text));
    }

    /// Hands over gathered records and takes an outcome, if there is one.
    fn turn(&mut self) -> Result<Option<Written>, StoreRefusal> {
        self.lanes.hand_over(true);
        let written = self.lanes.outcome(Duration::from_millis(5))?;
        if let Some(written) = &written {
            self.offsets.written(written.batch.until());
        }
        Ok(written)
    }

    /// Turns until this holds.
    fn turn_until(&mut self, holds: impl Fn(&Bench) -> bool) -> Result<Vec<Written>, StoreRefusal> {
        let (mut done, deadline) = (Vec::new(), Instant::now() + DEADLINE);
        while !holds(self) {
            assert!(Instant::now() < deadline, "it makes no progress");
            done.extend(self.turn()?);
        }
        Ok(done)
    }

    /// Turns until all is written.
    fn drain(&mut self) -> Result<Vec<Written>, StoreRefusal> {
        self.turn_until(|bench| bench.lanes.is_idle())
    }

    fn committable(&mut self) -> BTreeMap<i32, i64> {
        let offsets = self.offsets.commit();
        self.offsets.committed(true);
        offsets.into_iter().map(|(place, offset)| (place.partition.0, offset.0)).collect()
    }
}

fn place(partition: i32) -> TopicPartition {
    TopicPartition { topic: 0, partition: PartitionId(partition) }
}

fn refused() -> StoreRefusal {
    "no such bucket: make it".into()
}

#[test]
fn a_batch_is_halved_until_the_bad_point_stands_alone() {
    let mut bench = Bench::new(MemoryStore::default(), 1);
    for (offset, value) in ["a", "bad", "c", "d"].iter().enumerate() {
        bench.take_in(0, offset as i64, Some(value));
    }
    let done = bench.drain().unwrap();
    assert_eq!(bench.store.lines(), ["a", "c", "d"]);
    assert_eq!(done.iter().map(|written| written.refused).sum::<usize>(), 1);
    assert_eq!(*bench.store.writes.lock().unwrap(), [4, 2, 1, 1, 2]);
    assert_eq!(bench.committable(), [(0, 4)].into(), "a refused point counts as done");
}

#[test]
fn what_the_store_cannot_take_now_is_repeated_until_it_does_and_health_says_so() {
    let wait = || WriteAnswer::Wait { after: None, reason: "busy".to_owned() };
    let mut bench = Bench::new(MemoryStore::answering([wait(), wait()]), 1);
    bench.take_in(0, 0, Some("a"));
    let mut done = bench.turn_until(|bench| bench.context.health.ready() == Err("away".to_owned())).unwrap();
    done.extend(bench.drain().unwrap());
    assert_eq!(done.iter().map(|written| written.retries).sum::<u64>(), 2);
    assert_eq!(bench.store.lines(), ["a"]);
    assert_eq!(bench.context.health.ready(), Ok(()));
}

#[test]
fn a_doubtful_store_ends_the_sink_at_first_and_is_waited_for_once_it_has_answered() {
    let store = MemoryStore::default();
    *store.check.lock().unwrap() = Some(WriteAnswer::Doubtful(refused()));
    let mut bench = Bench::new(store, 1);
    bench.take_in(0, 0, Some("a"));
    assert_eq!(bench.drain().unwrap_err().to_string(), "no such bucket: make it");
    assert!(bench.store.lines().is_empty(), "nothing is sent to it");

    let mut bench = Bench::new(MemoryStore::answering([WriteAnswer::Doubtful(refused())]), 1);
    bench.take_in(0, 0, Some("a"));
    let done = bench.drain().unwrap();
    assert_eq!(done.iter().map(|written| written.retries).sum::<u64>(), 1);
    assert_eq!(bench.store.lines(), ["a"]);
}

#[test]
fn a_refusal_commits_nothing() {
    let mut bench = Bench::new(MemoryStore::answering([WriteAnswer::Refused(refused())]), 1);
    bench.take_in(0, 0, Some("a"));
    assert!(bench.drain().is_err());
    assert!(bench.committable().is_empty());
}

#[test]
fn a_drain_writes_what_has_gathered_and_commits_up_to_there() {
    let mut bench = Bench::new(MemoryStore::default(), 2);
    for offset in 0..6 {
        bench.take_in(0, offset, Some(&format!("a{offset}")));
        bench.take_in(1, offset, (offset != 5).then_some("b"));
    }
    assert!(bench.committable().is_empty(), "nothing is acknowledged yet");
    bench.drain().unwrap();
    assert_eq!(bench.committable(), [(0, 6), (1, 6)].into(), "a tombstone counts as done, too");
    assert_eq!(bench.store.lines().len(), 7);
}

#[test]
fn a_slow_partition_holds_up_no_other_lane() {
    let mut bench = Bench::new(MemoryStore::default(), 2);
    bench.store.close(true);
    bench.take_in(0, 0, Some("slow"));
    bench.take_in(1, 0, Some("quick"));
    bench.turn_until(|bench| !bench.lanes.holds(place(1))).unwrap();
    assert!(bench.lanes.holds(place(0)));
    assert_eq!(bench.committable(), [(1, 1)].into());
    bench.store.close(false);
    bench.drain().unwrap();
    assert_eq!(bench.committable(), [(0, 1)].into());
}

#[test]
fn an_acknowledgement_that_comes_after_the_partition_has_gone_commits_nothing() {
    let mut bench = Bench::new(MemoryStore::default(), 1);
    bench.store.close(true);
    bench.take_in(0, 0, Some("slow"));
    bench.take_in(1, 0, Some("slow, too"));
    bench.turn_until(|bench| bench.lanes.gathered() == 0).unwrap();
    bench.offsets.removed(&[place(0)]);
    bench.offsets.assigned(&[place(0)]);
    bench.store.close(false);
    bench.drain().unwrap();
    assert_eq!(bench.committable(), [(1, 1)].into(), "its next owner writes the same point again");
    assert_eq!(bench.store.lines(), ["slow", "slow, too"]);
}
