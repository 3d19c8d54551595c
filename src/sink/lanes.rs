//! Batches on their way to the store, several at a time.
//!
//! Each partition belongs to one lane, and each lane has a thread that writes its batches one after the other. So a
//! partition's records are written in order, and an acknowledgement always covers everything before it: nothing needs
//! reordering.
//!
//! Kafka hands out a partition's records in long runs, more than a batch: the lanes share a bound of full batches, so
//! that a run on one lane doesn't keep the others from their next records.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use genwatch_core::types::TopicPartition;

use super::batch::{AssignmentEpoch, NextOffset, Origin, PointBatch};
use super::store::StoreRefusal;
use super::writer::{Writers, Written};

/// A batch of this size is full, however few records it holds.
const BATCH_BYTES: usize = 4 << 20;
/// The most waiting full batches per thread; all lanes share the total.
const WAITING: usize = 2;

/// All lanes. Owned by the sink's loop; a writer's thread owns a batch while it writes it.
pub struct WriteLanes {
    writers: Writers,
    lanes: Vec<Lane>,
    /// The memory of finished batches.
    spares: Vec<PointBatch>,
    /// Records of a full batch.
    batch: usize,
    linger: Duration,
}

#[derive(Default)]
struct Lane {
    /// Full batches, oldest first.
    full: VecDeque<PointBatch>,
    filling: PointBatch,
    /// When the first record of the batch that fills was taken in.
    begun: Option<Instant>,
    /// Each partition's next offset once the thread has written its batch.
    writing: Option<BTreeMap<TopicPartition, NextOffset>>,
}

impl WriteLanes {
    /// Creates `count` lanes for these writers' threads.
    pub fn new(writers: Writers, count: usize, batch: usize, linger: Duration) -> WriteLanes {
        let mut lanes: Vec<Lane> = (0..count).map(|_| Lane::default()).collect();
        if let Some(first) = lanes.first_mut() {
            // Its thread begins with the check of write access.
            first.writing = Some(BTreeMap::new());
        }
        WriteLanes { writers, lanes, spares: Vec::new(), batch, linger }
    }

    /// Returns the longest wait of a record for others.
    #[must_use]
    pub fn linger(&self) -> Duration {
        self.linger
    }

    /// Takes in a record, which `append` appends to its batch; the batch also covers a record that makes no point.
    ///
    /// # Errors
    /// With the reason if the record makes no point.
    pub fn take_in<E>(
        &mut self,
        origin: Origin,
        epoch: AssignmentEpoch,
        now: Instant,
        append: impl FnOnce(&mut String) -> Result<(), E>,
    ) -> Result<(), E> {
        let lane = self.lane_of(origin.place);
        let lane = &mut self.lanes[lane];
        lane.begun.get_or_insert(now);
        let taken = lane.filling.take_in(origin, epoch, append);
        if lane.filling.records() >= self.batch || lane.filling.bytes() >= BATCH_BYTES {
            let spare = self.spares.pop().unwrap_or_default();
            lane.full.push_back(std::mem::replace(&mut lane.filling, spare));
            lane.begun = None;
        }
        taken
    }

    /// Whether there is no room for another record.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lanes.iter().map(|lane| lane.full.len()).sum::<usize>() >= WAITING * self.lanes.len()
    }

    /// Whether everything taken in is written, and no answer is outstanding.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lanes.iter().all(|lane| lane.writing.is_none() && lane.waiting().next().is_none())
    }

    /// Whether everything taken in is written; the check of write access may still be open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_empty = |lane: &Lane| {
            lane.waiting().next().is_none() && lane.writing.as_ref().is_none_or(BTreeMap::is_empty)
        };
        self.lanes.iter().all(is_empty)
    }

    /// Returns the records that wait to be written.
    #[must_use]
    pub fn gathered(&self) -> usize {
        self.lanes.iter().flat_map(Lane::waiting).map(PointBatch::records).sum()
    }

    /// Whether a record of this partition was taken in and isn't written yet.
    #[must_use]
    pub fn holds(&self, place: TopicPartition) -> bool {
        let lane = &self.lanes[self.lane_of(place)];
        lane.waiting().any(|batch| batch.until().contains_key(&place))
            || lane.writing.as_ref().is_some_and(|writing| writing.contains_key(&place))
    }

    /// Hands each free thread its lane's next batch, when that is due, or `now`.
    pub fn hand_over(&mut self, now: bool) {
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if lane.writing.is_some() {
                continue;
            }
            let is_due = |begun: Instant| now || begun.elapsed() >= self.linger;
            let batch = match lane.full.pop_front() {
                Some(batch) => batch,
                None if lane.begun.is_some_and(is_due) => {
                    lane.begun = None;
                    std::mem::replace(&mut lane.filling, self.spares.pop().unwrap_or_default())
                }
                None => continue,
            };
            lane.writing = Some(batch.until().clone());
            self.writers.hand_over(number, batch);
        }
    }

    /// Returns a finished batch, waiting up to `wait`.
    ///
    /// # Errors
    /// When the store refuses us.
    pub fn outcome(&mut self, wait: Duration) -> Result<Option<Written>, StoreRefusal> {
        let outcome = self.writers.outcome(wait)?;
        if let Some(written) = &outcome {
            self.lanes[written.lane].writing = None;
        }
        Ok(outcome)
    }

    /// Keeps the memory of a finished batch: it's large, and the next one needs as much.
    pub fn reuse(&mut self, written: Written) {
        let mut batch = written.batch;
        batch.clear();
        self.spares.push(batch);
    }

    fn lane_of(&self, place: TopicPartition) -> usize {
        (place.topic + place.partition.0.unsigned_abs() as usize) % self.lanes.len()
    }
}

impl Lane {
    /// Returns the batches that hold records and aren't under way, oldest first.
    fn waiting(&self) -> impl Iterator<Item = &PointBatch> {
        self.full.iter().chain(self.begun.map(|_| &self.filling))
    }
}
