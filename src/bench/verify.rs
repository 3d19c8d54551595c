//! What the alerts of a topic must be, and whether they are.
//!
//! The two default rules, evaluated serially and naively, without any code of the worker's: nobody wins by doing less. Bad records
//! call for nothing, a tombstone clears what is raised.
//! Alerts are compared by one hash a generator, over its alerts in their order; so an alert that is missing, doubled,
//! different or out of order is found, and millions need no memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde::Deserialize;

use super::{BenchError, go_on};
use crate::kafka::admin::Cluster;
use crate::kafka::config::Connection;
use crate::kafka::tail::{StartAt, Tail};

const LOOK: Duration = Duration::from_millis(50);
/// A larger value is a bad record.
const MAX_VALUE_BYTES: usize = 1 << 20;
/// A longer id is none.
const MAX_ID_BYTES: usize = 256;
const RULES: [&str; 2] = ["low_fuel", "over_temperature"];

/// Where readings and alerts are.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// How the cluster is reached.
    pub connection: &'a Connection,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The topic of the readings.
    pub readings: &'a str,
    /// The topic of the alerts.
    pub alerts: &'a str,
}

/// The alerts of a topic, as far as they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    chains: HashMap<String, u64>,
    /// How many.
    pub alerts: u64,
}

impl Digest {
    fn add(&mut self, generator: &str, rule: &str, raised: bool, value: Option<f64>, at: i64) {
        let mut hasher = DefaultHasher::new();
        let chain = self.chains.get(generator).copied().unwrap_or_default();
        (chain, rule, raised, value.map(f64::to_bits), at).hash(&mut hasher);
        match self.chains.get_mut(generator) {
            Some(chain) => *chain = hasher.finish(),
            None => drop(self.chains.insert(generator.to_owned(), hasher.finish())),
        }
        self.alerts += 1;
    }

    /// How many generators have other alerts than there.
    fn differing(&self, other: &Digest) -> usize {
        let here =
            self.chains.iter().filter(|(generator, chain)| other.chains.get(*generator) != Some(chain));
        let only_there = other.chains.keys().filter(|generator| !self.chains.contains_key(*generator));
        here.count() + only_there.count()
    }
}

/// A reading as the contract has it: what serde refuses is bad, whatever the reason. (It refuses a field that is given twice, and
/// null in the place of a number.)
#[derive(Deserialize)]
struct Reading<'a> {
    #[serde(rename = "generatorID", borrow)]
    generator: Cow<'a, str>,
    lat: f64,
    lon: f64,
    temperature: f64,
    #[serde(rename = "pressure")]
    _pressure: f64,
    fuel: f64,
    #[serde(rename = "load", default)]
    _load: Option<f64>,
    #[serde(rename = "power", default)]
    _power: Option<f64>,
}

/// The reading that a record is, if it is one.
fn reading<'a>(key: Option<&[u8]>, value: &'a [u8]) -> Option<Reading<'a>> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= MAX_VALUE_BYTES)?;
    // Serde would take an array of the fields as well.
    let object = text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{');
    let reading: Reading<'_> = serde_json::from_str(text).ok().filter(|_| object)?;
    let somewhere = reading.lat.abs() <= 90.0 && reading.lon.abs() <= 180.0;
    (somewhere && id(key)? == reading.generator).then_some(reading)
}

fn id(key: Option<&[u8]>) -> Option<&str> {
    let id = std::str::from_utf8(key?).ok()?;
    (1..=MAX_ID_BYTES).contains(&id.len()).then_some(id)
}

#[derive(Deserialize)]
struct Alert<'a> {
    #[serde(rename = "generatorID", borrow)]
    generator: Cow<'a, str>,
    #[serde(borrow)]
    rule: Cow<'a, str>,
    #[serde(borrow)]
    state: Cow<'a, str>,
    value: Option<f64>,
    at: i64,
}

/// The rules, applied to one record after the other.
#[derive(Default)]
struct Evaluation {
    digest: Digest,
    /// Of each rule whether it's active, and since when it is as it is.
    phases: HashMap<String, [(bool, i64); 2]>,
}

impl Evaluation {
    fn take(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, at: i64) {
        match value {
            None => self.decommission(key, at),
            Some(value) => {
                if let Some(reading) = reading(key, value) {
                    self.judge(&reading, at);
                }
            }
        }
    }

    fn judge(&mut self, reading: &Reading<'_>, at: i64) {
        let generator: &str = &reading.generator;
        if !self.phases.contains_key(generator) {
            self.phases.insert(generator.to_owned(), [(false, i64::MIN); 2]);
        }
        let Some(phases) = self.phases.get_mut(generator) else { return };
        let (fuel, heat) = (reading.fuel, reading.temperature);
        let judged = [(fuel, fuel < 200.0, fuel > 250.0), (heat, heat > 100.0, heat < 95.0)];
        for ((phase, rule), (value, raise, clear)) in phases.iter_mut().zip(RULES).zip(judged) {
            let (active, since) = *phase;
            // One that is older than the phase is late, and changes nothing.
            if at >= since && if active { clear } else { raise } {
                *phase = (!active, at);
                self.digest.add(generator, rule, !active, Some(value), at);
            }
        }
    }

    fn decommission(&mut self, key: Option<&[u8]>, at: i64) {
        let Some(generator) = id(key) else { return };
        for ((active, _), rule) in self.phases.remove(generator).unwrap_or_default().into_iter().zip(RULES) {
            if active {
                self.digest.add(generator, rule, false, None, at);
            }
        }
    }
}

/// What the readings call for.
///
/// # Errors
/// When the topic can't be read, or somebody stops it.
pub fn expected(source: &Source<'_>, stop: &AtomicBool) -> Result<Digest, BenchError> {
    let mut tail = Tail::new(source.connection, source.cluster, source.readings, StartAt::Beginning)?;
    let mut evaluation = Evaluation::default();
    while !tail.at_end() {
        go_on(stop)?;
        tail.read(LOOK, |record| {
            evaluation.take(record.key, record.value, record.timestamp.0);
            Ok::<(), BenchError>(())
        })?;
    }
    Ok(evaluation.digest)
}

/// Reads what a program adds to the alerts topic.
pub struct AlertsReader<'a> {
    tail: Tail,
    source: Source<'a>,
}

impl<'a> AlertsReader<'a> {
    /// Of what is added from there on.
    ///
    /// # Errors
    /// When the topic can't be read.
    pub fn new(source: Source<'a>, from: StartAt) -> Result<AlertsReader<'a>, BenchError> {
        let tail = Tail::new(source.connection, source.cluster, source.alerts, from)?;
        Ok(AlertsReader { tail, source })
    }

    /// What was added up to now, visible to a reader of committed records, is what was expected.
    ///
    /// # Errors
    /// When it isn't, the topic can't be read, or somebody stops it.
    pub fn check(mut self, name: &str, expected: &Digest, stop: &AtomicBool) -> Result<(), BenchError> {
        self.tail.extend(self.source.cluster, self.source.alerts)?;
        let wrong = |what: String| BenchError::Wrong { name: name.to_owned(), what };
        let mut digest = Digest::default();
        while !self.tail.at_end() {
            go_on(stop)?;
            self.tail.read(LOOK, |record| {
                let alert: Alert<'_> =
                    serde_json::from_slice(record.value.unwrap_or_default()).map_err(|error| {
                        wrong(format!(
                            "{} partition {} offset {} holds no alert event: {error}; find out what else writes to that topic, \
                             or verify with topics of its own (--topic)",
                            self.source.alerts, record.partition, record.offset
                        ))
                    })?;
                digest.add(&alert.generator, &alert.rule, alert.state == "raised", alert.value, alert.at);
                Ok::<(), BenchError>(())
            })?;
        }
        if digest == *expected {
            return Ok(());
        }
        Err(wrong(format!(
            "{} alerts instead of {}, of {} generators not those that the readings call for",
            digest.alerts,
            expected.alerts,
            digest.differing(expected)
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"generatorID":"g","lat":1,"lon":2,"temperature":70,"pressure":1,"fuel":100}"#;

    fn alerts(records: &[(Option<&str>, Option<&str>)]) -> u64 {
        let mut evaluation = Evaluation::default();
        for (at, (key, value)) in records.iter().enumerate() {
            evaluation.take(key.map(str::as_bytes), value.map(str::as_bytes), at as i64);
        }
        evaluation.digest.alerts
    }

    #[test]
    fn a_bad_record_calls_for_nothing() {
        assert_eq!(alerts(&[(Some("g"), Some(GOOD))]), 1);
        let with = |from: &str, to: &str| GOOD.replace(from, to);
        for bad in [
            "not json".to_owned(),
            "[\"g\",1,2,70,1,100,null,null]".to_owned(),
            format!("{GOOD} {{}}"),
            with("\"lat\":1", "\"lat\":91"),
            with("\"pressure\":1,", ""),
            with("\"fuel\":100", "\"fuel\":\"100\""),
            with("\"fuel\":100", "\"fuel\":null"),
            with("\"fuel\":100", "\"fuel\":100,\"fuel\":100"),
            with("\"fuel\":100", "\"fuel\":100,\"load\":true"),
            with("\"fuel\":100", "\"fuel\":100,\"temperature\":1e999"),
            with("\"g\"", "\"h\""),
        ] {
            assert_eq!(alerts(&[(Some("g"), Some(&bad))]), 0, "{bad}");
        }
        assert_eq!(
            alerts(&[(None, Some(GOOD)), (Some("g"), Some(&format!("{GOOD}{}", " ".repeat(1 << 20))))]),
            0
        );
        assert_eq!(
            alerts(&[(Some("g"), Some(&with("\"fuel\":100", "\"fuel\":100,\"load\":null,\"x\":[1]")))]),
            1
        );
    }

    #[test]
    fn a_tombstone_clears_what_is_raised_and_an_escaped_id_is_the_same_generator() {
        let escaped = GOOD.replace("\"g\"", "\"\\u0067\"");
        assert_eq!(
            alerts(&[
                (Some("g"), Some(&escaped)),
                (Some("g"), Some(GOOD)),
                (Some("g"), None),
                (Some("g"), None)
            ]),
            2
        );
        assert_eq!(
            alerts(&[(Some("g"), Some(GOOD)), (None, None), (Some("g"), None), (Some("g"), Some(GOOD))]),
            3
        );
    }
}
