//! The generators of one partition: a lane each, with its alarm state and its waiting readings.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::alarm::detector::{Detector, LogIdentity, ReadingPosition, Silence};
use crate::alarm::effect::Effect;
use crate::alarm::state::{AlarmState, StoredState};
use crate::reading::{Parsed, Values};
use crate::types::{Epoch, GeneratorId, Now, Offset, PartitionId, TopicId};

/// What a record asks of its generator's lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Job {
    /// Evaluate a reading.
    Reading(Values),
    /// Clear and forget the generator.
    Decommission,
}

impl Job {
    /// The job of a parsed record, and whose it is.
    #[must_use]
    pub fn of<'a>(parsed: &Parsed<'a>) -> (&'a str, Job) {
        match *parsed {
            Parsed::Reading { generator, values } => (generator, Job::Reading(values)),
            Parsed::Decommissioned { generator } => (generator, Job::Decommission),
        }
    }
}

/// The lanes of one partition.
#[derive(Debug, Default)]
pub struct Lanes {
    /// A fast hash, seeded, because keys come from outside.
    by_generator: HashMap<GeneratorId, u32, foldhash::fast::RandomState>,
    lanes: Vec<Lane>,
    /// Lanes of forgotten generators, for the next new ones.
    free: Vec<u32>,
    /// Where the search for idle lanes goes on.
    cursor: usize,
    /// Lanes that could start, by the sequence number of their first reading: the oldest starts first, because it
    /// holds up the watermark.
    ready: BTreeSet<(u64, u32)>,
}

/// How many lanes one search for idle ones looks at.
const LOOK_AT: usize = 1 << 13;
/// With fewer lanes than this, free ones are kept.
const COMPACT_FROM: usize = 1 << 10;

#[derive(Debug)]
struct Lane {
    generator: GeneratorId,
    /// It has no generator.
    free: bool,
    state: AlarmState,
    /// The offset of the last record that was applied or is part of the state; after a restore, the one that the
    /// state names.
    last: Offset,
    /// Its leader epoch; kept where silence is watched, because a deadman's record covers all that was read.
    last_epoch: Epoch,
    waiting: VecDeque<Task>,
    running: Option<Task>,
}

#[derive(Clone, Copy, Debug)]
struct Task {
    seq: u64,
    source: ReadingPosition,
    job: Job,
    bytes: u32,
    epoch: Epoch,
}

impl Lanes {
    /// Creates lanes with the restored states.
    pub fn restore(
        states: impl IntoIterator<Item = (GeneratorId, StoredState)>,
        detector: &Detector,
        now: Now,
    ) -> Lanes {
        let mut lanes = Lanes::default();
        for (generator, stored) in states {
            let (last, last_epoch) = (stored.offset, stored.epoch);
            let state = AlarmState::restore(stored, detector.rules(), now);
            let waiting = VecDeque::new();
            lanes.add(Lane { generator, free: false, state, last, last_epoch, waiting, running: None });
        }
        lanes
    }

    /// Evaluates a record now. Only for lanes on which nothing waits or runs.
    #[allow(clippy::too_many_arguments)]
    pub fn evaluate(
        &mut self,
        detector: &Detector,
        parsed: &Parsed<'_>,
        source: ReadingPosition,
        log: LogIdentity<'_, impl Fn() -> Epoch>,
        now: Now,
        effects: &mut Vec<Effect>,
        late: &mut [u64],
    ) {
        let (generator, job) = Job::of(parsed);
        let index = self.lane_of(generator, detector, now);
        let lane = &mut self.lanes[index as usize];
        debug_assert!(lane.running.is_none() && lane.waiting.is_empty());
        if lane.apply(detector, source, log, job, now, effects, late) {
            self.free(index);
        }
    }

    /// Queues a record of `bytes` bytes behind its generator's others.
    #[allow(clippy::too_many_arguments)]
    pub fn enqueue(
        &mut self,
        detector: &Detector,
        parsed: &Parsed<'_>,
        source: ReadingPosition,
        epoch: Epoch,
        seq: u64,
        bytes: usize,
        now: Now,
    ) {
        let (generator, job) = Job::of(parsed);
        let index = self.lane_of(generator, detector, now);
        let lane = &mut self.lanes[index as usize];
        if lane.running.is_none() && lane.waiting.is_empty() {
            self.ready.insert((seq, index));
        }
        // A record of a partition is smaller than 2 GiB.
        lane.waiting.push_back(Task { seq, source, job, bytes: bytes as u32, epoch });
    }

    /// Whether some lane could start.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Starts the oldest reading that may start. Returns its sequence number, lane, generator and offset.
    pub fn start_next(&mut self) -> Option<(u64, u32, GeneratorId, Offset)> {
        let (seq, index) = self.ready.pop_first()?;
        let lane = &mut self.lanes[index as usize];
        debug_assert!(lane.running.is_none(), "two readings of one generator at once");
        let task = lane.waiting.pop_front()?;
        lane.running = Some(task);
        Some((seq, index, lane.generator.clone(), task.source.offset))
    }

    /// Evaluates a lane's running reading, whose work is done. Returns its bytes; `None` if another reading runs.
    #[allow(clippy::too_many_arguments)]
    pub fn finish(
        &mut self,
        index: u32,
        seq: u64,
        detector: &Detector,
        topic: Option<&TopicId>,
        now: Now,
        effects: &mut Vec<Effect>,
        late: &mut [u64],
    ) -> Option<usize> {
        let lane = self.lanes.get_mut(index as usize)?;
        let task = lane.running.take_if(|task| task.seq == seq)?;
        let log = LogIdentity { topic, epoch: || task.epoch };
        let gone = lane.apply(detector, task.source, log, task.job, now, effects, late);
        match lane.waiting.front() {
            Some(next) => {
                self.ready.insert((next.seq, index));
            }
            None if gone => self.free(index),
            None => {}
        }
        Some(task.bytes as usize)
    }

    /// Forgets all waiting readings: nothing starts any more.
    pub fn stop(&mut self) {
        self.ready.clear();
        for lane in &mut self.lanes {
            lane.waiting.clear();
        }
    }

    /// Looks for idle generators that have fallen silent; forgets those that have been silent for too long.
    pub fn watch_silence(
        &mut self,
        detector: &Detector,
        partition: PartitionId,
        topic: Option<&TopicId>,
        asked: Now,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            if lane.free || !lane.is_idle() {
                continue;
            }
            let at = Silence { partition, last: lane.last, epoch: lane.last_epoch, asked, now };
            if detector.silence(&lane.generator, &mut lane.state, at, topic, effects) {
                self.free(index as u32);
            }
        }
    }

    /// Appends the state of each generator that has one. Returns how many there are.
    pub fn store_states(
        &self,
        detector: &Detector,
        partition: PartitionId,
        topic: Option<&TopicId>,
        effects: &mut Vec<Effect>,
    ) -> usize {
        let before = effects.len();
        for lane in self.lanes.iter().filter(|lane| !lane.free && lane.state.stored) {
            effects.push(detector.state_change(&lane.generator, partition, topic, &lane.state));
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
    pub fn forget_idle(&mut self, idle: i64, now: Now) {
        for _ in 0..self.lanes.len().min(LOOK_AT) {
            self.cursor = (self.cursor + 1) % self.lanes.len();
            let lane = &self.lanes[self.cursor];
            if lane.is_idle()
                && !lane.free
                && lane.state.is_new()
                && now.mono.since(lane.state.last_seen) >= idle
            {
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
        let lanes = std::mem::take(self).lanes;
        for lane in lanes.into_iter().filter(|lane| !lane.free) {
            self.add(lane);
        }
    }

    fn lane_of(&mut self, generator: &str, detector: &Detector, now: Now) -> u32 {
        match self.by_generator.get(generator) {
            Some(index) => *index,
            None => self.add(Lane {
                generator: GeneratorId::from(generator),
                free: false,
                state: AlarmState::new(detector.rules(), now.mono),
                last: Offset(-1),
                last_epoch: Epoch::UNKNOWN,
                waiting: VecDeque::new(),
                running: None,
            }),
        }
    }

    fn add(&mut self, lane: Lane) -> u32 {
        let generator = lane.generator.clone();
        let index = match self.free.pop() {
            Some(index) => {
                self.lanes[index as usize] = lane;
                index
            }
            None => {
                self.lanes.push(lane);
                // A partition with four billion generators would run out of memory long before.
                (self.lanes.len() - 1) as u32
            }
        };
        self.by_generator.insert(generator, index);
        index
    }

    /// Forgets a generator that has nothing waiting.
    fn free(&mut self, index: u32) {
        let lane = &mut self.lanes[index as usize];
        lane.free = true;
        self.by_generator.remove(&lane.generator);
        self.free.push(index);
    }
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// Applies a record. Returns whether the generator is gone.
    #[allow(clippy::too_many_arguments)]
    fn apply(
        &mut self,
        detector: &Detector,
        source: ReadingPosition,
        log: LogIdentity<'_, impl Fn() -> Epoch>,
        job: Job,
        now: Now,
        effects: &mut Vec<Effect>,
        late: &mut [u64],
    ) -> bool {
        debug_assert!(
            source.offset > self.last || source.offset <= self.state.applied,
            "out of the order of the log"
        );
        // A repeat after a crash is older than the restored state; a reused offset isn't.
        if source.offset >= self.last || !self.state.covers(source.offset, &log.epoch) {
            self.last = source.offset;
            if detector.watches_silence() {
                self.last_epoch = (log.epoch)();
            }
        }
        match job {
            Job::Reading(values) => {
                detector.reading(&self.generator, &mut self.state, &values, source, log, now, effects, late);
                false
            }
            Job::Decommission => {
                detector.decommission(&self.generator, &mut self.state, source, log, now, effects)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::rules::Rules;
    use crate::types::{Millis, Mono};

    fn at(millis: i64) -> Now {
        Now { mono: Mono(millis), wall: Millis(millis) }
    }

    #[test]
    fn a_fleet_that_comes_and_goes_needs_no_more_lanes_than_it_has_generators_at_once() {
        let detector = Detector::new(Rules::default());
        let mut lanes = Lanes::default();
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
                lanes.evaluate(&detector, &parsed, source, log, Now::default(), &mut effects, &mut [0, 0]);
                assert_eq!(effects.len(), 2, "an alert and a state, each time: {effects:?}");
                source.offset = source.offset.next();
            }
        }
        assert_eq!((lanes.lanes.len(), lanes.by_generator.len()), (1, 0));
    }

    #[test]
    fn who_has_nothing_to_be_remembered_is_forgotten_when_idle() {
        let detector = Detector::new(Rules::default());
        let mut lanes = Lanes::default();
        let log = LogIdentity { topic: None, epoch: || Epoch::UNKNOWN };
        let read = |lanes: &mut Lanes, number: i64, fuel: i64, now: i64| {
            let id = format!("generator{number}");
            let text = format!(
                r#"{{"generatorID":"{id}","lat":1,"lon":2,"temperature":74,"pressure":198,"fuel":{fuel}}}"#
            );
            let parsed = crate::reading::parse(Some(id.as_bytes()), Some(text.as_bytes())).expect("valid");
            let source = ReadingPosition { partition: PartitionId(0), offset: Offset(now), at: Millis(now) };
            lanes.evaluate(&detector, &parsed, source, log, at(now), &mut Vec::new(), &mut [0, 0]);
        };
        for number in 0..3000 {
            // One of them has an alarm.
            read(&mut lanes, number, if number == 7 { 10 } else { 900 }, number);
        }
        lanes.forget_idle(1000, at(3000));
        assert_eq!(lanes.generators(), 1000, "those seen in the last second, and the one with the alarm");
        assert_eq!(lanes.lanes.len(), 1000, "and the memory is given back");
        read(&mut lanes, 8, 900, 3001);
        lanes.forget_idle(1000, at(1_000_000));
        assert_eq!(lanes.generators(), 1);
        lanes.forget_idle(1000, at(1_000_000));
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
        lanes.watch_silence(&detector, PartitionId(0), None, at(60_000), at(60_000), &mut effects);
        let decommissioned: Vec<&str> = effects
            .iter()
            .filter_map(Effect::as_state)
            .filter(|change| change.is_decommissioned)
            .map(|change| change.generator.as_str())
            .collect();
        assert_eq!((decommissioned, lanes.generators(), lanes.free.len()), (vec!["a", "c"], 1, 2));
        let before = effects.len();
        lanes.watch_silence(&detector, PartitionId(0), None, at(60_001), at(60_001), &mut effects);
        assert_eq!(effects.len(), before, "no generator is forgotten twice");
    }

    #[test]
    fn a_decommissioning_that_is_repeated_leaves_the_generator_that_came_back() {
        let detector = Detector::new(Rules::default());
        let raised = br#"{"generatorID":"g","offset":60,"rules":{"low_fuel":{"phase":"raised","since":3}}}"#;
        let stored = StoredState::from_json(raised).expect("valid");
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
            let mut effects = Vec::new();
            match self {
                Handled::Inline => {
                    let log = LogIdentity { topic: None, epoch: || Epoch::UNKNOWN };
                    lanes.evaluate(detector, &parsed, source, log, Now::default(), &mut effects, &mut [0, 0]);
                }
                Handled::Queued => {
                    lanes.enqueue(detector, &parsed, source, Epoch::UNKNOWN, 0, 100, Now::default());
                    let (seq, lane, ..) = lanes.start_next().expect("ready");
                    let bytes =
                        lanes.finish(lane, seq, detector, None, Now::default(), &mut effects, &mut [0, 0]);
                    assert_eq!(bytes, Some(100));
                }
            }
            effects
        }
    }
}
