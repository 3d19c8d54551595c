//! Batches on their way to the store, several at a time.
//!
//! Each partition belongs to one lane, and a lane's batches are written one after the other, by a thread of its own. So the
//! records of a partition are written in their order, and what is acknowledged of it is always all that came before:
//! nothing has to be put in order again.
//!
//! Kafka hands out a partition's records in long runs, more than a batch: the lanes share a bound of full batches, so that a
//! run on one lane doesn't keep the others from their next records.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use genwatch_core::types::TopicPartition;

use super::batch::{AssignmentEpoch, NextOffset, Origin, PointBatch};
use super::store::{Skipped, StoreRefusal};
use super::writer::{Writers, Written};

/// A batch of so many bytes is full, however few records it holds.
const BATCH_BYTES: usize = 4 << 20;
/// How many full batches wait, at most, for each thread, whichever it is for.
const WAITING: usize = 2;

/// All lanes. Owned by the sink's loop; a writer's thread owns a batch while it writes it.
pub struct WriteLanes {
    writers: Writers,
    lanes: Vec<Lane>,
    /// The memory of batches that are done with.
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
    /// What will be done when the thread has written what it was given.
    writing: Option<BTreeMap<TopicPartition, NextOffset>>,
}

impl WriteLanes {
    /// WriteLanes for these writers' threads, `count` of them.
    pub fn new(writers: Writers, count: usize, batch: usize, linger: Duration) -> WriteLanes {
        let mut lanes: Vec<Lane> = (0..count).map(|_| Lane::default()).collect();
        if let Some(first) = lanes.first_mut() {
            // Its thread begins by asking whether it may write.
            first.writing = Some(BTreeMap::new());
        }
        WriteLanes { writers, lanes, spares: Vec::new(), batch, linger }
    }

    /// How long a record waits for others, at most.
    #[must_use]
    pub fn linger(&self) -> Duration {
        self.linger
    }

    /// Takes in a record, which `append` appends to its batch; one that makes no point is done with it all the same.
    ///
    /// # Errors
    /// With the reason why it makes no point.
    pub fn take_in(
        &mut self,
        origin: Origin,
        epoch: AssignmentEpoch,
        now: Instant,
        append: impl FnOnce(&mut String) -> Result<(), Skipped>,
    ) -> Result<(), Skipped> {
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

    /// Whether all that was taken in is written, and nobody waits for an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lanes.iter().all(|lane| lane.writing.is_none() && lane.waiting().next().is_none())
    }

    /// Whether all that was taken in is written; the question whether we may write at all may be open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_empty = |lane: &Lane| {
            lane.waiting().next().is_none() && lane.writing.as_ref().is_none_or(BTreeMap::is_empty)
        };
        self.lanes.iter().all(is_empty)
    }

    /// Records that wait for others.
    #[must_use]
    pub fn gathered(&self) -> usize {
        self.lanes.iter().flat_map(Lane::waiting).map(PointBatch::records).sum()
    }

    /// Whether something of this partition was taken in that isn't written yet.
    #[must_use]
    pub fn holds(&self, place: TopicPartition) -> bool {
        let lane = &self.lanes[self.lane_of(place)];
        lane.waiting().any(|batch| batch.until().contains_key(&place))
            || lane.writing.as_ref().is_some_and(|writing| writing.contains_key(&place))
    }

    /// Gives each free thread what its lane has gathered, when that is due, or now.
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

    /// A batch that is done with, waiting up to `wait`.
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

    /// Keeps the memory of a batch that is done with: it's large, and the next one needs as much.
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
    /// The batches that aren't under way and hold something, oldest first.
    fn waiting(&self) -> impl Iterator<Item = &PointBatch> {
        self.full.iter().chain(self.begun.map(|_| &self.filling))
    }
}
