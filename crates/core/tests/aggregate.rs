//! Aggregates against the oracle: random logs of several generators, out of order, late, refuelled, decommissioned;
//! stored and restored anywhere; in cascades. Failures shrink.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;

use genwatch_core::aggregate::{
    Added, Aggregate, AggregateCounts, AggregateState, Aggregator, InvalidPart, InvalidWindows, Late, Part,
    RestoreError, StoredAggregates,
};
use genwatch_core::alarm::rules::Rules;
use genwatch_core::reading::Values;
use genwatch_core::types::{GeneratorId, Millis};
use genwatch_oracle::{AggregateOracle, Ending, Limit, NaiveRule, Numbers, Windows, compare_aggregates};
use proptest::prelude::*;
use serde_json::Value;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// What comes next in the log.
#[derive(Clone, Debug)]
enum Event {
    Reading { generator: usize, at: i64, numbers: Numbers },
    Decommissioned { generator: usize },
}

/// What `downsample/mutations.rs` runs over mutants, by the names that it has for them; in a program that is no test.
#[cfg(not(test))]
pub const CHECKS: [(&str, fn()); 4] = [
    ("Batch", any_log_comes_to_what_the_batch_says),
    ("Cascade", a_cascade_comes_to_what_the_readings_do),
    ("Corrections", a_cascade_of_corrections_counts_each_reading_once),
    ("Clock", a_clock_closes_the_last_window_of_a_silent_generator),
];

fn naive_rules() -> Vec<NaiveRule> {
    let low = Limit { below: true, ..Limit::above("fuel", 30.0) };
    let mut rules = NaiveRule::built_in();
    rules.push(NaiveRule::limit("hot", "warning", Limit::above("temperature", 50.0)));
    rules.push(NaiveRule::limit("low", "warning", low));
    rules.push(NaiveRule::limit("loaded", "warning", Limit::above("load", 50.0)));
    rules
}

fn rules() -> Rules {
    let text: String = naive_rules().iter().map(NaiveRule::to_toml).collect();
    Rules::parse(&text, Path::new("rules.toml")).unwrap()
}

fn aggregator(windows: &Windows) -> Aggregator {
    let late = windows.correct_within.map_or(Late::Drop, |within| Late::Correct { within });
    Aggregator::new(windows.length, windows.grace, late, &rules()).unwrap()
}

fn values(numbers: &Numbers) -> Values {
    let Numbers { lat, lon, temperature, pressure, fuel, load, power } = *numbers;
    Values::new(lat, lon, temperature, pressure, fuel, load, power)
}

/// One partition, as its owner drives it.
struct Partition {
    aggregator: Aggregator,
    states: BTreeMap<usize, AggregateState>,
    watermark: Millis,
    out: Vec<Aggregate>,
    counts: AggregateCounts,
}

impl Partition {
    fn new(windows: &Windows) -> Partition {
        Partition {
            aggregator: aggregator(windows),
            states: BTreeMap::new(),
            watermark: Millis::NEVER,
            out: Vec::new(),
            counts: AggregateCounts::default(),
        }
    }

    fn take(&mut self, event: &Event) -> Added {
        match event {
            Event::Reading { generator, at, numbers } => {
                let id = id(*generator);
                let state = self.states.entry(*generator).or_default();
                let (at, numbers) = (Millis(*at), values(numbers));
                let (out, counts) = (&mut self.out, &mut self.counts);
                let added = self.aggregator.add(&id, state, at, &numbers, self.watermark, out, counts);
                self.watermark = self.watermark.max(at);
                added
            }
            Event::Decommissioned { generator } => {
                if let Some(mut state) = self.states.remove(generator) {
                    // What the watermark has passed is closed first, or with the rest: the order is the same.
                    self.aggregator.finish(&id(*generator), &mut state, &mut self.out);
                }
                Added::Changed
            }
        }
    }

    /// Closes what the watermark has passed, as a worker does now and then.
    fn close_passed(&mut self) {
        for (generator, state) in &mut self.states {
            let due = self.aggregator.deadline(state).is_some_and(|deadline| deadline <= self.watermark);
            let closed = self.aggregator.close(&id(*generator), state, self.watermark, &mut self.out);
            assert_eq!(closed, due);
        }
    }

    /// Stores every state and restores it; forgets the empty ones.
    fn move_to_another_owner(&mut self) {
        let watermark = self.watermark;
        self.states.retain(|_, state| !self.aggregator.is_empty(state, watermark));
        for state in self.states.values_mut() {
            let stored = self.aggregator.store(state);
            let text = serde_json::to_string(&stored).unwrap();
            let read: StoredAggregates = serde_json::from_str(&text).unwrap();
            assert_eq!(read, stored);
            *state = self.aggregator.restore(read).unwrap();
            assert_eq!(self.aggregator.store(state), stored);
        }
    }

    fn take_all(&mut self, log: &[Event]) {
        for event in log {
            self.take(event);
        }
    }

    fn close_all(&mut self) {
        for (generator, state) in &mut self.states {
            self.aggregator.close(&id(*generator), state, Millis(i64::MAX), &mut self.out);
            assert_eq!(self.aggregator.deadline(state), None);
        }
    }

    fn emitted(&self) -> Vec<Value> {
        self.out.iter().map(json).collect()
    }
}

fn json(aggregate: &Aggregate) -> Value {
    serde_json::from_slice(&aggregate.to_json()).unwrap()
}

fn id(generator: usize) -> GeneratorId {
    GeneratorId::from(format!("generator{generator}").as_str())
}

fn expected(windows: &Windows, log: &[Event], ending: Ending) -> Vec<Value> {
    let mut oracle = AggregateOracle::new(*windows, &naive_rules());
    for event in log {
        match event {
            Event::Reading { generator, at, numbers } => {
                oracle.reading(0, id(*generator).as_str(), *at, numbers.clone());
            }
            Event::Decommissioned { generator } => oracle.decommissioned(0, id(*generator).as_str()),
        }
    }
    oracle.aggregates(ending)
}

fn cents(range: std::ops::Range<i32>) -> impl Strategy<Value = f64> {
    range.prop_map(|n| f64::from(n) / 100.0)
}

type Step = (usize, i64, i64, f64, f64, f64, Option<f64>, Option<f64>);

/// A step of one generator: time since the last record of the log, how late it is, and how its fuel changes.
fn steps(late: i64) -> impl Strategy<Value = Vec<Event>> {
    let pause = prop_oneof![
        8 => 0..5 * SECOND,
        3 => 0..70 * SECOND,
        1 => 0..10 * MINUTE,
        1 => 0..3 * HOUR,
    ];
    let age = prop_oneof![6 => Just(0), 1 => 0..late, 1 => 0..3 * late];
    let fuel = prop_oneof![
        12 => cents(-60..0),
        3 => cents(-60..200),
        1 => cents(0..6000),
        1 => cents(-6000..0),
    ];
    let optional = || prop::option::of(cents(0..10_000));
    let step = (0..3usize, pause, age, fuel, cents(-2000..12_000), cents(0..100_000), optional(), optional());
    let removed = prop::bool::weighted(0.01);
    prop::collection::vec((step, removed), 1..160).prop_map(|steps| {
        let mut now = 1_766_400_000_000 - 7;
        let mut levels = [70.0; 3];
        let event =
            |((generator, pause, age, fuel, temperature, pressure, load, power), removed): (Step, bool)| {
                now += pause;
                if removed {
                    return Event::Decommissioned { generator };
                }
                let level: &mut f64 = &mut levels[generator];
                *level = ((*level + fuel) * 100.0).round().max(0.0) / 100.0;
                let numbers =
                    Numbers { lat: 0.0, lon: 0.0, temperature, pressure, fuel: *level, load, power };
                Event::Reading { generator, at: now - age, numbers }
            };
        steps.into_iter().map(event).collect()
    })
}

fn windows() -> impl Strategy<Value = Windows> {
    let length = prop::sample::select(vec![7 * SECOND, 10 * SECOND, MINUTE, 5 * MINUTE, HOUR]);
    let grace = prop_oneof![2 => Just(0), 1 => 0..MINUTE, 1 => 0..2 * HOUR];
    let correct = prop::option::of(prop_oneof![0..10 * MINUTE, 0..2 * HOUR]);
    (length, grace, correct).prop_map(|(length, grace, correct_within)| Windows {
        length,
        grace,
        correct_within,
    })
}

/// Mutants are found by fewer cases.
fn config(cases: u32) -> ProptestConfig {
    let cases = if cfg!(test) { cases } else { cases / 4 };
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config(600))]

    /// Whatever comes, in whatever order, and whichever worker owns the partition: the results are those of the batch.
    #[cfg_attr(test, test)]
    fn any_log_comes_to_what_the_batch_says(
        windows in windows(),
        log in steps(2 * MINUTE),
        moves in prop::collection::vec(prop::bool::weighted(0.1), 160),
        closes in prop::collection::vec(prop::bool::weighted(0.3), 160),
        ends in any::<bool>(),
    ) {
        let mut partition = Partition::new(&windows);
        for ((event, moves), closes) in log.iter().zip(moves).zip(closes) {
            let before = partition.out.len();
            let added = partition.take(event);
            if matches!(event, Event::Reading { .. }) {
                prop_assert_eq!(partition.out.len() > before, added == Added::Emitted);
            }
            if closes {
                partition.close_passed();
            }
            if moves {
                partition.move_to_another_owner();
            }
            for state in partition.states.values() {
                let covered = windows.grace / windows.length + 2;
                prop_assert!(state.open_windows() as i64 <= covered, "{} open", state.open_windows());
                let kept = windows.correct_within.unwrap_or(0) / windows.length + 2;
                prop_assert!(state.kept_windows() as i64 <= kept, "{} kept", state.kept_windows());
            }
        }
        let ending = if ends { Ending::Closed } else { Ending::Open };
        partition.close_passed();
        if ends {
            partition.close_all();
        }
        let differences = compare_aggregates(&expected(&windows, &log, ending), &partition.emitted());
        prop_assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

/// Readings in order, of all generators: none is late.
fn in_order() -> impl Strategy<Value = Vec<Event>> {
    steps(1).prop_map(|events| {
        let mut latest = i64::MIN;
        let sorted = events.into_iter().filter_map(|event| match event {
            Event::Reading { generator, at, numbers } => {
                latest = latest.max(at);
                Some(Event::Reading { generator, at: latest, numbers })
            }
            Event::Decommissioned { .. } => None,
        });
        sorted.collect()
    })
}

/// The aggregates of one topic as the input of another.
fn cascade(windows: &Windows, minutes: &[Aggregate]) -> Vec<Aggregate> {
    let larger = aggregator(windows);
    let mut states: BTreeMap<GeneratorId, AggregateState> = BTreeMap::new();
    let (mut watermark, mut out, mut counts) = (Millis::NEVER, Vec::new(), AggregateCounts::default());
    for minute in minutes {
        let part = Part::from_json(&minute.part_json()).unwrap();
        let state = states.entry(minute.generator().clone()).or_default();
        larger.add_part(minute.generator(), state, &part, watermark, &mut out, &mut counts).unwrap();
        watermark = watermark.max(part.event_time());
        let stored = serde_json::to_string(&larger.store(state)).unwrap();
        *state = larger.restore(serde_json::from_str(&stored).unwrap()).unwrap();
    }
    for (generator, state) in &mut states {
        larger.finish(generator, state, &mut out);
    }
    assert_eq!(counts, AggregateCounts::default());
    out
}

proptest! {
    #![proptest_config(config(200))]

    /// Hours made of minutes are the hours of the readings, every number equal; so are days made of those hours.
    #[cfg_attr(test, test)]
    fn a_cascade_comes_to_what_the_readings_do(log in in_order()) {
        let of = |length| {
            // Generators fall silent one by one, so their windows close late.
            let windows = Windows { length, grace: 3 * HOUR, correct_within: None };
            let mut partition = Partition::new(&windows);
            partition.take_all(&log);
            partition.close_all();
            (windows, partition.out)
        };
        let ((_, minutes), (hourly, hours), (daily, days)) = (of(MINUTE), of(HOUR), of(24 * HOUR));
        let by_start = |aggregates: &[Aggregate]| {
            let mut all: Vec<Value> = aggregates.iter().map(json).collect();
            all.sort_by_key(|value| (value["generatorID"].to_string(), value["window"]["start"].as_i64()));
            all
        };
        let mut minutes = minutes;
        minutes.sort_by_key(Aggregate::start);
        let mut cascaded = cascade(&hourly, &minutes);
        prop_assert_eq!(by_start(&cascaded), by_start(&hours));
        cascaded.sort_by_key(Aggregate::start);
        prop_assert_eq!(by_start(&cascade(&daily, &cascaded)), by_start(&days));
    }

    /// A revision's part is what it adds: hours made of corrected minutes count each reading once.
    #[cfg_attr(test, test)]
    fn a_cascade_of_corrections_counts_each_reading_once(log in steps(2 * MINUTE)) {
        let windows = Windows { length: MINUTE, grace: 0, correct_within: Some(2 * HOUR) };
        let mut partition = Partition::new(&windows);
        partition.take_all(&log);
        partition.close_all();
        let hourly = Windows { length: HOUR, grace: 20 * HOUR, correct_within: None };
        let count = |aggregates: &[Aggregate]| aggregates.iter().map(Aggregate::count).sum::<u64>();
        let hours = cascade(&hourly, &partition.out);
        let taken = log.iter().filter(|event| matches!(event, Event::Reading { .. })).count() as u64;
        prop_assert_eq!(count(&hours), taken - partition.counts.late_dropped);
    }

    /// No times and values make it panic, fill memory, or fail to be stored.
    #[test]
    fn hostile_times_and_values_are_harmless(
        log in prop::collection::vec((
            prop_oneof![
                Just(i64::MIN), Just(i64::MAX), Just(i64::MAX - 1), Just(0), Just(-1), any::<i64>(), 0..HOUR,
            ],
            prop_oneof![Just(f64::MAX), Just(f64::MIN), Just(-0.0), Just(5e-324), prop::num::f64::NORMAL, -1e3..1e3],
            prop::option::of(prop::num::f64::NORMAL),
        ), 1..60),
        windows in windows(),
    ) {
        let mut partition = Partition::new(&windows);
        for (at, value, optional) in log {
            let numbers = Numbers {
                lat: 0.0, lon: 0.0, temperature: value, pressure: -value, fuel: value, load: optional, power: None,
            };
            partition.take(&Event::Reading { generator: 0, at, numbers });
            partition.move_to_another_owner();
            for state in partition.states.values() {
                prop_assert!(state.open_windows() as i64 <= windows.grace / windows.length + 2);
            }
        }
        partition.close_all();
        for aggregate in &partition.out {
            let value = json(aggregate);
            prop_assert!(value["count"].as_u64() >= Some(1), "{value}");
            prop_assert!(aggregate.start() < aggregate.end() || aggregate.end() == Millis(i64::MAX));
            prop_assert!(Part::from_json(&aggregate.part_json()).is_ok());
        }
    }

    /// A header of whatever origin is refused or merged.
    #[test]
    fn hostile_parts_are_harmless(at in any::<prop::sample::Index>(), with in "[0-9a-zA-Z,.\\[\\]{}:\"-]{0,3}") {
        let mut out = Vec::new();
        let mut partition = Partition::new(&Windows { length: MINUTE, grace: 0, correct_within: None });
        let fuel = 99.0;
        for second in 0..50 {
            let numbers = Numbers {
                lat: 0.0, lon: 0.0, temperature: 70.1, pressure: 3.3, fuel: fuel - second as f64, load: None, power: None,
            };
            partition.take(&Event::Reading { generator: 0, at: second * SECOND, numbers });
        }
        partition.close_all();
        let text = String::from_utf8(partition.out[0].part_json()).unwrap();
        let at = at.index(text.len());
        let changed = format!("{}{with}{}", &text[..at], &text[(at + with.len()).min(text.len())..]);
        if let Ok(part) = Part::from_json(changed.as_bytes()) {
            let hours = aggregator(&Windows { length: HOUR, grace: 0, correct_within: None });
            let (mut state, mut counts) = (AggregateState::new(), AggregateCounts::default());
            for _ in 0..2 {
                let _ = hours.add_part(&id(0), &mut state, &part, Millis::NEVER, &mut out, &mut counts);
            }
            hours.finish(&id(0), &mut state, &mut out);
            out.iter().for_each(|aggregate| drop(json(aggregate)));
        }
    }
}

fn reading(generator: usize, at: i64, temperature: f64, fuel: f64) -> Event {
    let numbers = Numbers { lat: 0.0, lon: 0.0, temperature, pressure: 1.0, fuel, load: None, power: None };
    Event::Reading { generator, at, numbers }
}

const MINUTES: Windows = Windows { length: MINUTE, grace: 0, correct_within: None };

fn emitted(windows: &Windows, log: &[Event]) -> Vec<Value> {
    let mut partition = Partition::new(windows);
    partition.take_all(log);
    partition.close_all();
    partition.emitted()
}

/// Of each aggregate, what is at this JSON pointer.
fn at(aggregates: &[Value], pointer: &str) -> Vec<Value> {
    aggregates.iter().map(|aggregate| aggregate.pointer(pointer).cloned().unwrap_or(Value::Null)).collect()
}

#[test]
fn an_aggregate_reads_as_the_contract_says() {
    let log = [reading(4, -1000, 101.0, 70.0), reading(4, 0, 74.5, 69.5), reading(4, 500, 73.5, 69.25)];
    let mut partition = Partition::new(&MINUTES);
    partition.take_all(&log);
    partition.close_all();
    let aggregate = &partition.out[1];
    let text = String::from_utf8(aggregate.to_json()).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"generatorID":"generator4","window":{"start":0,"end":60000},"count":2,"fields":{"#,
            r#""temperature":{"min":73.5,"max":74.5,"mean":74.0,"last":73.5,"p50":73.5,"p95":73.5,"p99":73.5},"#,
            r#""pressure":{"min":1.0,"max":1.0,"mean":1.0,"last":1.0,"p50":1.0,"p95":1.0,"p99":1.0},"#,
            r#""fuel":{"min":69.25,"max":69.5,"mean":69.375,"last":69.25,"p50":69.25,"p95":69.25,"p99":69.25}},"#,
            r#""above":{"low_fuel":0.5,"over_temperature":0.0,"hot":0.5,"low":0.0,"loaded":0.0},"#,
            r#""fuel_used":0.75,"hours_left":null,"final":true}"#
        )
        .replace(r#""p50":73.5,"p95":73.5,"p99":73.5"#, &percentiles(&text, 0))
        .replace(r#""p50":69.25,"p95":69.25,"p99":69.25"#, &percentiles(&text, 2))
    );
    assert_eq!((aggregate.start(), aggregate.end()), (Millis(0), Millis(MINUTE)));
}

/// The percentiles of the field at this index, as they are: they are within 1 %, which others check.
fn percentiles(text: &str, index: usize) -> String {
    let from = text.match_indices("\"p50\"").nth(index).unwrap().0;
    text[from..from + text[from..].find('}').unwrap()].to_owned()
}

#[test]
fn time_above_a_limit_is_split_at_the_end_of_the_window() {
    let log = [
        reading(0, 50 * SECOND, 51.0, 70.0),
        reading(0, 75 * SECOND, 51.0, 70.0),
        // A gap that is too long counts as nothing.
        reading(0, 136 * SECOND, 51.0, 70.0),
        reading(0, 137 * SECOND, 50.0, 70.0),
        reading(0, 140 * SECOND, 70.0, 70.0),
    ];
    assert_eq!(at(&emitted(&MINUTES, &log), "/above/hot"), [10.0, 15.0, 1.0]);
    // The minute of the earlier reading was closed by another generator's: all of it is the later one's.
    let closed = [reading(0, 50 * SECOND, 51.0, 70.0), reading(1, 60 * SECOND, 0.0, 70.0), log[1].clone()];
    assert_eq!(at(&emitted(&MINUTES, &closed), "/above/hot"), [0.0, 25.0, 0.0]);
}

#[test]
fn a_late_reading_is_dropped_or_corrects_its_window() {
    let log = [
        reading(0, 10 * SECOND, 10.0, 70.0),
        reading(0, 70 * SECOND, 10.0, 70.0),
        reading(0, 20 * SECOND, 30.0, 70.0),
        reading(1, 30 * SECOND, 40.0, 70.0),
        reading(1, 31 * SECOND, 50.0, 70.0),
        reading(0, 10 * MINUTE, 10.0, 70.0),
        reading(0, 21 * SECOND, 99.0, 70.0),
    ];
    let count = |windows| {
        let mut partition = Partition::new(windows);
        partition.take_all(&log);
        (partition.counts.late_dropped, partition.counts.late_corrected)
    };
    assert_eq!(at(&emitted(&MINUTES, &log), "/count"), [1, 1, 1]);
    assert_eq!(count(&MINUTES), (4, 0));
    let correcting = Windows { correct_within: Some(5 * MINUTE), ..MINUTES };
    assert_eq!(count(&correcting), (1, 3));
    let corrected = emitted(&correcting, &log);
    assert_eq!(at(&corrected, "/count"), [1, 2, 1, 2, 1, 1]);
    let none = Value::Null;
    // The first of generator 1 is no revision: its window had no output before.
    assert_eq!(
        at(&corrected, "/revision"),
        [none.clone(), 1.into(), none.clone(), 1.into(), none.clone(), none]
    );
    assert_eq!(at(&corrected, "/fields/temperature/mean")[1..4], [20.0, 40.0, 45.0]);
}

#[test]
fn a_jump_into_the_future_closes_what_lies_between() {
    let windows = Windows { length: MINUTE, grace: HOUR, correct_within: None };
    let mut partition = Partition::new(&windows);
    for minute in (0..50).rev() {
        partition.take(&reading(0, minute * MINUTE, 1.0, 70.0));
    }
    assert_eq!(partition.states[&0].open_windows(), 50);
    assert_eq!(partition.counts.out_of_order, 49);
    partition.take(&reading(0, 200 * MINUTE, 1.0, 70.0));
    assert_eq!((partition.states[&0].open_windows(), partition.out.len()), (1, 50));
    partition.take(&reading(0, i64::MAX, 1.0, 70.0));
    assert_eq!((partition.states[&0].open_windows(), partition.out.len()), (0, 52));
}

#[cfg_attr(test, test)]
fn a_clock_closes_the_last_window_of_a_silent_generator() {
    let windows = Windows { grace: 5 * SECOND, ..MINUTES };
    let mut partition = Partition::new(&windows);
    partition.take(&reading(0, 10 * SECOND, 1.0, 70.0));
    let state = partition.states.get_mut(&0).unwrap();
    assert_eq!(partition.aggregator.deadline(state), Some(Millis(65 * SECOND)));
    assert!(!partition.aggregator.close(&id(0), state, Millis(65 * SECOND - 1), &mut partition.out));
    assert!(partition.aggregator.close(&id(0), state, Millis(65 * SECOND), &mut partition.out));
    // It stays closed, whatever the watermark is.
    assert_eq!(partition.take(&reading(0, 11 * SECOND, 1.0, 70.0)), Added::Same);
    assert_eq!((partition.out.len(), partition.counts.late_dropped), (1, 1));
    let later = Millis(3 * HOUR);
    assert!(!partition.aggregator.is_empty(&partition.states[&0], Millis(HOUR)));
    assert!(partition.aggregator.is_empty(&partition.states[&0], later));
}

#[test]
fn a_window_that_does_not_fit_is_refused() {
    let rules = rules();
    let new = |window, grace, late| Aggregator::new(window, grace, late, &rules).map(|_| ());
    assert_eq!(new(0, 0, Late::Drop), Err(InvalidWindows::NoWindow));
    assert_eq!(new(1, -1, Late::Drop), Err(InvalidWindows::Negative));
    assert_eq!(new(MINUTE, 0, Late::Correct { within: -1 }), Err(InvalidWindows::Negative));
    assert_eq!(new(MINUTE, 24 * HOUR, Late::Drop), Ok(()));
    let covered = 25 * HOUR;
    assert_eq!(new(MINUTE, covered, Late::Drop), Err(InvalidWindows::TooMany { covered, window: MINUTE }));

    let mut partition = Partition::new(&MINUTES);
    partition.take(&reading(0, 0, 1.0, 70.0));
    let stored = partition.aggregator.store(&partition.states[&0]);
    let hourly = aggregator(&Windows { length: HOUR, ..MINUTES });
    assert!(matches!(
        hourly.restore(stored),
        Err(RestoreError::OtherWindow { stored: MINUTE, window: HOUR })
    ));
    partition.close_all();
    let part = partition.out[0].part();
    for length in [90 * SECOND, 30 * SECOND] {
        let other = aggregator(&Windows { length, ..MINUTES });
        let (mut state, mut out, mut counts) = Default::default();
        let refused = other.add_part(&id(0), &mut state, &part, Millis(0), &mut out, &mut counts);
        assert!(matches!(refused, Err(InvalidPart::Misaligned { start: 0, end: MINUTE, .. })));
        assert_eq!(state.open_windows(), 0);
    }
}

#[test]
fn time_above_a_limit_survives_a_change_of_the_rules() {
    let mut partition = Partition::new(&MINUTES);
    partition.take_all(&[reading(0, 0, 51.0, 70.0), reading(0, SECOND, 51.0, 70.0)]);
    let stored = partition.aggregator.store(&partition.states[&0]);
    // Other rules, in another order: "hot" is the last, "low_fuel" is gone.
    let text: String = naive_rules()[1..].iter().rev().map(NaiveRule::to_toml).collect();
    let rules = Rules::parse(&text, Path::new("rules.toml")).unwrap();
    partition.aggregator = Aggregator::new(MINUTE, 0, Late::Drop, &rules).unwrap();
    let state = partition.aggregator.restore(stored).unwrap();
    partition.states.insert(0, state);
    partition.take(&reading(0, 2 * SECOND, 40.0, 70.0));
    partition.close_all();
    let above = partition.emitted()[0]["above"].to_string();
    assert_eq!(above, r#"{"loaded":0.0,"low":0.0,"hot":2.0,"over_temperature":0.0,"low_fuel":1.0}"#);
}
