//! The generators of one partition: a lane each, with its state and its waiting records.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::alarm::detector::Detector;
use crate::handler::effect::Effect;
use crate::handler::tracked::{Applied, Passed, Times};
use crate::handler::{Handler, LogIdentity, ReadingPosition, StoredState, Tracked};
use crate::types::{Epoch, GeneratorId, Millis, Now, Offset, PartitionId, TopicId};

/// The lanes of one partition.
#[derive(Debug)]
pub struct Lanes<H: Handler = Detector> {
    /// A fast hash, seeded, because keys come from outside.
    by_generator: HashMap<GeneratorId, u32, foldhash::fast::RandomState>,
    lanes: Vec<Lane<H>>,
    /// Lanes of forgotten generators, for the next new ones.
    free: Vec<u32>,
    /// Where the search for idle lanes goes on.
    cursor: usize,
    /// Lanes that could start, by the sequence number of their first reading: the oldest starts first, because it
    /// holds up the watermark.
    ready: BTreeSet<(u64, u32)>,
    /// Lanes whose state may have changed since it was stored.
    dirty: Vec<u32>,
    /// The lowest record that has changed such a state.
    dirty_from: Option<Offset>,
    /// The event time at which the handler wants to act next, or an earlier one.
    deadline: Millis,
}

impl<H: Handler> Default for Lanes<H> {
    fn default() -> Self {
        Lanes {
            by_generator: HashMap::default(),
            lanes: Vec::new(),
            free: Vec::new(),
            cursor: 0,
            ready: BTreeSet::new(),
            dirty: Vec::new(),
            dirty_from: None,
            deadline: NEVER,
        }
    }
}

/// How many lanes one search for idle ones looks at.
const LOOK_AT: usize = 1 << 13;
/// With fewer lanes than this, free ones are kept.
const COMPACT_FROM: usize = 1 << 10;
/// No deadline.
const NEVER: Millis = Millis(i64::MAX);

#[derive(Debug)]
struct Lane<H: Handler> {
    generator: GeneratorId,
    /// It has no generator.
    free: bool,
    tracked: Tracked<H>,
    /// The offset of the last record that was applied or is part of the state; after a restore, the one that the
    /// state names.
    last: Offset,
    /// Its leader epoch; kept where time is watched, because such a state covers all that was read.
    last_epoch: Epoch,
    /// What isn't finished, in order.
    records: VecDeque<Queued<H::Task>>,
    /// Whether the first of them has started.
    runs: bool,
}

#[derive(Clone, Copy, Debug)]
struct Queued<T> {
    seq: u64,
    source: ReadingPosition,
    task: T,
    bytes: u32,
    epoch: Epoch,
}

/// A record that may start.
#[derive(Clone, Debug, PartialEq)]
pub struct Started<T> {
    /// Its sequence number.
    pub seq: u64,
    /// Its lane.
    pub lane: u32,
    /// Its generator.
    pub generator: GeneratorId,
    /// Its offset.
    pub offset: Offset,
    /// What it asks for.
    pub task: T,
}

impl<H: Handler> Lanes<H> {
    /// Creates lanes with the restored states.
    pub fn restore(
        states: impl IntoIterator<Item = (GeneratorId, StoredState<H::Stored>)>,
        handler: &H,
        now: Now,
    ) -> Lanes<H> {
        let mut lanes = Lanes::default();
        for (generator, stored) in states {
            let (last, last_epoch) = (stored.offset, stored.epoch);
            let tracked = Tracked::restore(handler, stored, now);
            let records = VecDeque::new();
            let index =
                lanes.add(Lane { generator, free: false, tracked, last, last_epoch, records, runs: false });
            lanes.note_deadline(index, handler);
        }
        lanes
    }

    /// Handles a record now. Only for lanes on which nothing waits or runs.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    pub fn evaluate(
        &mut self,
        handler: &H,
        generator: &str,
        task: H::Task,
        source: ReadingPosition,
        log: &LogIdentity<'_, impl Fn() -> Epoch>,
        times: Times,
        effects: &mut Vec<Effect<H::Output>>,
        counts: &mut [u64],
    ) {
        let index = self.lane_of(generator, handler, times.now);
        let lane = &mut self.lanes[index as usize];
        debug_assert!(lane.is_idle());
        let applied = lane.apply(handler, task, H::Answer::default(), source, log, times, effects, counts);
        self.follow(index, source.offset, applied);
        if applied == Applied::Gone {
            self.free(index);
        } else if H::EVENT_TIME {
            self.note_deadline(index, handler);
        }
    }

    /// Queues a record of `bytes` bytes behind its generator's others.
    #[allow(clippy::too_many_arguments)]
    pub fn enqueue(
        &mut self,
        handler: &H,
        generator: &str,
        task: H::Task,
        source: ReadingPosition,
        epoch: Epoch,
        seq: u64,
        bytes: usize,
        now: Now,
    ) {
        let index = self.lane_of(generator, handler, now);
        let lane = &mut self.lanes[index as usize];
        if lane.records.is_empty() {
            self.ready.insert((seq, index));
        }
        // A record of a partition is smaller than 2 GiB.
        lane.records.push_back(Queued { seq, source, task, bytes: bytes as u32, epoch });
    }

    /// Whether some lane could start.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Starts the oldest record that may start.
    pub fn start_next(&mut self) -> Option<Started<H::Task>> {
        let (seq, index) = self.ready.pop_first()?;
        let lane = &mut self.lanes[index as usize];
        debug_assert!(!lane.runs, "two readings of one generator at once");
        let first = lane.records.front()?;
        lane.runs = true;
        let (generator, offset, task) = (lane.generator.clone(), first.source.offset, first.task.clone());
        Some(Started { seq, lane: index, generator, offset, task })
    }

    /// Handles a lane's running record, whose work is done. Returns its bytes; `None` if another record runs.
    #[allow(clippy::too_many_arguments)]
    pub fn finish(
        &mut self,
        index: u32,
        seq: u64,
        answer: H::Answer,
        handler: &H,
        topic: Option<&TopicId>,
        times: Times,
        effects: &mut Vec<Effect<H::Output>>,
        counts: &mut [u64],
    ) -> Option<usize> {
        let lane = self.lanes.get_mut(index as usize)?;
        if !lane.runs || lane.records.front()?.seq != seq {
            return None;
        }
        let Queued { source, task, bytes, epoch, .. } = lane.records.pop_front()?;
        lane.runs = false;
        let log = LogIdentity { topic, epoch: || epoch };
        let applied = lane.apply(handler, task, answer, source, &log, times, effects, counts);
        let next = lane.records.front().map(|next| next.seq);
        self.follow(index, source.offset, applied);
        let gone = applied == Applied::Gone;
        match next {
            Some(next) => {
                self.ready.insert((next, index));
            }
            None if gone => self.free(index),
            None => {}
        }
        Some(bytes as usize)
    }

    /// Forgets all waiting readings: nothing starts any more.
    pub fn stop(&mut self) {
        self.ready.clear();
        for lane in &mut self.lanes {
            lane.records.truncate(usize::from(lane.runs));
        }
    }

    /// Has the handler act on time that has passed, for each idle generator.
    pub fn watch(
        &mut self,
        handler: &H,
        passed: Passed,
        topic: Option<&TopicId>,
        effects: &mut Vec<Effect<H::Output>>,
        counts: &mut [u64],
    ) {
        let mut deadline = NEVER;
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            if lane.free {
                continue;
            }
            let last = (lane.last, lane.last_epoch);
            if lane.is_idle()
                && lane.tracked.watch(handler, &lane.generator, last, passed, topic, effects, counts)
            {
                self.free(index as u32);
            } else if H::EVENT_TIME {
                deadline = deadline.min(handler.deadline(&self.lanes[index].tracked.state).unwrap_or(NEVER));
            }
        }
        self.deadline = deadline;
    }

    /// The event time at which to call [`Lanes::watch`] next.
    #[must_use]
    pub fn deadline(&self) -> Millis {
        self.deadline
    }

    /// The lowest record that has changed a state since it was stored.
    #[must_use]
    pub fn dirty_from(&self) -> Option<Offset> {
        self.dirty_from
    }

    /// Appends the record of each state that has changed since it was stored.
    pub fn store_dirty(
        &mut self,
        handler: &H,
        partition: PartitionId,
        topic: Option<&TopicId>,
        effects: &mut Vec<Effect<H::Output>>,
    ) {
        self.dirty_from = None;
        for index in std::mem::take(&mut self.dirty) {
            let lane = &mut self.lanes[index as usize];
            if !lane.free && lane.tracked.is_dirty() {
                effects.push(lane.tracked.record(handler, &lane.generator, partition, topic));
            }
        }
    }

    /// Appends the state of each generator that has one. Returns how many there are.
    pub fn store_states(
        &mut self,
        handler: &H,
        partition: PartitionId,
        topic: Option<&TopicId>,
        effects: &mut Vec<Effect<H::Output>>,
    ) -> usize {
        let before = effects.len();
        for lane in self.lanes.iter_mut().filter(|lane| !lane.free && lane.tracked.is_stored()) {
            effects.push(lane.tracked.record(handler, &lane.generator, partition, topic));
        }
        effects.len() - before
    }

    /// How many generators have a lane.
    #[must_use]
    pub fn generators(&self) -> usize {
        self.by_generator.len()
    }

    /// Forgets generators that a new lane would serve as well and that were idle for `idle` milliseconds. Looks at
    /// some lanes per call.
    pub fn forget_idle(&mut self, handler: &H, idle: i64, now: Now) {
        for _ in 0..self.lanes.len().min(LOOK_AT) {
            self.cursor = (self.cursor + 1) % self.lanes.len();
            let lane = &self.lanes[self.cursor];
            if lane.is_idle() && !lane.free && lane.tracked.may_forget(handler, idle, now) {
                self.free(self.cursor as u32);
            }
        }
        if self.lanes.len() >= COMPACT_FROM && self.free.len() > self.lanes.len() / 2 {
            self.compact();
        }
    }

    /// Frees the memory of free lanes, if nothing under way uses their numbers.
    fn compact(&mut self) {
        if !self.lanes.iter().all(Lane::is_idle) {
            return;
        }
        let Lanes { lanes, dirty_from, deadline, .. } = std::mem::take(self);
        (self.dirty_from, self.deadline) = (dirty_from, deadline);
        for lane in lanes.into_iter().filter(|lane| !lane.free) {
            let is_dirty = lane.tracked.is_dirty();
            let index = self.add(lane);
            self.dirty.extend(is_dirty.then_some(index));
        }
    }

    fn lane_of(&mut self, generator: &str, handler: &H, now: Now) -> u32 {
        match self.by_generator.get(generator) {
            Some(index) => *index,
            None => self.add(Lane {
                generator: GeneratorId::from(generator),
                free: false,
                tracked: Tracked::new(handler, now),
                last: Offset(-1),
                last_epoch: Epoch::UNKNOWN,
                records: VecDeque::new(),
                runs: false,
            }),
        }
    }

    fn add(&mut self, lane: Lane<H>) -> u32 {
        let generator = lane.generator.clone();
        let index = match self.free.pop() {
            Some(index) => {
                self.lanes[index as usize] = lane;
                index
            }
            None => {
                // Not by doubling: the lanes of a large fleet are most of what a worker needs.
                if self.lanes.len() == self.lanes.capacity() {
                    self.lanes.reserve_exact(4 + self.lanes.len() / 4);
                }
                self.lanes.push(lane);
                // A partition with four billion generators would run out of memory long before.
                (self.lanes.len() - 1) as u32
            }
        };
        self.by_generator.insert(generator, index);
        index
    }

    /// Takes note of what a record has done to a lane.
    #[inline]
    fn follow(&mut self, index: u32, offset: Offset, applied: Applied) {
        if applied == Applied::Dirty {
            // Only the first record since the state was stored lists the lane.
            self.dirty.push(index);
            self.dirty_from = Some(self.dirty_from.map_or(offset, |from| from.min(offset)));
        }
    }

    fn note_deadline(&mut self, index: u32, handler: &H) {
        if H::EVENT_TIME
            && let Some(deadline) = handler.deadline(&self.lanes[index as usize].tracked.state)
        {
            self.deadline = self.deadline.min(deadline);
        }
    }

    /// Forgets a generator that has nothing waiting.
    fn free(&mut self, index: u32) {
        let lane = &mut self.lanes[index as usize];
        lane.free = true;
        self.by_generator.remove(&lane.generator);
        self.free.push(index);
    }
}

impl<H: Handler> Lane<H> {
    fn is_idle(&self) -> bool {
        self.records.is_empty()
    }

    /// Applies a record.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn apply(
        &mut self,
        handler: &H,
        task: H::Task,
        answer: H::Answer,
        source: ReadingPosition,
        log: &LogIdentity<'_, impl Fn() -> Epoch>,
        times: Times,
        effects: &mut Vec<Effect<H::Output>>,
        counts: &mut [u64],
    ) -> Applied {
        debug_assert!(
            source.offset > self.last || source.offset <= self.tracked.covered(),
            "out of the order of the log"
        );
        let applied =
            self.tracked.apply(handler, &self.generator, task, answer, source, log, times, effects, counts);
        // A repeat after a crash is older than the restored state; a reused offset isn't.
        if source.offset >= self.last || applied != Applied::Repeat {
            self.last = source.offset;
            if handler.watches() {
                self.last_epoch = (log.epoch)();
            }
        }
        applied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::detector::Job;
    use crate::alarm::rules::Rules;
    use crate::pool::NO_EVENT_TIME;
    use crate::types::Mono;

    fn times(now: Now) -> Times {
        Times { now, watermark: NO_EVENT_TIME }
    }

    fn watch(lanes: &mut Lanes, detector: &Detector, now: Now, effects: &mut Vec<Effect>) {
        let passed = Passed { partition: PartitionId(0), asked: now, times: times(now), quiet: None };
        lanes.watch(detector, passed, None, effects, &mut []);
    }

    fn at(millis: i64) -> Now {
        Now { mono: Mono(millis), wall: Millis(millis) }
    }

    #[test]
    fn a_fleet_that_comes_and_goes_needs_no_more_lanes_than_it_has_generators_at_once() {
        let detector = Detector::new(Rules::default());
        let mut lanes = Lanes::<Detector>::default();
        let log = LogIdentity { topic: None, epoch: || Epoch::UNKNOWN };
        let mut source = ReadingPosition { partition: PartitionId(0), offset: Offset(0), at: Millis(0) };
        for number in 0..100 {
            let generator = format!("generator{number}");
            let text = format!(
                r#"{{"generatorID":"{generator}","lat":1,"lon":2,"temperature":74,"pressure":198,"fuel":10}}"#
            );
            for value in [Some(text.as_bytes()), None] {
                let parsed = crate::reading::parse(Some(generator.as_bytes()), value).expect("valid");
                let mut effects = Vec::new();
                let ((id, job), times) = (Job::of(&parsed), times(Now::default()));
                lanes.evaluate(&detector, id, job, source, &log, times, &mut effects, &mut [0, 0]);
                assert_eq!(effects.len(), 2, "an alert and a state, each time: {effects:?}");
                source.offset = source.offset.next();
            }
        }
        assert_eq!((lanes.lanes.len(), lanes.by_generator.len()), (1, 0));
    }

    #[test]
    fn who_has_nothing_to_be_remembered_is_forgotten_when_idle() {
        let detector = Detector::new(Rules::default());
        let mut lanes = Lanes::<Detector>::default();
        let log = LogIdentity { topic: None, epoch: || Epoch::UNKNOWN };
        let read = |lanes: &mut Lanes, number: i64, fuel: i64, now: i64| {
            let id = format!("generator{number}");
            let text = format!(
                r#"{{"generatorID":"{id}","lat":1,"lon":2,"temperature":74,"pressure":198,"fuel":{fuel}}}"#
            );
            let parsed = crate::reading::parse(Some(id.as_bytes()), Some(text.as_bytes())).expect("valid");
            let source = ReadingPosition { partition: PartitionId(0), offset: Offset(now), at: Millis(now) };
            let ((id, job), times) = (Job::of(&parsed), times(at(now)));
            lanes.evaluate(&detector, id, job, source, &log, times, &mut Vec::new(), &mut [0, 0]);
        };
        for number in 0..3000 {
            // One of them has an alarm.
            read(&mut lanes, number, if number == 7 { 10 } else { 900 }, number);
        }
        lanes.forget_idle(&detector, 1000, at(3000));
        assert_eq!(lanes.generators(), 1000, "those seen in the last second, and the one with the alarm");
        assert_eq!(lanes.lanes.len(), 1000, "and the memory is given back");
        read(&mut lanes, 8, 900, 3001);
        lanes.forget_idle(&detector, 1000, at(1_000_000));
        assert_eq!(lanes.generators(), 1);
        lanes.forget_idle(&detector, 1000, at(1_000_000));
        assert_eq!(
            (lanes.generators(), lanes.free.len() + 1),
            (1, lanes.lanes.len()),
            "no generator is forgotten twice"
        );
    }

    #[test]
    fn who_is_forgotten_for_its_silence_has_no_lane_and_the_others_keep_theirs() {
        let rules = "[[rule]]\nname = \"gone\"\nsilent_for = \"1s\"\n";
        let rules = Rules::parse(rules, "rules.toml".as_ref()).expect("valid rules");
        let detector = Detector::new(rules).forget_silent_after(Some(5_000));
        let stored = |id: &str, since: i64| {
            let text = format!(
                r#"{{"generatorID":"{id}","offset":7,"rules":{{"gone":{{"phase":"raised","since":{since}}}}}}}"#
            );
            (GeneratorId::from(id), StoredState::from_json(text.as_bytes()).expect("valid"))
        };
        let states = [stored("a", 1_000), stored("b", 60_000), stored("c", 1_000)];
        let mut lanes = Lanes::restore(states, &detector, at(60_000));
        let mut effects = Vec::new();
        watch(&mut lanes, &detector, at(60_000), &mut effects);
        let decommissioned: Vec<&str> = effects
            .iter()
            .filter_map(Effect::as_state)
            .filter(|change| change.is_decommissioned)
            .map(|change| change.generator.as_str())
            .collect();
        assert_eq!((decommissioned, lanes.generators(), lanes.free.len()), (vec!["a", "c"], 1, 2));
        let before = effects.len();
        watch(&mut lanes, &detector, at(60_001), &mut effects);
        assert_eq!(effects.len(), before, "no generator is forgotten twice");
    }

    #[test]
    fn a_decommissioning_that_is_repeated_leaves_the_generator_that_came_back() {
        let detector = Detector::new(Rules::default());
        let raised = br#"{"generatorID":"g","offset":60,"rules":{"low_fuel":{"phase":"raised","since":3}}}"#;
        let stored: StoredState = StoredState::from_json(raised).expect("valid");
        for mut lanes in [Handled::Inline, Handled::Queued].map(|handled| {
            (Lanes::restore([(GeneratorId::from("g"), stored.clone())], &detector, Now::default()), handled)
        }) {
            let mut effects = Vec::new();
            for (offset, text) in [(50, None), (60, Some(LOW)), (61, Some(LOW))] {
                effects.extend(lanes.1.apply(&mut lanes.0, &detector, offset, text));
            }
            assert_eq!(effects, [], "it was raised at 60, and is");
        }
    }

    const LOW: &str = r#"{"generatorID":"g","lat":1,"lon":2,"temperature":74,"pressure":198,"fuel":10}"#;

    enum Handled {
        Inline,
        Queued,
    }

    impl Handled {
        fn apply(
            &self,
            lanes: &mut Lanes,
            detector: &Detector,
            offset: i64,
            text: Option<&str>,
        ) -> Vec<Effect> {
            let parsed = crate::reading::parse(Some(b"g"), text.map(str::as_bytes)).expect("valid");
            let source =
                ReadingPosition { partition: PartitionId(0), offset: Offset(offset), at: Millis(offset) };
            let (mut effects, (id, job)) = (Vec::new(), Job::of(&parsed));
            match self {
                Handled::Inline => {
                    let log = LogIdentity { topic: None, epoch: || Epoch::UNKNOWN };
                    let times = times(Now::default());
                    lanes.evaluate(detector, id, job, source, &log, times, &mut effects, &mut [0, 0]);
                }
                Handled::Queued => {
                    lanes.enqueue(detector, id, job, source, Epoch::UNKNOWN, 0, 100, Now::default());
                    let Started { seq, lane, .. } = lanes.start_next().expect("ready");
                    let times = times(Now::default());
                    let bytes = lanes.finish(lane, seq, (), detector, None, times, &mut effects, &mut [0, 0]);
                    assert_eq!(bytes, Some(100));
                }
            }
            effects
        }
    }
}
