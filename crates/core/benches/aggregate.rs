//! Aggregates, piece by piece: a reading added, a window closed and encoded, a state stored and restored.

#![allow(missing_docs, clippy::unwrap_used)]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use genwatch_core::aggregate::{
    Aggregate, AggregateCounts, AggregateState, Aggregator, Late, StoredAggregates,
};
use genwatch_core::alarm::rules::Rules;
use genwatch_core::reading::{self, Parsed, Values};
use genwatch_core::simulator::{Faults, Fleet};
use genwatch_core::types::{GeneratorId, Millis};

const READINGS: usize = 60_000;
const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

fn main() {
    divan::main();
}

/// The readings of one simulated generator, one a second.
fn readings() -> Vec<Values> {
    let mut fleet = Fleet::new(1, 1, Faults::None);
    let values = |record: genwatch_core::simulator::SimulatedRecord<'_>| match reading::parse(
        record.key,
        record.value,
    ) {
        Ok(Parsed::Reading { values, .. }) => values,
        _ => panic!("a reading"),
    };
    (0..READINGS).map(|_| values(fleet.next())).collect()
}

fn aggregator(window: i64, late: Late) -> Aggregator {
    Aggregator::new(window, 10 * SECOND, late, &Rules::default()).unwrap()
}

fn add_all(aggregator: &Aggregator, readings: &[Values], out: &mut Vec<Aggregate>) -> AggregateState {
    let generator = GeneratorId::from("generator1");
    let (mut state, mut counts) = (AggregateState::new(), AggregateCounts::default());
    for (second, values) in (0..).zip(readings) {
        let at = Millis(second * SECOND);
        let watermark = Millis(at.0 - SECOND);
        aggregator.add(&generator, &mut state, at, values, watermark, out, &mut counts);
        // As a sender takes them.
        if out.len() == 64 {
            out.clear();
        }
    }
    state
}

/// One reading a second, without a closing window.
#[divan::bench]
fn add_to_an_open_window(bencher: Bencher<'_, '_>) {
    let (readings, aggregator) = (readings(), aggregator(24 * HOUR, Late::Drop));
    bencher
        .counter(ItemsCount::new(READINGS))
        .bench_local(|| add_all(&aggregator, black_box(&readings), &mut Vec::new()));
}

/// One reading a second and a window a minute: everything but encoding.
#[divan::bench]
fn add_and_close_each_minute(bencher: Bencher<'_, '_>) {
    let (readings, aggregator) = (readings(), aggregator(MINUTE, Late::Drop));
    bencher
        .counter(ItemsCount::new(READINGS))
        .bench_local(|| add_all(&aggregator, black_box(&readings), &mut Vec::new()));
}

/// The same while closed windows are kept for an hour.
#[divan::bench]
fn add_and_keep_for_corrections(bencher: Bencher<'_, '_>) {
    let (readings, aggregator) = (readings(), aggregator(MINUTE, Late::Correct { within: HOUR }));
    bencher
        .counter(ItemsCount::new(READINGS))
        .bench_local(|| add_all(&aggregator, black_box(&readings), &mut Vec::new()));
}

fn one_aggregate() -> Aggregate {
    let mut out = Vec::new();
    add_all(&aggregator(MINUTE, Late::Drop), &readings()[..90], &mut out);
    out.pop().unwrap()
}

#[divan::bench]
fn encode_the_value(bencher: Bencher<'_, '_>) {
    let aggregate = one_aggregate();
    bencher.bench_local(|| black_box(&aggregate).to_json());
}

#[divan::bench]
fn encode_the_part(bencher: Bencher<'_, '_>) {
    let aggregate = one_aggregate();
    bencher.bench_local(|| black_box(&aggregate).part_json());
}

/// Of a generator with one open window.
#[divan::bench]
fn store(bencher: Bencher<'_, '_>) {
    let aggregator = aggregator(MINUTE, Late::Drop);
    let state = add_all(&aggregator, &readings()[..3630], &mut Vec::new());
    bencher.bench_local(|| serde_json::to_vec(&aggregator.store(black_box(&state))));
}

#[divan::bench]
fn restore(bencher: Bencher<'_, '_>) {
    let aggregator = aggregator(MINUTE, Late::Drop);
    let state = add_all(&aggregator, &readings()[..3630], &mut Vec::new());
    let stored = serde_json::to_vec(&aggregator.store(&state)).unwrap();
    bencher.bench_local(|| {
        let stored: StoredAggregates = serde_json::from_slice(black_box(&stored)).unwrap();
        aggregator.restore(stored)
    });
}
