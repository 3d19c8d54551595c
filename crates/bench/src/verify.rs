//! What the alerts of a topic must be, and whether they are.
//!
//! The two default rules, evaluated serially and naively by `genwatch_oracle`, without any code of the worker's: no
//! contender wins by doing less. Alerts are compared by one hash per generator, over its alerts in their order: this
//! finds alerts that are missing, doubled, different or out of order, and millions need no memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use genwatch_kafka::admin::Cluster;
use genwatch_kafka::config::Connection;
use genwatch_kafka::consumer::Record;
use genwatch_kafka::topic_reader::{StartAt, TopicReader};
use genwatch_oracle::{Expected, NaiveRule, TopicOracle, TopicRecord};
use serde::Deserialize;

use super::{BenchError, go_on};

const LOOK: Duration = Duration::from_millis(50);

/// Where readings and alerts are.
#[derive(Clone, Copy)]
pub struct VerifiedTopics<'a> {
    /// How the cluster is reached.
    pub connection: &'a Connection,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The topic of the readings.
    pub readings: &'a str,
    /// The topic of the alerts.
    pub alerts: &'a str,
}

/// The alerts of a topic, as far as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    chains: HashMap<String, u64>,
    /// Number of alerts.
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

    /// Returns how many generators have different alerts in `other`.
    fn differing(&self, other: &Digest) -> usize {
        let here =
            self.chains.iter().filter(|(generator, chain)| other.chains.get(*generator) != Some(chain));
        let only_there = other.chains.keys().filter(|generator| !self.chains.contains_key(*generator));
        here.count() + only_there.count()
    }
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

/// Adds the alerts that the next reading calls for.
fn evaluate(record: &Record<'_>, oracle: &mut TopicOracle, digest: &mut Digest) {
    let (partition, offset, at) = (record.partition.0, record.offset.0, record.timestamp.0);
    let record = TopicRecord { partition, offset, at, key: record.key, value: record.value };
    for expected in oracle.evaluate(record).1 {
        let Expected::Alert(alert) = expected else { continue };
        let (rule, state) = (alert["rule"].as_str(), alert["state"].as_str());
        let raised = state == Some("raised");
        digest.add(record.generator(), rule.unwrap_or_default(), raised, alert["value"].as_f64(), at);
    }
}

/// Returns the alerts that the readings call for.
///
/// # Errors
/// When the topic can't be read, or when stopped.
pub fn expected(source: &VerifiedTopics<'_>, stop: &AtomicBool) -> Result<Digest, BenchError> {
    let mut tail = TopicReader::new(source.connection, source.cluster, source.readings, StartAt::Beginning)?;
    let mut oracle = TopicOracle::new(source.readings, &NaiveRule::built_in());
    let mut digest = Digest::default();
    while !tail.at_end() {
        go_on(stop)?;
        tail.read(LOOK, |record| {
            evaluate(record, &mut oracle, &mut digest);
            Ok::<(), BenchError>(())
        })?;
    }
    Ok(digest)
}

/// Reads the alerts that a program adds to the topic.
pub struct AlertsReader<'a> {
    tail: TopicReader,
    source: VerifiedTopics<'a>,
}

impl<'a> AlertsReader<'a> {
    /// Returns a reader of the alerts added from `from` on.
    ///
    /// # Errors
    /// When the topic can't be read.
    pub fn new(source: VerifiedTopics<'a>, from: StartAt) -> Result<AlertsReader<'a>, BenchError> {
        let tail = TopicReader::new(source.connection, source.cluster, source.alerts, from)?;
        Ok(AlertsReader { tail, source })
    }

    /// Checks that the alerts added so far, visible to a reader of committed records, are the expected ones.
    ///
    /// # Errors
    /// When they aren't, the topic can't be read, or when stopped.
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
            "{} alerts instead of {}; those of {} generators are not what the readings call for",
            digest.alerts,
            expected.alerts,
            digest.differing(expected)
        )))
    }
}
