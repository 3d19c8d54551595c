//! The aggregates of a log by `docs/formats.md`, computed in one batch from all of its readings.
//!
//! Every window is computed on its own, from lists of readings; there is no state that grows. The watermark decides
//! what is late: the latest event time of the partition's readings before. A clock decides nothing here, so a log whose
//! windows were closed by a clock while it went on can't be judged.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::exact;
use crate::meaning::{Meaning, Numbers, classify};
use crate::rule::{Kind, Limit, NaiveRule};
use crate::topic::TopicRecord;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const HALF_HOUR: i64 = 30 * MINUTE;
const FIELDS: [&str; 5] = ["temperature", "pressure", "fuel", "load", "power"];

/// Windows of event time, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// The length of a window.
    pub length: i64,
    /// How far the watermark passes a window's end before it closes.
    pub grace: i64,
    /// Up to how far the watermark is beyond a window's end, a late reading corrects it; `None`: it is dropped.
    pub correct_within: Option<i64>,
}

impl Windows {
    fn start(&self, at: i64) -> i64 {
        at - at.rem_euclid(self.length)
    }

    fn end(&self, at: i64) -> i64 {
        self.start(at) + self.length
    }

    /// Whether the window of `at` is open at this watermark.
    fn is_open(&self, at: i64, watermark: Option<i64>) -> bool {
        watermark.is_none_or(|watermark| self.end(at) + self.grace > watermark)
    }

    fn is_correctable(&self, at: i64, watermark: Option<i64>) -> bool {
        let Some(within) = self.correct_within else { return false };
        watermark.is_none_or(|watermark| self.end(at) > watermark - within)
    }
}

/// What becomes of the windows that are open at the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// They are still open.
    Open,
    /// Their generators fall silent, and a clock closes them.
    Closed,
}

/// The readings of a topic, and what they come to.
#[derive(Clone, Debug)]
pub struct AggregateOracle {
    windows: Windows,
    rules: Vec<(String, Limit)>,
    partitions: BTreeMap<i32, Vec<Entry>>,
}

/// A reading, or a decommissioning if it has no numbers.
#[derive(Clone, Debug)]
struct Entry {
    generator: String,
    at: i64,
    numbers: Option<Numbers>,
    /// The partition's watermark before it.
    watermark: Option<i64>,
}

impl AggregateOracle {
    /// The oracle before the first record.
    #[must_use]
    pub fn new(windows: Windows, rules: &[NaiveRule]) -> AggregateOracle {
        let limits = rules.iter().filter_map(|rule| match &rule.kind {
            Kind::Limit(limit) => Some((rule.name.clone(), limit.clone())),
            Kind::Deadman(_) => None,
        });
        AggregateOracle { windows, rules: limits.collect(), partitions: BTreeMap::new() }
    }

    /// Takes its partition's next record. A bad one counts for nothing.
    pub fn record(&mut self, record: TopicRecord<'_>) {
        match classify(record.key, record.value) {
            Meaning::Reading(numbers) => {
                self.reading(record.partition, record.generator(), record.at, numbers);
            }
            Meaning::Decommissioned => self.decommissioned(record.partition, record.generator()),
            Meaning::Bad(_) => {}
        }
    }

    /// Takes a reading.
    pub fn reading(&mut self, partition: i32, generator: &str, at: i64, numbers: Numbers) {
        self.push(partition, generator, at, Some(numbers));
    }

    /// Takes a decommissioning. Its time counts for nothing.
    pub fn decommissioned(&mut self, partition: i32, generator: &str) {
        self.push(partition, generator, 0, None);
    }

    fn push(&mut self, partition: i32, generator: &str, at: i64, numbers: Option<Numbers>) {
        let log = self.partitions.entry(partition).or_default();
        let watermark = log.iter().rev().find_map(watermark_after);
        log.push(Entry { generator: generator.to_owned(), at, numbers, watermark });
    }

    /// The values of all records of the aggregates topic, in order for each generator.
    #[must_use]
    pub fn aggregates(&self, ending: Ending) -> Vec<Value> {
        let mut all = Vec::new();
        for log in self.partitions.values() {
            let mut lives: BTreeMap<&str, Vec<Life<'_>>> = BTreeMap::new();
            for (position, entry) in log.iter().enumerate() {
                let lives = lives.entry(&entry.generator).or_default();
                if lives.last().is_none_or(|life| life.died.is_some()) {
                    lives.push(Life { oracle: self, log, readings: Vec::new(), died: None });
                }
                let Some(life) = lives.last_mut() else { continue };
                match &entry.numbers {
                    Some(numbers) => life.readings.push(Reading {
                        position,
                        at: entry.at,
                        numbers,
                        watermark: entry.watermark,
                    }),
                    None => life.died = Some(position),
                }
            }
            for life in lives.values().flatten() {
                all.extend(life.aggregates(ending));
            }
        }
        all
    }
}

/// The watermark after an entry, if the entry knows it: a decommissioning doesn't move it.
fn watermark_after(entry: &Entry) -> Option<i64> {
    let at = entry.numbers.as_ref().map(|_| entry.at);
    at.max(entry.watermark)
}

#[derive(Clone, Copy)]
struct Reading<'a> {
    /// Its place in the partition's log.
    position: usize,
    at: i64,
    numbers: &'a Numbers,
    /// The partition's watermark before it.
    watermark: Option<i64>,
}

/// The readings of a generator up to its decommissioning.
struct Life<'a> {
    oracle: &'a AggregateOracle,
    log: &'a [Entry],
    readings: Vec<Reading<'a>>,
    died: Option<usize>,
}

impl<'a> Life<'a> {
    fn aggregates(&self, ending: Ending) -> Vec<Value> {
        let windows = &self.oracle.windows;
        let in_time = |reading: &&Reading<'_>| windows.is_open(reading.at, reading.watermark);
        let (timely, late): (Vec<&Reading<'a>>, Vec<&Reading<'a>>) = self.readings.iter().partition(in_time);
        let late: Vec<&Reading<'a>> = late
            .into_iter()
            .filter(|reading| windows.is_correctable(reading.at, reading.watermark))
            .collect();
        let chain = Chain::new(&timely, windows);
        let mut starts: Vec<i64> =
            timely.iter().chain(&late).map(|reading| windows.start(reading.at)).collect();
        starts.sort_unstable();
        starts.dedup();

        // The output, by where in the log, then by the window's start.
        let mut output: Vec<((usize, u8, i64), Value)> = Vec::new();
        for start in starts {
            let within = |readings: &[&Reading<'a>]| -> Vec<Reading<'a>> {
                let within = readings.iter().filter(|reading| windows.start(reading.at) == start);
                within.map(|reading| **reading).collect()
            };
            let (mut counted, corrections) = (within(&timely), within(&late));
            let hours_left = chain.hours_left(start, &counted, &corrections);
            let mut revision = None;
            if let Some(first) = counted.first() {
                let Some(closed) = self.closed(first, ending) else { continue };
                output.push(((closed, 1, start), self.value(start, &counted, &chain, hours_left, None)));
                revision = Some(0);
            }
            for correction in corrections {
                counted.push(correction);
                revision = revision.map(|revision| revision + 1);
                let value = self.value(start, &counted, &chain, hours_left, revision);
                output.push(((correction.position, 0, start), value));
                revision = revision.or(Some(0));
            }
        }
        output.sort_by_key(|(place, _)| *place);
        output.into_iter().map(|(_, value)| value).collect()
    }

    /// Where in the log the window of its first reading closes: after the first record that takes the watermark far
    /// enough.
    fn closed(&self, first: &Reading<'_>, ending: Ending) -> Option<usize> {
        let windows = &self.oracle.windows;
        let passed = |position: &usize| {
            self.died == Some(*position) || !windows.is_open(first.at, watermark_after(&self.log[*position]))
        };
        let at_end = (ending == Ending::Closed).then_some(self.log.len());
        (first.position..self.log.len()).find(passed).or(at_end)
    }

    fn value(
        &self,
        start: i64,
        readings: &[Reading<'_>],
        chain: &Chain<'_>,
        hours_left: Option<f64>,
        revision: Option<u32>,
    ) -> Value {
        let end = start + self.oracle.windows.length;
        let mut fields = Map::new();
        for field in FIELDS {
            let values = readings
                .iter()
                .filter_map(|reading| Some((reading.at, reading.numbers.field(field)?)))
                .collect::<Vec<_>>();
            if !values.is_empty() {
                fields.insert(field.to_owned(), statistics(&values));
            }
        }
        let above = |limit: &Limit| {
            let held = chain.shares.iter().filter(|share| share.window == start);
            let held = held.filter(|share| share.before.field(limit.field).is_some_and(|v| limit.raises(v)));
            held.map(|share| share.millis).sum::<i64>() as f64 / 1000.0
        };
        let above: Map<String, Value> =
            self.oracle.rules.iter().map(|(name, limit)| (name.clone(), json!(above(limit)))).collect();
        let used = chain.used.iter().filter(|(window, _)| *window == start);
        let used: Vec<f64> = used.map(|(_, litres)| *litres).collect();
        let mut value = json!({
            "generatorID": self.log[readings[0].position].generator,
            "window": {"start": start, "end": end},
            "count": readings.len(),
            "fields": fields,
            "above": above,
            "fuel_used": exact::sum(&used).map(|litres| litres.max(0.0)),
            "hours_left": hours_left,
            "final": true,
        });
        if let Some(revision) = revision {
            value["revision"] = json!(revision);
        }
        value
    }
}

/// Times and values in log order, at least one.
fn statistics(values: &[(i64, f64)]) -> Value {
    let numbers: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    let mut sorted = numbers.clone();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
    let mean = exact::sum(&numbers).map(|sum| (sum / numbers.len() as f64).clamp(min, max));
    let latest = values.iter().map(|(at, _)| *at).max();
    let last = values.iter().rev().find(|(at, _)| Some(*at) == latest).map(|(_, value)| *value);
    let rank = |q: f64| sorted[(q * (sorted.len() - 1) as f64) as usize];
    json!({"min": min, "max": max, "mean": mean, "last": last, "p50": rank(0.5), "p95": rank(0.95), "p99": rank(0.99)})
}

/// A share of the time between two readings.
struct Share<'a> {
    /// The start of the window that it counts in.
    window: i64,
    millis: i64,
    /// The earlier reading.
    before: &'a Numbers,
}

/// The readings in time that aren't older than one before: each is compared with the previous one.
struct Chain<'a> {
    length: i64,
    readings: Vec<Reading<'a>>,
    /// For each reading, the index of the one with which its fuel track began.
    track: Vec<usize>,
    shares: Vec<Share<'a>>,
    /// Windows and litres used in them, to be added up.
    used: Vec<(i64, f64)>,
}

impl<'a> Chain<'a> {
    fn new(timely: &[&Reading<'a>], windows: &Windows) -> Chain<'a> {
        let mut readings: Vec<Reading<'a>> = Vec::new();
        for reading in timely {
            if readings.last().is_none_or(|previous| reading.at >= previous.at) {
                readings.push(**reading);
            }
        }
        let mut chain = Chain {
            length: windows.length,
            readings,
            track: Vec::new(),
            shares: Vec::new(),
            used: Vec::new(),
        };
        chain.share_time(windows);
        chain.follow_fuel(windows);
        chain
    }

    fn share_time(&mut self, windows: &Windows) {
        for pair in self.readings.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            let gap = after.at - before.at;
            if gap <= 0 || gap > MINUTE.min(windows.length) {
                continue;
            }
            let (earlier, later) = (windows.start(before.at), windows.start(after.at));
            let both = earlier != later && windows.is_open(before.at, after.watermark);
            let split = if both { later } else { before.at };
            let numbers = before.numbers;
            self.shares.push(Share { window: earlier, millis: split - before.at, before: numbers });
            self.shares.push(Share { window: later, millis: after.at - split, before: numbers });
        }
    }

    fn follow_fuel(&mut self, windows: &Windows) {
        // The differences since the last refuel, each with the level that it led to.
        let mut since: Vec<(f64, f64)> = Vec::new();
        let (mut began, mut rising) = (0, false);
        for (index, reading) in self.readings.iter().enumerate() {
            let level = reading.numbers.fuel;
            let window = windows.start(reading.at);
            let previous = index.checked_sub(1).map(|previous| &self.readings[previous]);
            let previous = previous.filter(|previous| reading.at - previous.at <= HOUR);
            let Some(before) = previous.map(|previous| previous.numbers.fuel) else {
                (since, began, rising) = (vec![(level, level)], index, false);
                self.track.push(began);
                continue;
            };
            let low = since.iter().map(|(_, to)| *to).fold(f64::INFINITY, f64::min);
            if rising && level >= before {
                (since, began) = (vec![(level, level)], index);
            } else if !rising && level - low > 1.0 && level - low > 0.05 * low.abs() {
                // Undo what was subtracted since the last time that it was so low.
                let lowest = since.iter().rposition(|(_, to)| *to == low).unwrap_or(0);
                for (from, to) in &since[lowest + 1..] {
                    self.used.push((window, *to));
                    self.used.push((window, -*from));
                }
                (since, began, rising) = (vec![(level, level)], index, true);
            } else {
                self.used.push((window, before));
                self.used.push((window, -level));
                since.push((before, level));
                rising = false;
            }
            self.track.push(began);
        }
    }

    /// The hours that the fuel lasts, for the window from `start`: by what was known when the first reading behind its
    /// end came, or when the window was opened, if that was later.
    fn hours_left(&self, start: i64, timely: &[Reading<'_>], late: &[Reading<'_>]) -> Option<f64> {
        let end = start + self.length;
        let crossed = self.readings.iter().position(|reading| reading.at >= end);
        let known_at =
            |position: usize| self.readings.iter().take_while(|reading| reading.position < position).count();
        let known = match (timely.first(), late.first()) {
            (Some(opened), _) => crossed.unwrap_or(self.readings.len()).max(known_at(opened.position)),
            (None, Some(opened)) => known_at(opened.position),
            (None, None) => return None,
        };
        let newest = known.checked_sub(1)?;
        let track = &self.readings[self.track[newest]..=newest];
        // The last reading of each minute of the last half hour.
        let mut minutes: BTreeMap<i64, (i64, f64)> = BTreeMap::new();
        for reading in track {
            minutes.insert(reading.at.div_euclid(MINUTE), (reading.at, reading.numbers.fuel));
        }
        let newest = track.last()?.at;
        let points: Vec<(i64, f64)> =
            minutes.into_values().filter(|(at, _)| newest - at <= HALF_HOUR && *at < end).collect();
        let (heard, level) = *points.last()?;
        if start - heard > HOUR {
            return None;
        }
        let points: Vec<_> = points.into_iter().filter(|(at, _)| heard - at <= HALF_HOUR).collect();
        if heard - points[0].0 < 5 * MINUTE {
            return None;
        }
        let mut slopes = Vec::new();
        for (index, (later, high)) in points.iter().enumerate() {
            for (earlier, low) in &points[..index] {
                slopes.push((high - low) / ((later - earlier) as f64 / HOUR as f64));
            }
        }
        slopes.sort_by(f64::total_cmp);
        let middle = slopes.len() / 2;
        let slope =
            if slopes.len() % 2 == 0 { (slopes[middle - 1] + slopes[middle]) / 2.0 } else { slopes[middle] };
        let hours = level / -slope;
        (-slope > 1e-6 * level.abs() && hours.is_finite()).then(|| hours.max(0.0))
    }
}
