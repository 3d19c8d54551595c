//! Real engines with the aggregates' handler over a cluster in memory, from start to verdict.

use std::collections::BTreeMap;

use genwatch_core::aggregate::downsampler::{Downsampler, Input, PlacedAggregate};
use genwatch_core::aggregate::{Aggregator, Late, Part, StoredAggregates};
use genwatch_core::alarm::rules::Rules;
use genwatch_core::engine::commit::Delivery;
use genwatch_core::engine::encode::Encoder;
use genwatch_core::engine::membership::{Member, Refusal};
use genwatch_core::engine::note::Note;
use genwatch_core::engine::restore::{Answer, Question, StateFold};
use genwatch_core::engine::start::{CommittedOffset, Log, OnNewTopic, OnOutOfRange, Policies};
use genwatch_core::engine::{Action, Engine, Settings};
use genwatch_core::handler::effect::Effect;
use genwatch_core::handler::{Handler as _, Incoming};
use genwatch_core::pool::{Bounds, Commit, CommitPolicy, Handling, Pool};
use genwatch_core::types::{Epoch, Millis, Mono, Now, Offset, PartitionId, TopicId};
use genwatch_oracle::{AggregateOracle, Ending, NaiveRule, TopicRecord, Windows, compare_aggregates};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const PARTITIONS: i32 = 3;
const MINUTE: i64 = 60_000;
/// Longer than a run before it settles, and shorter than it settles.
const LONG_GRACE: i64 = 90_000;
const TOPIC: &str = "fXb3ZTPHT7y5Iq7LgnAqLQ";

/// Runs the seeds that the environment asks for, or the first `default`. Panics if one fails.
pub fn run_from_environment(default: u64) {
    let asked = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match asked("GENWATCH_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("GENWATCH_SIM_SEEDS").unwrap_or(default),
    };
    let mut faults = Faults::default();
    for seed in seeds.clone() {
        let ran = std::panic::catch_unwind(|| Simulation::run(seed));
        match ran {
            Ok(seen) => faults.add(&seen),
            Err(_) => panic!("seed {seed} fails, as reported above; GENWATCH_SIM_SEED={seed} runs it alone"),
        }
    }
    println!("seeds {seeds:?}: {faults:?}");
    if seeds.end - seeds.start > 100 {
        let each = [faults.crashes, faults.unheard, faults.refused, faults.revoked, faults.stood_still];
        assert!(each.iter().all(|count| *count > 100), "every fault happens: {faults:?}");
        assert!(
            faults.aggregates > 10_000 && faults.late > 1_000,
            "and there is something to lose: {faults:?}"
        );
    }
}

/// What happened.
#[derive(Clone, Debug, Default)]
struct Faults {
    crashes: u64,
    /// A commit succeeded, and the worker died before it heard of it.
    unheard: u64,
    refused: u64,
    revoked: u64,
    stood_still: u64,
    aggregates: u64,
    /// Late readings, as the handlers have counted them.
    late: u64,
}

impl Faults {
    fn add(&mut self, other: &Faults) {
        self.crashes += other.crashes;
        self.unheard += other.unheard;
        self.refused += other.refused;
        self.revoked += other.revoked;
        self.stood_still += other.stood_still;
        self.aggregates += other.aggregates;
        self.late += other.late;
    }
}

/// One partition of all topics.
#[derive(Default)]
struct Partition {
    log: Vec<Record>,
    committed: Option<(i64, String)>,
    states: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    outputs: Vec<Value>,
}

struct Record {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    at: i64,
}

struct Worker {
    engine: Engine<Downsampler>,
    /// Partitions that it fetches: the next offset, and whether it is paused.
    fetched: BTreeMap<i32, (i64, bool)>,
    commit: Option<Commit<PlacedAggregate>>,
}

struct Simulation {
    rng: ChaCha8Rng,
    partitions: Vec<Partition>,
    workers: Vec<Worker>,
    /// Whose each partition is.
    owner: Vec<usize>,
    now: i64,
    windows: Windows,
    delivery: Delivery,
    clock: i64,
    /// Event times are multiples of this. Whole seconds often fall on the very end of a window and its grace.
    grain: i64,
    members: u64,
    encoder: Encoder,
    seen: Faults,
    budget: usize,
}

impl Simulation {
    fn run(seed: u64) -> Faults {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let grace = [0, 5_000, LONG_GRACE][rng.random_range(0..3)];
        let correct_within = rng.random_bool(0.4).then_some(5 * MINUTE);
        let delivery = if rng.random_bool(0.8) { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce };
        let name = str::to_owned;
        let encoder = Encoder {
            readings: name("t"),
            output: name("t_1m"),
            state: name("g_1m_state"),
            dead_letters: String::new(),
            group: name("g_1m"),
            worker: name("w"),
        };
        let mut simulation = Simulation {
            partitions: (0..PARTITIONS).map(|_| Partition::default()).collect(),
            workers: Vec::new(),
            owner: vec![0; PARTITIONS as usize],
            now: 0,
            windows: Windows { length: MINUTE, grace, correct_within },
            delivery,
            clock: 1_766_400_000_000,
            grain: [1, 1_000][rng.random_range(0..2)],
            members: 0,
            encoder,
            seen: Faults::default(),
            // A commit often has room for some of the states only.
            budget: [2_000, 20_000, 16 << 20][rng.random_range(0..3)],
            rng,
        };
        for _ in 0..2 {
            let worker = simulation.new_worker();
            simulation.workers.push(worker);
        }
        for partition in 0..PARTITIONS {
            simulation.give(partition, partition as usize % 2);
        }
        for _ in 0..simulation.rng.random_range(150..600) {
            simulation.step();
        }
        simulation.settle();
        simulation.judge();
        simulation.seen
    }

    fn new_worker(&mut self) -> Worker {
        let late = match self.windows.correct_within {
            None => Late::Drop,
            Some(within) => Late::Correct { within },
        };
        let Windows { length, grace, .. } = self.windows;
        let aggregator = Aggregator::new(length, grace, late, &Rules::default()).unwrap();
        let handler = Downsampler::new(aggregator, Input::Readings);
        let bounds = Bounds { records: 1000, bytes: 1 << 20 };
        let policy = CommitPolicy { interval: 200, linger: 2, bytes: self.budget };
        let policies = Policies { on_out_of_range: OnOutOfRange::Fail, on_new_topic: OnNewTopic::Fail };
        let settings = Settings { drain: 1_000, policies, exit_at_end: false };
        let mut engine = Engine::new(Pool::new(handler, Handling::Inline, bounds, policy), settings);
        self.members += 1;
        engine.set_now(self.time());
        engine.member(Some(Member { id: format!("m{}", self.members).into(), generation: 1 }));
        Worker { engine, fetched: BTreeMap::new(), commit: None }
    }

    /// The wall clock is far ahead of event time. It closes windows only where a partition is read to its end and has
    /// been quiet for the grace: at the end.
    fn time(&self) -> Now {
        Now { mono: Mono(self.now), wall: Millis(i64::MAX / 2) }
    }

    fn step(&mut self) {
        self.now += self.rng.random_range(0..40);
        for _ in 0..self.rng.random_range(0..12) {
            self.produce();
        }
        let index = self.rng.random_range(0..self.workers.len());
        self.turn(index, false);
        match self.rng.random_range(0..1000) {
            0..15 => self.crash(index),
            15..45 => self.move_a_partition(),
            45..55 => {
                self.seen.stood_still += 1;
                self.workers[index].engine.stood_still();
                self.perform(index);
            }
            // No partition has been quiet for so long a grace.
            55..105 if self.windows.grace == LONG_GRACE => self.look(),
            _ => {}
        }
    }

    fn produce(&mut self) {
        let rng = &mut self.rng;
        let partition = rng.random_range(0..PARTITIONS) as usize;
        self.clock += rng.random_range(0..800);
        // A state in use says nearly as much about the time as the watermark does. Of a generator that is hardly ever
        // heard of, and often late, the watermark alone judges.
        let is_rare = rng.random_bool(0.1);
        let generator = match is_rare {
            true => format!("p{partition}-rare{}", rng.random_range(0..200)),
            false => format!("p{partition}-g{}", rng.random_range(0..6)),
        };
        let key = generator.clone().into_bytes();
        if rng.random_bool(0.005) {
            self.partitions[partition].log.push(Record { key, value: None, at: self.clock });
            return;
        }
        let late = match rng.random_range(0..40) {
            _ if is_rare => rng.random_range(0..3 * MINUTE),
            0 => rng.random_range(0..3 * MINUTE),
            1..6 => rng.random_range(0..5_000),
            _ => 0,
        };
        let value = if rng.random_bool(0.01) {
            b"bad".to_vec()
        } else {
            let (temperature, fuel) =
                (rng.random_range(700..1_050) as f64 / 10.0, rng.random_range(1_000..9_000) as f64 / 10.0);
            let mut value = serde_json::json!({
                "generatorID": generator, "lat": 1, "lon": 2,
                "temperature": temperature, "pressure": 198, "fuel": fuel,
            });
            if rng.random_bool(0.3) {
                value["load"] = serde_json::json!(rng.random_range(0..100));
            }
            value.to_string().into_bytes()
        };
        let at = (self.clock - late).div_euclid(self.grain) * self.grain;
        self.partitions[partition].log.push(Record { key, value: Some(value), at });
    }

    /// One turn of a worker's loop.
    fn turn(&mut self, index: usize, settling: bool) {
        let now = self.time();
        let worker = &mut self.workers[index];
        worker.engine.set_now(now);
        let fetched: Vec<i32> = worker.fetched.keys().copied().collect();
        for partition in fetched {
            let most = if settling { 100 } else { self.rng.random_range(0..20) };
            self.deliver(index, partition, most);
        }
        self.workers[index].engine.tick();
        self.perform(index);
        self.commit(index, settling);
        self.perform(index);
        // Dropped or a correction.
        let counts = self.workers[index].engine.pool_mut().take_counts();
        self.seen.late += counts[..2].iter().sum::<u64>();
    }

    fn deliver(&mut self, index: usize, partition: i32, most: usize) {
        let worker = &mut self.workers[index];
        let Some((next, false)) = worker.fetched.get(&partition).copied() else { return };
        let log = &self.partitions[partition as usize].log;
        for (offset, record) in log.iter().enumerate().skip(next as usize).take(most) {
            let incoming =
                Incoming { key: Some(&record.key), value: record.value.as_deref(), header: &|_| None };
            let (id, offset, at) = (PartitionId(partition), Offset(offset as i64), Millis(record.at));
            match worker.engine.pool().handler().parse(&incoming) {
                Ok((generator, task)) => {
                    let generator = generator.to_owned();
                    if let Some(mut intake) = worker.engine.intake(id) {
                        intake.take_in(offset, at, &generator, task, 150, || Epoch(0));
                    }
                }
                Err(_) => {
                    if let Some(mut intake) = worker.engine.intake(id) {
                        intake.skip(offset, at);
                    }
                }
            }
            worker.fetched.insert(partition, (offset.0 + 1, false));
        }
    }

    /// Performs what the engine asks for, until it asks for nothing more.
    fn perform(&mut self, index: usize) {
        loop {
            let actions = self.workers[index].engine.actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.act(index, action);
            }
        }
    }

    fn act(&mut self, index: usize, action: Action<genwatch_core::aggregate::downsampler::Task>) {
        let worker = &mut self.workers[index];
        match action {
            Action::Ask(ask, id, question) => {
                let partition = &self.partitions[id.0 as usize];
                let answer: Answer<StoredAggregates> = match question {
                    Question::Companions => Answer::Companions,
                    Question::Committed => {
                        Answer::Committed(partition.committed.as_ref().map(|(offset, note)| {
                            CommittedOffset { offset: Offset(*offset), note: Note::parse(note) }
                        }))
                    }
                    Question::States => {
                        let mut fold = StateFold::<StoredAggregates>::default();
                        for (offset, (key, value)) in partition.states.iter().enumerate() {
                            let offset = Offset(offset as i64);
                            fold.apply("g_1m_state", id, offset, Some(key), value.as_deref()).unwrap();
                        }
                        Answer::States(fold.into_states())
                    }
                    Question::Log => Answer::Log(Log {
                        topic: Some(TopicId::from(TOPIC)),
                        low: Offset(0),
                        high: Offset(partition.log.len() as i64),
                    }),
                    Question::Owner(_) => Answer::Owner(None),
                };
                worker.engine.answered(ask, answer);
            }
            Action::Add(id, offset) => {
                worker.fetched.insert(id.0, (offset.0, false));
            }
            Action::Seek(id, offset) | Action::Reassign(id, offset) => {
                worker.fetched.insert(id.0, (offset.0, true));
                worker.engine.sought(id);
            }
            Action::Pause(id) => {
                worker.fetched.entry(id.0).and_modify(|fetched| fetched.1 = true);
            }
            Action::Resume(id) => {
                worker.fetched.entry(id.0).and_modify(|fetched| fetched.1 = false);
            }
            Action::Unassign(ids) => {
                for id in ids {
                    worker.fetched.remove(&id.0);
                }
            }
            Action::Run { .. } => panic!("nothing waits for work"),
            Action::Acknowledge
            | Action::Forget(_)
            | Action::Abandon
            | Action::GiveUp
            | Action::Gone(_)
            | Action::Report(..) => {}
        }
    }

    fn commit(&mut self, index: usize, settling: bool) {
        if self.workers[index].commit.is_none() {
            let Some((commit, _)) = self.workers[index].engine.take_commit() else { return };
            self.workers[index].commit = Some(commit);
        }
        if !settling && self.rng.random_bool(0.4) {
            return;
        }
        let Some(commit) = self.workers[index].commit.take() else { return };
        let fails = !settling && self.rng.random_bool(0.15);
        if fails {
            self.seen.refused += 1;
            let published = self.delivery == Delivery::AtLeastOnce && self.rng.random_bool(0.5);
            if published {
                self.write(&commit, false);
            }
            let refusal = if self.rng.random_bool(0.3) { Refusal::Overdue } else { Refusal::Other };
            self.workers[index].engine.refused(commit.id, refusal, published);
            return;
        }
        self.write(&commit, true);
        self.workers[index].engine.committed(commit.id, 0);
    }

    /// Makes a commit durable.
    fn write(&mut self, commit: &Commit<PlacedAggregate>, offsets: bool) {
        for part in &commit.parts {
            let partition = &mut self.partitions[part.partition.0 as usize];
            for effect in part.effects.iter() {
                let record = self.encoder.record(effect);
                let (key, value) =
                    (record.key.unwrap().to_vec(), record.value.map(|value| value.into_owned()));
                match effect {
                    Effect::Output(_) => {
                        assert_eq!(record.partition, Some(part.partition), "where its readings are");
                        let header = record.headers.iter().find(|(name, _)| name == "genwatch.part").unwrap();
                        Part::from_json(header.1.as_deref().unwrap()).unwrap();
                        partition.outputs.push(serde_json::from_slice(&value.unwrap()).unwrap());
                    }
                    Effect::State(_) => partition.states.push((key, value)),
                    Effect::DeadLetter(letter) => panic!("{letter:?}"),
                }
            }
            if offsets {
                let before = partition.committed.as_ref().map_or(0, |(offset, _)| *offset);
                assert!(part.offset.0 >= before, "the offset goes back");
                let note = Note {
                    token: format!("67e55044-10b1-426f-9247-bb680e5fe0c8/{}", commit.id.0),
                    topic: part.topic.clone(),
                    event_time: part.event_time,
                    member: None,
                };
                partition.committed = Some((part.offset.0, note.to_string()));
            }
        }
    }

    /// The worker dies; another one takes all of its partitions over. Its commit may have succeeded.
    fn crash(&mut self, index: usize) {
        self.seen.crashes += 1;
        if let Some(commit) = self.workers[index].commit.take()
            && self.rng.random_bool(0.5)
        {
            self.seen.unheard += 1;
            self.write(&commit, true);
        }
        self.workers[index] = self.new_worker();
        for partition in 0..PARTITIONS {
            if self.owner[partition as usize] == index {
                let to = self.rng.random_range(0..self.workers.len());
                self.give(partition, to);
            }
        }
    }

    fn move_a_partition(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let from = self.owner[partition as usize];
        self.seen.revoked += 1;
        self.workers[from].engine.revoked(&[PartitionId(partition)]);
        // Until it has drained and is given back.
        for _ in 0..2_000 {
            self.now += 5;
            let now = self.time();
            self.workers[from].engine.set_now(now);
            self.workers[from].engine.tick();
            self.perform(from);
            self.commit(from, false);
            self.perform(from);
            if !self.workers[from].fetched.contains_key(&partition) {
                break;
            }
        }
        assert!(!self.workers[from].fetched.contains_key(&partition), "it is given back");
        let to = (from + 1) % self.workers.len();
        self.give(partition, to);
    }

    fn give(&mut self, partition: i32, to: usize) {
        self.owner[partition as usize] = to;
        let now = self.time();
        self.workers[to].engine.set_now(now);
        self.workers[to].engine.assigned(&[PartitionId(partition)]);
        self.perform(to);
    }

    /// Faults cease, all is read, and the clock closes what is open.
    fn settle(&mut self) {
        for round in 0..600 {
            self.now += 250;
            for index in 0..self.workers.len() {
                self.turn(index, true);
            }
            if round > 450 {
                self.look();
            }
        }
    }

    /// The workers learn where the logs end, and that the clock is far ahead.
    fn look(&mut self) {
        let now = self.time();
        for partition in 0..PARTITIONS {
            let worker = &mut self.workers[self.owner[partition as usize]];
            worker.engine.set_now(now);
            let end = Offset(self.partitions[partition as usize].log.len() as i64);
            worker.engine.end(PartitionId(partition), end, now);
        }
    }

    fn judge(&mut self) {
        let mut oracle = AggregateOracle::new(self.windows, &NaiveRule::built_in());
        for (number, partition) in self.partitions.iter().enumerate() {
            for (offset, record) in partition.log.iter().enumerate() {
                oracle.record(TopicRecord {
                    partition: number as i32,
                    offset: offset as i64,
                    at: record.at,
                    key: Some(&record.key),
                    value: record.value.as_deref(),
                });
            }
            let committed = partition.committed.as_ref().map_or(0, |(offset, _)| *offset);
            assert_eq!(committed, partition.log.len() as i64, "partition {number} is read to its end");
        }
        let expected = oracle.aggregates(Ending::Closed);
        let told = self.partitions.iter().flat_map(|partition| self.told(partition)).collect::<Vec<_>>();
        let differences = compare_aggregates(&expected, &told);
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        self.seen.aggregates += told.len() as u64;
    }

    /// Under at-least-once a repeat equals what it repeats.
    fn told(&self, partition: &Partition) -> Vec<Value> {
        let mut told: Vec<Value> = Vec::new();
        for value in &partition.outputs {
            if self.delivery == Delivery::ExactlyOnce || !told.contains(value) {
                told.push(value.clone());
            }
        }
        told
    }
}
