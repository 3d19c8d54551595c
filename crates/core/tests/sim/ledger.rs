//! What a worker received of a partition and what became of it, kept beside the pool and checked against it.
//!
//! One ledger lives as long as one assignment. It knows which records were taken in and finished, and so what the
//! pool may start, commit and release.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use genwatch_core::handler::StoredState;
use genwatch_core::handler::effect::Effect;
use genwatch_core::pool::CommitPart;
use genwatch_core::types::{GeneratorId, TopicId};

use crate::invariants::{Violation, ensure};

/// The stage of the assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Records are taken in and processed.
    Working,
    /// To finish and give back.
    Revoked,
    /// Owned by another worker.
    Lost,
}

#[derive(Debug)]
struct Place {
    offset: i64,
    /// The generator whose lane it waits in; `None` once finished.
    waits: Option<String>,
}

/// The ledger of one assignment.
#[derive(Debug)]
pub struct Ledger {
    /// The number of the assignment.
    pub serial: u64,
    /// The topic of the partition.
    pub topic: TopicId,
    partition: i32,
    stage: Stage,
    start: i64,
    /// The next new offset.
    next: i64,
    places: VecDeque<Place>,
    running: BTreeMap<String, i64>,
    last_started: BTreeMap<String, i64>,
    /// Whether readings are processed strictly one after another, over all generators.
    serial_work: bool,
    newest_started: i64,
    /// All records below it are finished.
    watermark: i64,
    /// The offset of the last commit that the pool knows to be durable.
    acknowledged: i64,
    passed: u64,
    counted: u64,
    /// The offset that each restored state covers.
    covered: BTreeMap<String, i64>,
    /// Finished readings whose effects aren't durable yet.
    owed: BTreeSet<i64>,
    /// Those of them that are in the current commit.
    held: BTreeSet<i64>,
}

impl Ledger {
    /// The ledger of an assignment that begins at `start` with these states.
    pub fn new(
        topic: TopicId,
        partition: i32,
        serial: u64,
        start: i64,
        serial_work: bool,
        states: &[(GeneratorId, StoredState)],
    ) -> Ledger {
        let covers = |(id, state): &(GeneratorId, StoredState)| (id.as_str().to_owned(), state.offset.0);
        Ledger {
            serial,
            topic,
            partition,
            stage: Stage::Working,
            start,
            next: start,
            places: VecDeque::new(),
            running: BTreeMap::new(),
            last_started: BTreeMap::new(),
            serial_work,
            newest_started: -1,
            watermark: start,
            acknowledged: start,
            passed: 0,
            counted: 0,
            covered: states.iter().map(covers).collect(),
            owed: BTreeSet::new(),
            held: BTreeSet::new(),
        }
    }

    /// The pool takes in a record. `lane`: the generator whose lane it waits in; `None` if it is finished on arrival.
    /// Returns whether the record is new.
    pub fn take_in(&mut self, offset: i64, lane: Option<&str>) -> bool {
        let new = self.stage == Stage::Working && offset >= self.next;
        if new {
            self.next = offset + 1;
            self.places.push_back(Place { offset, waits: lane.map(str::to_owned) });
            self.advance();
        }
        new
    }

    /// There is nothing to process before `position`.
    pub fn reached(&mut self, position: i64) {
        if self.stage == Stage::Working {
            self.next = self.next.max(position);
        }
    }

    /// Whether the whole log below `end` has been taken in.
    pub fn has_reached(&self, end: i64) -> bool {
        self.next >= end
    }

    /// The pool starts a reading.
    pub fn start(&mut self, generator: &str, offset: i64) -> Result<(), Violation> {
        let partition = self.partition;
        ensure!(
            self.stage == Stage::Working,
            GivenUp,
            "offset {offset} was started though partition {partition} is {:?}",
            self.stage
        );
        let place = self.places.iter().find(|place| place.offset == offset);
        let waits = place.and_then(|place| place.waits.as_deref());
        ensure!(
            waits == Some(generator),
            Order,
            "offset {offset} of partition {partition} was started for {generator}; {waits:?} waits there"
        );
        let last = self.last_started.insert(generator.to_owned(), offset);
        ensure!(
            last.is_none_or(|last| last < offset),
            Order,
            "offset {offset} of {generator} was started after {last:?}"
        );
        ensure!(
            !self.serial_work || offset > self.newest_started,
            Order,
            "strictly serial processing of partition {partition} started {offset} after {}",
            self.newest_started
        );
        self.newest_started = offset;
        let earlier = self.places.iter().find(|place| place.waits.as_deref() == Some(generator));
        ensure!(
            earlier.is_some_and(|place| place.offset == offset) || self.running.contains_key(generator),
            Order,
            "offset {offset} of {generator} was started before {:?}",
            earlier.map(|place| place.offset)
        );
        let other = self.running.insert(generator.to_owned(), offset);
        ensure!(
            other.is_none(),
            OneAtATime,
            "offset {offset} of {generator} was started while {other:?} runs"
        );
        Ok(())
    }

    /// A reading is finished, and its work wasn't abandoned meanwhile.
    pub fn finish(&mut self, generator: &str, offset: i64) {
        self.running.remove(generator);
        if let Some(place) = self.places.iter_mut().find(|place| place.offset == offset) {
            place.waits = None;
        }
        self.advance();
    }

    /// A reading with effects is finished: the next commit must hold them, unless the restored state says that they
    /// are durable.
    pub fn owe(&mut self, generator: &str, offset: i64) {
        if self.covered.get(generator).is_none_or(|covered| offset > *covered) {
            self.owed.insert(offset);
        }
    }

    /// Whether any effects wait for a commit.
    pub fn owes(&self) -> bool {
        !self.owed.is_empty()
    }

    /// The partition is revoked.
    pub fn revoke(&mut self) {
        if self.stage == Stage::Working {
            self.stage = Stage::Revoked;
        }
    }

    /// Running readings are abandoned.
    pub fn abandon(&mut self) {
        self.running.clear();
    }

    /// The partition is lost to another worker.
    pub fn lose(&mut self) {
        self.stage = Stage::Lost;
        self.running.clear();
        self.owed.clear();
    }

    /// A commit is about to leave with this part. `may_leave`: bytes of effects from which it counts as full.
    pub fn commit(&mut self, part: &CommitPart, may_leave: usize, most: usize) -> Result<(), Violation> {
        let (partition, offset) = (self.partition, part.offset.0);
        ensure!(
            self.stage != Stage::Lost,
            GivenUp,
            "partition {partition} was lost but is committed at {offset}"
        );
        ensure!(
            offset >= self.acknowledged,
            Offsets,
            "partition {partition} goes back from {} to {offset}",
            self.acknowledged
        );
        let limit = self.places.front().map_or(self.next, |place| place.offset);
        ensure!(
            offset <= limit,
            Offsets,
            "partition {partition} is committed at {offset}, though only records below {limit} are finished"
        );
        let states = part.effects.iter().filter_map(Effect::as_state);
        self.held = states.map(|change| change.offset.0).collect();
        let left = self.owed.difference(&self.held).next();
        let bytes: usize = part.effects.iter().map(Effect::bytes).sum();
        let ends = |effect: &&Effect| !matches!(effect, Effect::Output(_));
        ensure!(
            bytes <= most || part.effects.iter().filter(ends).count() <= 1,
            Chunk,
            "partition {partition}: a commit of {bytes} bytes, allowed are {most}: {:?}",
            part.effects
        );
        ensure!(
            left.is_none() || bytes >= may_leave,
            Visible,
            "partition {partition}: the reading at {left:?} is finished, but a commit omits its effects"
        );
        Ok(())
    }

    /// The content of a commit is durable, though the commit was refused.
    pub fn published(&mut self) {
        self.owed = &self.owed - &std::mem::take(&mut self.held);
    }

    /// The pool has learned that a commit is durable, and counts its records as committed.
    pub fn acknowledge(&mut self, offset: i64, records: u64) -> Result<(), Violation> {
        self.acknowledged = self.acknowledged.max(offset);
        self.owed = &self.owed - &std::mem::take(&mut self.held);
        self.counted += records;
        ensure!(
            self.counted <= self.passed,
            Counts,
            "partition {} counts {} records as committed, but {} are finished without a gap",
            self.partition,
            self.counted,
            self.passed
        );
        Ok(())
    }

    /// The pool gives the partition back.
    pub fn release(&self) -> Result<(), Violation> {
        let Ledger { partition, stage, running, watermark, acknowledged, owed, .. } = self;
        ensure!(
            *stage != Stage::Working,
            Release,
            "partition {partition} was released though it wasn't revoked"
        );
        ensure!(running.is_empty(), Release, "partition {partition} was released while {running:?} run");
        ensure!(
            *stage == Stage::Lost || acknowledged >= watermark,
            Release,
            "partition {partition} was released at {acknowledged}, though all below {watermark} is finished"
        );
        ensure!(
            owed.is_empty(),
            Release,
            "partition {partition} was released, and the effects of {owed:?} are lost"
        );
        Ok(())
    }

    /// Returns a generator with waiting readings and none running.
    pub fn idle_generator(&self) -> Option<&str> {
        if self.stage != Stage::Working {
            return None;
        }
        let waiting = self.places.iter().filter_map(|place| place.waits.as_deref());
        waiting.into_iter().find(|generator| !self.running.contains_key(*generator))
    }

    /// The generators with a running reading.
    pub fn running(&self) -> &BTreeMap<String, i64> {
        &self.running
    }

    /// Whether every record below the watermark has been counted as committed.
    pub fn is_settled(&self) -> bool {
        self.counted == self.passed
    }

    /// Records taken in but not finished.
    pub fn in_flight(&self) -> usize {
        self.places.iter().filter(|place| place.waits.is_some()).count()
    }

    /// The stage of the assignment.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The next new offset.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The offset at which it began.
    pub fn started_at(&self) -> i64 {
        self.start
    }

    fn advance(&mut self) {
        while self.places.front().is_some_and(|place| place.waits.is_none()) {
            if let Some(place) = self.places.pop_front() {
                self.watermark = place.offset + 1;
                self.passed += 1;
            }
        }
    }
}
