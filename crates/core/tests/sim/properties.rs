//! The pool alone, over several logs: whatever the rules, the readings, the order in which they finish, the bounds,
//! the batches and the failing commits, it commits what the oracle says. Failures shrink.

use std::collections::{BTreeMap, VecDeque};

use genwatch_core::alarm::detector::{Detector, Job};
use genwatch_core::alarm::rules::Rules;
use genwatch_core::handler::effect::Effect;
use genwatch_core::pool::{Beginning, Bounds, CommitPolicy, Handling, Pool, PoolAction, Ticket};
use genwatch_core::reading;
use genwatch_core::types::{Epoch, Millis, Mono, Now, Offset, PartitionId};
use genwatch_oracle::{Kind, Limit, NaiveRule, Numbers};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::judge::ExactlyOnce;
use crate::records::Entry;
use crate::records::{self, Fault};
use crate::scenario::toml;

/// The next event; numbers choose among what is available.
#[derive(Clone, Debug)]
enum Event {
    TakeIn(usize),
    Finish(usize),
    Pass(i64),
    BeginCommit,
    CommitDone,
    CommitRefused,
    Repeat(usize),
    StoreStates,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        3 => (1..12usize).prop_map(Event::TakeIn),
        6 => (0..64usize).prop_map(Event::Finish),
        2 => (0..200i64).prop_map(Event::Pass),
        3 => Just(Event::BeginCommit),
        2 => Just(Event::CommitDone),
        1 => Just(Event::CommitRefused),
        1 => (1..8usize).prop_map(Event::Repeat),
        1 => Just(Event::StoreStates),
    ];
    vec(event, 0..120)
}

fn tens(range: std::ops::RangeInclusive<i32>) -> impl Strategy<Value = f64> {
    range.prop_map(|n| f64::from(n) * 10.0)
}

fn rules() -> impl Strategy<Value = Vec<NaiveRule>> {
    let field = prop::sample::select(vec!["temperature", "pressure", "fuel", "load", "power"]);
    let delay = || prop_oneof![Just(0), 1..60i64];
    let rule = (field, any::<bool>(), tens(2..=8), prop::option::of(tens(0..=3)), delay(), delay(), delay());
    let rule = rule.prop_map(|(field, below, raise, beyond, on, off, realarm)| {
        let clear = beyond.map(|beyond| if below { raise + beyond } else { raise - beyond });
        let realarm = (realarm > 0).then_some(realarm);
        Kind::Limit(Limit { field, below, raise, clear, on, off, realarm })
    });
    let named = |(index, kind)| NaiveRule { name: format!("r{index}"), severity: "warning".to_owned(), kind };
    vec(rule, 1..4).prop_map(move |kinds| kinds.into_iter().enumerate().map(named).collect())
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let optional = || prop::option::of(tens(0..=10));
    let number = || tens(0..=10);
    let all = (number(), number(), number(), optional(), optional());
    all.prop_map(|(temperature, pressure, fuel, load, power)| Numbers {
        lat: 40.5,
        lon: -111.5,
        temperature,
        pressure,
        fuel,
        load,
        power,
    })
}

#[derive(Clone, Debug)]
enum Shape {
    Reading(Numbers),
    Tombstone,
    Bad(Fault),
}

/// A log of several partitions: generators and gaps between offsets, timestamps in any order.
fn logs() -> impl Strategy<Value = Vec<Vec<Entry>>> {
    let shape = prop_oneof![
        12 => numbers().prop_map(Shape::Reading),
        1 => Just(Shape::Tombstone),
        1 => prop::sample::select(Fault::ALL.to_vec()).prop_map(Shape::Bad),
    ];
    let record = (shape, 0..4u8, -30..60i64, prop_oneof![4 => Just(0i64), 1 => 1..4i64]);
    let log = vec(record, 0..40).prop_map(|records| {
        let (mut offset, mut now) = (0, 0);
        let entry = |(shape, generator, step, gap)| {
            offset += gap + 1;
            now += step;
            let generator = format!("g{generator}");
            match shape {
                Shape::Reading(numbers) => records::reading(offset, now, &generator, numbers),
                Shape::Tombstone => records::tombstone(offset, now, &generator),
                Shape::Bad(fault) => records::bad(offset, now, &generator, fault),
            }
        };
        records.into_iter().map(entry).collect()
    });
    vec(log, 1..4)
}

fn handling() -> impl Strategy<Value = Handling> {
    let lanes = prop_oneof![1..4usize, Just(64)].prop_map(|concurrency| Handling::Lanes { concurrency });
    prop_oneof![1 => Just(Handling::Inline), 3 => lanes]
}

fn bounds() -> impl Strategy<Value = Bounds> {
    let records = prop_oneof![1..6usize, Just(1000)];
    let bytes = prop_oneof![1..2000usize, Just(1 << 20)];
    (records, bytes).prop_map(|(records, bytes)| Bounds { records, bytes })
}

/// A pool with its log, driven by hand.
struct Bench {
    pool: Pool,
    logs: Vec<Vec<Entry>>,
    judges: Vec<ExactlyOnce>,
    fetched: Vec<usize>,
    paused: Vec<bool>,
    running: Vec<Ticket>,
    commit: Option<genwatch_core::pool::Commit>,
    now: i64,
}

impl Bench {
    fn new(rules: &[NaiveRule], logs: Vec<Vec<Entry>>, handling: Handling, bounds: Bounds) -> Bench {
        let parsed = Rules::parse(&toml(rules), "rules.toml".as_ref()).expect("valid rules");
        let policy = CommitPolicy { interval: 50, linger: 5, bytes: 1 << 20 };
        let mut pool = Pool::new(Detector::new(parsed), handling, bounds, policy);
        let partitions = 0..logs.len() as i32;
        for id in partitions.clone() {
            pool.assign(PartitionId(id), Beginning::default());
        }
        let judge = |id: i32| {
            let mut judge = ExactlyOnce::new(None, id, rules);
            logs[id as usize].iter().for_each(|entry| judge.appended(entry));
            judge
        };
        Bench {
            pool,
            judges: partitions.map(judge).collect(),
            fetched: vec![0; logs.len()],
            paused: vec![false; logs.len()],
            running: Vec::new(),
            commit: None,
            now: 0,
            logs,
        }
    }

    fn take_in(&mut self, count: usize) {
        let polled: Vec<usize> = (0..self.logs.len()).filter(|id| !self.paused[*id]).collect();
        for id in polled {
            let end = self.logs[id].len().min(self.fetched[id] + count);
            for index in self.fetched[id]..end {
                self.deliver(id, index);
            }
            self.fetched[id] = end;
        }
        self.act();
    }

    fn deliver(&mut self, id: usize, index: usize) {
        let partition = PartitionId(id as i32);
        let Some(mut intake) = self.pool.intake(partition) else { panic!("{partition} isn't held") };
        self.logs[id][index].take_in(&mut intake, 100);
    }

    fn act(&mut self) {
        self.pool.schedule();
        let actions: VecDeque<PoolAction> = self.pool.actions().collect();
        for action in actions {
            match action {
                PoolAction::Run { ticket, .. } => self.running.push(ticket),
                PoolAction::Pause(id) => self.paused[id.0 as usize] = true,
                PoolAction::Resume(id) => self.paused[id.0 as usize] = false,
                PoolAction::Release(id) => panic!("partition {id} was released"),
            }
        }
    }

    fn finish(&mut self, choice: usize) {
        if !self.running.is_empty() {
            let ticket = self.running.swap_remove(choice % self.running.len());
            self.pool.finished(ticket, ());
            self.act();
        }
    }

    fn commit_done(&mut self) {
        let Some(commit) = self.commit.take() else { return };
        for part in &commit.parts {
            let id = part.partition.0 as usize;
            let judged = self.judges[id].commit(&self.logs[id], part.offset.0, part.effects.iter());
            judged.unwrap_or_else(|violation| panic!("{violation}"));
        }
        self.pool.committed(commit.id);
        self.act();
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::TakeIn(count) => self.take_in(count),
            Event::Finish(choice) => self.finish(choice),
            Event::Pass(time) => {
                self.now += time;
                self.pool.set_now(Now { mono: Mono(self.now), wall: Millis(self.now) });
            }
            Event::BeginCommit => {
                if let Some(commit) = self.pool.take_commit() {
                    assert!(self.commit.is_none(), "two commits at once");
                    self.commit = Some(commit);
                }
            }
            Event::CommitDone => self.commit_done(),
            Event::CommitRefused => {
                if let Some(commit) = self.commit.take() {
                    self.pool.refused(commit.id, false, false);
                    self.act();
                }
            }
            Event::Repeat(count) => {
                for id in 0..self.logs.len() {
                    for index in self.fetched[id].saturating_sub(count)..self.fetched[id] {
                        self.deliver(id, index);
                    }
                }
                self.act();
            }
            Event::StoreStates => {
                self.pool.store_states();
                self.judges.iter_mut().for_each(ExactlyOnce::stored_again);
            }
        }
    }

    /// Processes and commits everything; fails if the pool stalls before that.
    fn drain(&mut self) {
        let behind = |bench: &Bench| {
            let end = |log: &Vec<Entry>| log.last().map_or(0, |entry| entry.offset + 1);
            let offset = |id: usize| bench.pool.committed_offset(PartitionId(id as i32));
            // The states of decommissioned generators are deleted after the offset.
            let open = bench.pool.bytes() > 0;
            open || (0..bench.logs.len()).any(|id| offset(id) != Some(Offset(end(&bench.logs[id]))))
        };
        for _ in 0..1000 {
            if !behind(self) {
                return;
            }
            let wake =
                [Event::TakeIn(5), Event::Finish(0), Event::Pass(50), Event::BeginCommit, Event::CommitDone];
            wake.iter().for_each(|event| self.happen(event));
        }
        panic!("the pool stalled: {:?}", self.pool);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_committed_is_the_serial_evaluation(
        rules in rules(),
        logs in logs(),
        handling in handling(),
        bounds in bounds(),
        events in events(),
    ) {
        let mut bench = Bench::new(&rules, logs, handling, bounds);
        for event in &events {
            bench.happen(event);
        }
        bench.drain();
        prop_assert_eq!((bench.pool.in_flight(), bench.pool.running(), bench.pool.bytes()), (0, 0, 0));
        prop_assert!(bench.paused.iter().all(|paused| !paused), "a partition stayed paused");
    }

    #[test]
    fn lanes_and_inline_give_the_same_and_of_each_generator_in_the_same_order(rules in rules(), logs in logs(), events in events()) {
        let generous = Bounds { records: 1 << 20, bytes: 1 << 30 };
        let effects = [Handling::Inline, Handling::Lanes { concurrency: 3 }].map(|handling| {
            let mut bench = Bench::new(&rules, logs.clone(), handling, generous);
            let taken: usize = logs.iter().map(Vec::len).max().unwrap_or(0);
            bench.take_in(taken);
            for event in events.iter().filter(|event| matches!(event, Event::Finish(_))) {
                bench.happen(event);
            }
            while !bench.running.is_empty() {
                bench.finish(0);
            }
            let parts = bench.pool.take_commit().map(|commit| commit.parts).unwrap_or_default();
            let effects = |part: &genwatch_core::pool::CommitPart| {
                let mut by_generator: BTreeMap<Option<String>, Vec<Effect>> = BTreeMap::new();
                for effect in part.effects.iter() {
                    let generator = match effect {
                        Effect::Output(alert) => Some(alert.generator.to_string()),
                        Effect::State(change) => Some(change.generator.to_string()),
                        Effect::DeadLetter(_) => None,
                    };
                    by_generator.entry(generator).or_default().push(effect.clone());
                }
                (part.partition, part.offset, by_generator)
            };
            parts.iter().map(effects).collect::<Vec<_>>()
        });
        prop_assert_eq!(&effects[0], &effects[1]);
    }
}

/// A pool with one partition, processed inline.
fn pool_with(partition: PartitionId) -> Pool {
    let policy = CommitPolicy { interval: 1000, linger: 10, bytes: 1 << 20 };
    let bounds = Bounds { records: 1000, bytes: 1 << 20 };
    let mut pool = Pool::new(Detector::new(Rules::default()), Handling::Inline, bounds, policy);
    pool.assign(partition, Beginning::default());
    pool
}

fn read(pool: &mut Pool, partition: PartitionId, offset: i64, fuel: i64) {
    let text = format!(
        r#"{{"generatorID":"g{offset}","lat":1,"lon":2,"temperature":74,"pressure":198,"fuel":{fuel}}}"#
    );
    let key = format!("g{offset}");
    let parsed = reading::parse(Some(key.as_bytes()), Some(text.as_bytes())).expect("a reading");
    let (generator, job) = Job::of(&parsed);
    let mut intake = pool.intake(partition).expect("held");
    intake.take_in(Offset(offset), Millis(0), generator, job, 100, || Epoch(0));
}

#[test]
fn every_state_is_written_again_when_that_is_asked_for() {
    let partition = PartitionId(3);
    let mut pool = pool_with(partition);
    for (offset, fuel) in [(0, 10), (1, 900), (2, 10)] {
        read(&mut pool, partition, offset, fuel);
    }
    let states = |pool: &mut Pool| -> Vec<Effect> {
        let later = pool.next_commit().expect("something to commit");
        pool.set_now(Now { mono: later, wall: Millis(0) });
        let commit = pool.take_commit().expect("a commit");
        pool.committed(commit.id);
        let effects = commit.parts.iter().flat_map(|part| part.effects.iter());
        effects.filter(|effect| effect.as_state().is_some()).cloned().collect()
    };
    let first = states(&mut pool);
    assert_eq!(first.len(), 2, "two are low on fuel: {first:?}");
    assert_eq!(pool.store_states(), 2);
    assert_eq!(states(&mut pool), first);
    assert_eq!(pool.next_commit(), None);
}

#[test]
fn records_of_a_partition_that_is_released_count_too() {
    let partition = PartitionId(3);
    let mut pool = pool_with(partition);
    read(&mut pool, partition, 0, 900);
    pool.lose(partition);
    assert_eq!(pool.actions().filter(|action| *action == PoolAction::Release(partition)).count(), 1);
    assert_eq!(pool.take_record_counts().collect::<Vec<_>>(), [(partition, 1)]);
    assert_eq!(pool.take_record_counts().count(), 0);
}
