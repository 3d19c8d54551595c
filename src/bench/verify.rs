//! What the alerts of a topic must be, and whether they are.
//!
//! The two default rules, evaluated serially and naively, without any code of the worker's: nobody wins by doing less.
//! Alerts are compared by one hash a generator, over its alerts in their order; so an alert that is missing, doubled,
//! different or out of order is found, and millions need no memory.

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
    fn add(&mut self, generator: &str, rule: &str, raised: bool, value: f64, at: i64) {
        let mut hasher = DefaultHasher::new();
        let chain = self.chains.get(generator).copied().unwrap_or_default();
        (chain, rule, raised, value.to_bits(), at).hash(&mut hasher);
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

#[derive(Deserialize)]
struct Reading<'a> {
    #[serde(rename = "generatorID", borrow)]
    generator: &'a str,
    temperature: f64,
    fuel: f64,
}

#[derive(Deserialize)]
struct Alert<'a> {
    #[serde(rename = "generatorID", borrow)]
    generator: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    rule: std::borrow::Cow<'a, str>,
    state: &'a str,
    value: f64,
    at: i64,
}

/// What the readings call for.
///
/// # Errors
/// When the topic can't be read, holds what isn't a reading, or somebody stops it.
pub fn expected(source: &Source<'_>, stop: &AtomicBool) -> Result<Digest, BenchError> {
    let mut tail = Tail::new(source.connection, source.cluster, source.readings, StartAt::Beginning)?;
    let mut digest = Digest::default();
    // Of each rule whether it's active, and since when it is as it is.
    let mut phases: HashMap<String, [(bool, i64); 2]> = HashMap::new();
    while !tail.at_end() {
        go_on(stop)?;
        tail.read(LOOK, |record| {
            let reading: Reading<'_> =
                serde_json::from_slice(record.value.unwrap_or_default()).map_err(|error| {
                    BenchError::Wrong {
                        name: "the topic".to_owned(),
                        what: format!("it holds no reading: {error}"),
                    }
                })?;
            if !phases.contains_key(reading.generator) {
                phases.insert(reading.generator.to_owned(), [(false, i64::MIN); 2]);
            }
            let Some([low, hot]) = phases.get_mut(reading.generator) else { return Ok(()) };
            let at = record.timestamp.0;
            let mut judge = |phase: &mut (bool, i64), rule: &str, value: f64, raise: bool, clear: bool| {
                let (active, since) = *phase;
                // One that is older than the phase is late, and changes nothing.
                if at >= since && if active { clear } else { raise } {
                    *phase = (!active, at);
                    digest.add(reading.generator, rule, !active, value, at);
                }
            };
            let (fuel, heat) = (reading.fuel, reading.temperature);
            judge(low, "low_fuel", fuel, fuel < 200.0, fuel > 250.0);
            judge(hot, "over_temperature", heat, heat > 100.0, heat < 95.0);
            Ok::<(), BenchError>(())
        })?;
    }
    Ok(digest)
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
                let alert: Alert<'_> = serde_json::from_slice(record.value.unwrap_or_default())
                    .map_err(|error| wrong(format!("this is no alert: {error}")))?;
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
