//! Evaluates the log serially, one reading after the other, and compares the result with the workers' alerts and with
//! the counts of the downsampler's aggregates.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use genwatch_core::alarm::machine::{Delays, Limits};
use genwatch_core::alarm::rules::{Condition, Rule, Rules};
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::clock::millis;
use genwatch_kafka::consumer::Record;
use genwatch_kafka::topic_reader::{StartAt, TopicReader, TopicReaderError};
use genwatch_oracle::{Expected, Kind, Limit, NaiveRule, TopicOracle, TopicRecord};
use serde::Deserialize;

use super::broker::EmbeddedBroker;
use super::screen;
use super::windows::{WindowComparison, WindowCounts};
use super::{GRACE, WINDOW};

/// How long one read of a topic may wait.
const LOOK: Duration = Duration::from_millis(25);

/// Follows readings, alerts and aggregates.
pub struct Verifier {
    readings: TopicReader,
    alerts: TopicReader,
    aggregates: TopicReader,
    oracle: TopicOracle,
    read: u64,
    /// Ids of each generator's expected alerts, and of the workers' alerts, in order.
    expected: BTreeMap<String, Vec<String>>,
    made: BTreeMap<String, Vec<String>>,
    windows: WindowCounts,
}

/// The result of comparing alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Alert events of the serial evaluation.
    pub expected: usize,
    /// Alert events of the workers, without repeats.
    pub made: usize,
    /// Generators whose alerts differ, in kind or in order.
    pub differing: usize,
    /// Repeated events (same id).
    pub repeated: usize,
}

impl Comparison {
    /// Whether both are equal.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.differing == 0 && self.expected == self.made
    }
}

/// The part of an alert event that the verifier needs.
#[derive(Deserialize)]
struct Made {
    id: String,
    #[serde(rename = "generatorID")]
    generator: String,
}

impl Verifier {
    /// Starts following the topics from their beginning.
    ///
    /// # Errors
    /// When the topics can't be read.
    pub fn start(broker: &EmbeddedBroker, rules: &Rules) -> anyhow::Result<Verifier> {
        let cluster = Cluster::connect(broker.connection())?;
        let tail = |topic: &str| TopicReader::new(broker.connection(), &cluster, topic, StartAt::Beginning);
        Ok(Verifier {
            readings: tail(&broker.topics().readings)?,
            alerts: tail(&broker.topics().alerts)?,
            aggregates: tail(&broker.topics().aggregates)?,
            oracle: TopicOracle::new(&broker.topics().readings, &naive(rules)),
            read: 0,
            expected: BTreeMap::new(),
            made: BTreeMap::new(),
            windows: WindowCounts::new(millis(WINDOW), millis(GRACE)),
        })
    }

    /// Reads all available records; returns the new alerts as lines.
    ///
    /// # Errors
    /// When a topic can't be read.
    pub fn follow(&mut self) -> Result<Vec<String>, TopicReaderError> {
        let Verifier { readings, alerts, aggregates, oracle, read, expected, made, windows } = self;
        readings.read(LOOK, |record| -> Result<(), TopicReaderError> {
            *read += 1;
            evaluate(record, oracle, expected);
            if let Some(generator) = record.key.and_then(|key| std::str::from_utf8(key).ok()) {
                windows.reading(record.partition.0, generator, record.timestamp.0);
            }
            Ok(())
        })?;
        let mut lines = Vec::new();
        alerts.read(LOOK, |record| -> Result<(), TopicReaderError> {
            let Some(value) = record.value else { return Ok(()) };
            if let Ok(Made { id, generator }) = serde_json::from_slice(value) {
                made.entry(generator).or_default().push(id);
            }
            lines.push(screen::alert_line(value));
            Ok(())
        })?;
        aggregates.read(LOOK, |record| -> Result<(), TopicReaderError> {
            windows.aggregate(record.value.unwrap_or_default());
            Ok(())
        })?;
        windows.compare_closed();
        Ok(lines)
    }

    /// Reads on until all `sent` readings are evaluated, and the alerts and aggregates that they call for have arrived.
    ///
    /// # Errors
    /// When a topic can't be read.
    pub fn follow_to_end(&mut self, sent: u64, deadline: Instant) -> Result<Vec<String>, TopicReaderError> {
        let mut lines = Vec::new();
        let count = |ids: &BTreeMap<String, Vec<String>>| ids.values().map(Vec::len).sum::<usize>();
        while (self.read < sent || count(&self.made) < count(&self.expected) || self.windows.waiting() > 0)
            && Instant::now() < deadline
        {
            lines.extend(self.follow()?);
        }
        Ok(lines)
    }

    /// Compares the aggregates; the downsampler has ended, and has dropped so many late readings.
    ///
    /// # Errors
    /// When a topic can't be read.
    pub fn windows(mut self, late: u64) -> Result<WindowComparison, TopicReaderError> {
        self.follow()?;
        Ok(self.windows.verdict(late))
    }

    /// Compares the alerts so far.
    #[must_use]
    pub fn verdict(&self) -> Comparison {
        let mut verdict = Comparison { expected: 0, made: 0, differing: 0, repeated: 0 };
        let none = Vec::new();
        for generator in
            self.expected.keys().chain(self.made.keys().filter(|id| !self.expected.contains_key(*id)))
        {
            let expected = self.expected.get(generator).unwrap_or(&none);
            let mut made: Vec<&String> = Vec::new();
            for id in self.made.get(generator).unwrap_or(&none) {
                if made.contains(&id) {
                    verdict.repeated += 1;
                } else {
                    made.push(id);
                }
            }
            verdict.expected += expected.len();
            verdict.made += made.len();
            verdict.differing += usize::from(!made.iter().copied().eq(expected.iter()));
        }
        verdict
    }
}

/// Adds the alerts that the next reading calls for.
fn evaluate(record: &Record<'_>, oracle: &mut TopicOracle, expected: &mut BTreeMap<String, Vec<String>>) {
    let (partition, offset, at) = (record.partition.0, record.offset.0, record.timestamp.0);
    let record = TopicRecord { partition, offset, at, key: record.key, value: record.value };
    for called in oracle.evaluate(record).1 {
        if let Expected::Alert(alert) = called {
            let id = alert["id"].as_str().unwrap_or_default().to_owned();
            expected.entry(record.generator().to_owned()).or_default().push(id);
        }
    }
}

/// Converts the rules for the oracle.
fn naive(rules: &Rules) -> Vec<NaiveRule> {
    let naive = |rule: &std::sync::Arc<Rule>| {
        let kind = match &rule.condition {
            Condition::Deadman { after } => Kind::Deadman(*after),
            Condition::Threshold { field, limits, delays } => {
                let (below, raise, clear) = match *limits {
                    Limits::Low { raise, clear } => (true, raise, clear),
                    Limits::High { raise, clear } => (false, raise, clear),
                };
                let Delays { on, off, realarm } = *delays;
                Kind::Limit(Limit { field: field.name(), below, raise, clear, on, off, realarm })
            }
        };
        NaiveRule { name: rule.name.clone(), severity: rule.severity.clone(), kind }
    };
    rules.as_slice().iter().map(naive).collect()
}
