//! From what was seen of a group over some time to what the planner is told.

use std::collections::BTreeMap;

use super::measurements::{HotGenerator, KeyShare, Measurements, PartitionLoad, WorkerLoad};
use crate::partitioner::murmur2;
use crate::ranges;
use crate::report::load::Load;
use crate::report::{Kind, Report};
use crate::types::{Offset, PartitionId};

/// The most keys of a sample that are told apart: a fleet of that size has no hot generator that matters.
const KEYS_MAX: usize = 200_000;

/// So many of the fullest generators are named.
const HOTTEST: usize = 5;

/// A generator of the sample with fewer readings says nothing about its share.
const LEAST_READINGS: u64 = 5;

/// What was seen of a group.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// For how many seconds.
    pub seconds: f64,
    /// Each partition at the beginning and at the end.
    pub partitions: BTreeMap<PartitionId, (Place, Place)>,
    /// What each worker said of itself, in order: the last report from before, and those of the time.
    pub reports: BTreeMap<String, Vec<Report>>,
    /// A sample of the readings.
    pub keys: KeySample,
}

/// A partition at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The next offset to process.
    pub next: Offset,
    /// The end of the log.
    pub end: Offset,
}

/// The keys of a sample of readings.
#[derive(Clone, Debug, Default)]
pub struct KeySample {
    counts: BTreeMap<Box<str>, u64>,
    readings: u64,
}

impl KeySample {
    /// Adds a reading's key.
    pub fn add(&mut self, key: &str) {
        self.readings += 1;
        if let Some(count) = self.counts.get_mut(key) {
            *count += 1;
        } else if self.counts.len() < KEYS_MAX {
            self.counts.insert(key.into(), 1);
        }
    }

    fn shares(&self) -> Vec<KeyShare> {
        let share = |count: u64| count as f64 / self.readings as f64;
        let hash = |key: &str| murmur2(key.as_bytes()) & 0x7fff_ffff;
        self.counts.iter().map(|(key, count)| KeyShare { hash: hash(key), share: share(*count) }).collect()
    }

    fn hottest(&self) -> Vec<HotGenerator> {
        let mut most: Vec<(&str, u64)> = self.counts.iter().map(|(key, count)| (&**key, *count)).collect();
        most.sort_by_key(|(key, count)| (std::cmp::Reverse(*count), *key));
        let named = most.into_iter().take_while(|(_, count)| *count >= LEAST_READINGS).take(HOTTEST);
        let of = |(key, count): (&str, u64)| HotGenerator {
            generator: key.to_owned(),
            share: count as f64 / self.readings as f64,
        };
        named.map(of).collect()
    }
}

impl Seen {
    /// What the planner is told.
    #[must_use]
    pub fn measurements(&self) -> Measurements {
        let members: Vec<&Vec<Report>> = self.reports.values().filter(|reports| is_member(reports)).collect();
        let workers: Vec<WorkerLoad> = members.iter().map(|reports| load_of(reports)).collect();
        let mut holders: BTreeMap<PartitionId, usize> = BTreeMap::new();
        for (worker, reports) in members.iter().enumerate() {
            let held = reports.last().into_iter().flat_map(|report| ranges::parse(&report.held)).flatten();
            holders.extend(held.map(|partition| (PartitionId(partition), worker)));
        }
        let seconds = self.seconds.max(1e-3);
        let partition = |(id, (before, after)): (&PartitionId, &(Place, Place))| PartitionLoad {
            arrival: (after.end.0 - before.end.0).max(0) as f64 / seconds,
            done: (after.next.0 - before.next.0).max(0) as f64 / seconds,
            lag: (after.end.0 - after.next.0).max(0) as f64,
            worker: holders.get(id).copied(),
        };
        let hottest = match self.keys.hottest() {
            sampled if sampled.is_empty() => told_hottest(&members),
            sampled => sampled,
        };
        let told: u64 =
            members.iter().filter_map(|reports| reports.last()).map(|report| report.generators).sum();
        Measurements {
            partitions: self.partitions.iter().map(partition).collect(),
            workers,
            generators: told.max(self.keys.counts.len() as u64),
            hottest,
            attained: Vec::new(),
            keys: self.keys.shares(),
        }
    }
}

/// Whether these are the reports of who is there and works partitions.
fn is_member(reports: &[Report]) -> bool {
    reports.last().is_some_and(|last| matches!(last.kind, Kind::Worker | Kind::Downsample))
}

/// The mean over the reports; the first is from before, if there are others.
fn load_of(reports: &[Report]) -> WorkerLoad {
    let (Some(first), Some(last)) = (reports.first(), reports.last()) else { return WorkerLoad::default() };
    // A report covers the time since the one before it.
    let pairs = reports.windows(2).map(|pair| (pair[1].at.since(pair[0].at).max(1) as f64, &pair[1]));
    let during: Vec<(f64, &Report)> = if reports.len() > 1 { pairs.collect() } else { vec![(1.0, first)] };
    let millis: f64 = during.iter().map(|(millis, _)| millis).sum();
    let mean = |value: &dyn Fn(&Report) -> f64| {
        during.iter().map(|(millis, report)| millis * value(report)).sum::<f64>() / millis
    };
    let load = |value: fn(&Load) -> f64| mean(&|report| report.load.as_ref().map_or(0.0, value));
    let span = last.at.since(first.at);
    // Counted, where it went on all the time.
    let rate = if span > 0 && last.records >= first.records && last.since == first.since {
        (last.records - first.records) as f64 * 1000.0 / span as f64
    } else {
        mean(&|report| report.rate)
    };
    // Only reports of time in which work was finished know how long it takes.
    let known: Vec<f64> = during
        .iter()
        .filter_map(|(_, report)| Some(report.load.as_ref()?.work))
        .filter(|work| *work > 0.0)
        .collect();
    let said = last.load.clone().unwrap_or_default();
    WorkerLoad {
        name: last.worker.clone(),
        machine: if said.machine.is_empty() { last.host.clone() } else { said.machine },
        rate,
        loop_busy: load(|load| load.loop_busy),
        lanes_busy: load(|load| load.lanes_busy),
        work: if known.is_empty() { 0.0 } else { known.iter().sum::<f64>() / known.len() as f64 },
        lanes: usize::try_from(said.lanes).unwrap_or(usize::MAX),
        rate_limit: said.rate_limit.map(f64::from),
        cpu: mean(&|report| report.cpu),
        cores: load(|load| load.cores),
        committing: load(|load| load.committing),
        full: load(|load| load.full),
        fetch_throttled: load(|load| load.fetch_throttled),
        produce_throttled: load(|load| load.produce_throttled),
    }
}

/// What the workers say of their fullest generators, as shares of all.
fn told_hottest(members: &[&Vec<Report>]) -> Vec<HotGenerator> {
    let last = || members.iter().filter_map(|reports| reports.last());
    let all: f64 = last().map(|report| report.rate).sum();
    let mut hottest: Vec<HotGenerator> = last()
        .flat_map(|report| {
            let top = report.load.iter().flat_map(|load| &load.top);
            top.map(|top| HotGenerator {
                generator: top.generator.clone(),
                share: top.share * report.rate / all.max(1e-9),
            })
        })
        .collect();
    hottest.sort_by(|one, other| other.share.total_cmp(&one.share));
    hottest.truncate(HOTTEST);
    hottest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(worker: &str, at: i64, records: u64, held: &str, load: Load) -> Report {
        let json = serde_json::json!({
            "worker": worker, "kind": "worker", "at": at, "since": 0, "every": 1000, "version": "1", "host": "h",
            "rate": 500.0, "busy": 1.0, "cpu": 0.1, "records": records, "generators": 10, "held": held, "load": load,
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_was_seen_becomes_rates() {
        let load = Load { lanes: 1, work: 0.002, lanes_busy: 1.0, cores: 1.5, ..Load::default() };
        let said = |at, records| report("w", at, records, "0-1", load.clone());
        let place = |next, end| Place { next: Offset(next), end: Offset(end) };
        let mut keys = KeySample::default();
        (0..100).for_each(|n| keys.add(if n % 10 == 0 { "hot" } else { ["a", "b", "c"][n % 3] }));
        let seen = Seen {
            seconds: 10.0,
            partitions: BTreeMap::from([
                (PartitionId(0), (place(0, 1000), place(2500, 6000))),
                (PartitionId(1), (place(0, 1000), place(2500, 6000))),
            ]),
            reports: BTreeMap::from([(
                "w".to_owned(),
                vec![said(0, 0), said(1000, 500), said(10_000, 5000)],
            )]),
            keys,
        };
        let measured = seen.measurements();
        let [zero, one] = measured.partitions[..] else { panic!("two partitions") };
        assert_eq!((zero.arrival, zero.done, zero.lag, zero.worker), (500.0, 250.0, 3500.0, Some(0)));
        assert_eq!(one, zero);
        let worker = &measured.workers[0];
        assert_eq!((worker.rate, worker.work, worker.lanes_busy, worker.cpu), (500.0, 0.002, 1.0, 0.1));
        assert_eq!((measured.generators, measured.keys.len()), (10, 4));
        assert_eq!(measured.hottest[0].generator, "a");
        assert_eq!(measured.hottest.iter().find(|hot| hot.generator == "hot").unwrap().share, 0.1);
    }
}
