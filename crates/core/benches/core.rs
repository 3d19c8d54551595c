//! The pure core, piece by piece: parse, evaluate, hand out to lanes, publish. `cargo bench` runs them.
//!
//! What matters on a real broker is measured by `genwatch bench`; these say which piece a change has touched.

#![allow(missing_docs, clippy::unwrap_used)]

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use genwatch_core::alarm::detector::{Detector, Job};
use genwatch_core::alarm::rules::Rules;
use genwatch_core::handler::tracked::Times;
use genwatch_core::handler::{LogIdentity, ReadingPosition, Tracked};
use genwatch_core::plan::top_keys::KeySampler;
use genwatch_core::pool::{
    Beginning, Bounds, CommitPolicy, Handling, NO_EVENT_TIME, Pool, PoolAction, Ticket,
};
use genwatch_core::reading::{self, Parsed};
use genwatch_core::simulator::{Faults, Fleet};
use genwatch_core::types::{Epoch, GeneratorId, Millis, Mono, Now, Offset, PartitionId, TopicId};

const READINGS: usize = 10_000;
const GENERATORS: u32 = 1000;
const BOUNDS: Bounds = Bounds { records: 100_000, bytes: 256 << 20 };
const POLICY: CommitPolicy = CommitPolicy { interval: 100, linger: 5, bytes: 1 << 30 };
const PARTITION: PartitionId = PartitionId(0);
const EPOCH: Epoch = Epoch(3);

fn main() {
    divan::main();
}

/// Keys and values of so many readings.
fn records() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fleet = Fleet::new(1, GENERATORS, Faults::None);
    let record = |fleet: &mut Fleet| {
        let record = fleet.next();
        (record.key.unwrap_or_default().to_vec(), record.value.unwrap_or_default().to_vec())
    };
    (0..READINGS).map(|_| record(&mut fleet)).collect()
}

fn parsed(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<Parsed<'_>> {
    records.iter().map(|(key, value)| reading::parse(Some(key), Some(value)).unwrap()).collect()
}

fn source(offset: usize) -> ReadingPosition {
    ReadingPosition { partition: PARTITION, offset: Offset(offset as i64), at: Millis(offset as i64) }
}

fn pool(handling: Handling) -> Pool {
    let mut pool = Pool::new(Detector::new(Rules::default()), handling, BOUNDS, POLICY);
    let topic = Some(TopicId::from("fXb3ZTPHT7y5Iq7LgnAqLQ"));
    pool.assign(PARTITION, Beginning { topic, ..Beginning::default() });
    pool
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let records = records();
    bencher.counter(ItemsCount::new(READINGS)).bench_local(|| {
        for (key, value) in &records {
            let _ = black_box(reading::parse(Some(key), Some(value)));
        }
    });
}

/// What most Rust consumers do, to compare with.
#[divan::bench]
fn parse_with_serde_json(bencher: Bencher<'_, '_>) {
    #[derive(serde::Deserialize)]
    #[allow(dead_code)]
    struct Reading<'a> {
        #[serde(rename = "generatorID", borrow)]
        generator: &'a str,
        lat: f64,
        lon: f64,
        temperature: f64,
        pressure: f64,
        fuel: f64,
    }
    let records = records();
    bencher.counter(ItemsCount::new(READINGS)).bench_local(|| {
        for (_, value) in &records {
            let _ = black_box(serde_json::from_slice::<Reading<'_>>(value));
        }
    });
}

#[divan::bench]
fn evaluate(bencher: Bencher<'_, '_>) {
    let records = records();
    let readings = parsed(&records);
    let detector = Detector::new(Rules::default());
    let generator = GeneratorId::from("generator1");
    bencher.counter(ItemsCount::new(READINGS)).bench_local(|| {
        let mut tracked = Tracked::new(&detector, Now::default());
        let (mut effects, mut late) = (Vec::new(), [0, 0]);
        let times = Times { now: Now::default(), watermark: NO_EVENT_TIME };
        for (offset, reading) in readings.iter().enumerate() {
            let (_, job) = Job::of(reading);
            let log = LogIdentity { topic: None, epoch: || black_box(EPOCH) };
            let at = source(offset);
            tracked.apply(&detector, &generator, job, (), at, &log, times, &mut effects, &mut late);
        }
        black_box(effects)
    });
}

/// A fast handler: taken in, evaluated, published, committed.
#[divan::bench]
fn inline(bencher: Bencher<'_, '_>) {
    let records = records();
    let readings = parsed(&records);
    bencher.counter(ItemsCount::new(READINGS)).with_inputs(|| pool(Handling::Inline)).bench_local_refs(
        |pool| {
            for (offset, reading) in readings.iter().enumerate() {
                let ReadingPosition { partition, offset, at } = source(offset);
                let (generator, job) = Job::of(reading);
                let mut intake = pool.intake(partition).unwrap();
                intake.take_in(offset, at, generator, job, 128, || black_box(EPOCH));
            }
            pool.set_now(Now { mono: Mono(1_000_000), wall: Millis(1_000_000) });
            let commit = pool.take_commit().unwrap();
            black_box(pool.committed(commit.id))
        },
    );
}

/// A slow handler: to a lane, handed out, finished, published, committed.
#[divan::bench(args = [1, 64, 1000])]
fn lanes(bencher: Bencher<'_, '_>, concurrency: usize) {
    let records = records();
    let readings = parsed(&records);
    let input = || pool(Handling::Lanes { concurrency });
    bencher.counter(ItemsCount::new(READINGS)).with_inputs(input).bench_local_refs(|pool| {
        for (offset, reading) in readings.iter().enumerate() {
            let ReadingPosition { partition, offset, at } = source(offset);
            let (generator, job) = Job::of(reading);
            let mut intake = pool.intake(partition).unwrap();
            intake.take_in(offset, at, generator, job, 128, || black_box(EPOCH));
        }
        pool.schedule();
        let mut running: Vec<Ticket> = Vec::new();
        loop {
            let started = |action| match action {
                PoolAction::Run { ticket, .. } => Some(ticket),
                _ => None,
            };
            running.extend(pool.actions().filter_map(started));
            if running.is_empty() {
                break;
            }
            // The newest first, so that the watermark has something to wait for.
            for ticket in running.drain(..).rev() {
                pool.finished(ticket, ());
            }
            pool.schedule();
        }
        pool.set_now(Now { mono: Mono(1_000_000), wall: Millis(1_000_000) });
        let commit = pool.take_commit().unwrap();
        black_box(pool.committed(commit.id))
    });
}

/// Samples the keys of a fast stream, as a worker does beside everything above.
#[divan::bench]
fn sample_keys(bencher: Bencher<'_, '_>) {
    let names: Vec<String> = (0..READINGS).map(|number| format!("gen-{:06}", number % 1000)).collect();
    let mut keys = KeySampler::default();
    bencher.counter(ItemsCount::new(READINGS)).bench_local(|| {
        keys.see_all(black_box(&names).iter().map(|name| Some(name.as_bytes())));
    });
}
