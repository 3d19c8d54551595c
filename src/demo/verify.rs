//! Evaluates the log serially, one reading after the other, and compares with the alerts that the replicas made.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use genwatch_core::alarm::detector::{Detector, Log, Source};
use genwatch_core::alarm::effect::Effect;
use genwatch_core::alarm::rules::Rules;
use genwatch_core::alarm::state::AlarmState;
use genwatch_core::reading::{self, Parsed};
use genwatch_core::types::{Epoch, GeneratorId, Mono, Now};
use serde::Deserialize;

use super::broker::EmbeddedBroker;
use super::screen;
use crate::kafka::admin::Cluster;
use crate::kafka::consumer::Record;
use crate::kafka::tail::{StartAt, Tail, TailError};

/// How long one look at a topic may wait.
const LOOK: Duration = Duration::from_millis(25);

/// Follows readings and alerts.
pub struct Verifier {
    readings: Tail,
    alerts: Tail,
    topic: String,
    detector: Detector,
    states: HashMap<String, AlarmState>,
    read: u64,
    /// Ids of the alerts that each generator calls for, and those that were made, in order.
    expected: BTreeMap<String, Vec<String>>,
    made: BTreeMap<String, Vec<String>>,
}

/// How the alerts compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Alert events that a serial evaluation gives.
    pub expected: usize,
    /// Alert events that the replicas made, repeats apart.
    pub made: usize,
    /// Generators whose alerts differ, in kind or in order.
    pub differing: usize,
    /// Events that were made a second time (same id).
    pub repeated: usize,
}

impl Verdict {
    /// Whether they are equal.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.differing == 0 && self.expected == self.made
    }
}

/// What the verifier needs of an alert event.
#[derive(Deserialize)]
struct Made {
    id: String,
    #[serde(rename = "generatorID")]
    generator: String,
}

impl Verifier {
    /// Starts to follow both topics from their beginning.
    ///
    /// # Errors
    /// When the topics can't be read.
    pub fn start(broker: &EmbeddedBroker, rules: &Rules) -> anyhow::Result<Verifier> {
        let cluster = Cluster::connect(broker.connection())?;
        let tail = |topic: &str| Tail::new(broker.connection(), &cluster, topic, StartAt::Beginning);
        Ok(Verifier {
            readings: tail(&broker.topics().readings)?,
            alerts: tail(&broker.topics().alerts)?,
            topic: broker.topics().readings.clone(),
            detector: Detector::new(rules.clone()),
            states: HashMap::new(),
            read: 0,
            expected: BTreeMap::new(),
            made: BTreeMap::new(),
        })
    }

    /// Reads what there is; gives the new alerts as lines.
    ///
    /// # Errors
    /// When a topic can't be read.
    pub fn follow(&mut self) -> Result<Vec<String>, TailError> {
        let Verifier { readings, alerts, topic, detector, states, read, expected, made } = self;
        readings.read(LOOK, |record| -> Result<(), TailError> {
            *read += 1;
            evaluate(record, topic, detector, states, expected);
            Ok(())
        })?;
        let mut lines = Vec::new();
        alerts.read(LOOK, |record| -> Result<(), TailError> {
            let Some(value) = record.value else { return Ok(()) };
            if let Ok(Made { id, generator }) = serde_json::from_slice(value) {
                made.entry(generator).or_default().push(id);
            }
            lines.push(screen::alert_line(value));
            Ok(())
        })?;
        Ok(lines)
    }

    /// Reads on until all `sent` readings are evaluated and the alerts they call for have come.
    ///
    /// # Errors
    /// When a topic can't be read.
    pub fn follow_to_end(&mut self, sent: u64, deadline: Instant) -> Result<Vec<String>, TailError> {
        let mut lines = Vec::new();
        let count = |ids: &BTreeMap<String, Vec<String>>| ids.values().map(Vec::len).sum::<usize>();
        while (self.read < sent || count(&self.made) < count(&self.expected)) && Instant::now() < deadline {
            lines.extend(self.follow()?);
        }
        Ok(lines)
    }

    /// How the alerts compare so far.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { expected: 0, made: 0, differing: 0, repeated: 0 };
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

fn evaluate(
    record: &Record<'_>,
    topic: &str,
    detector: &Detector,
    states: &mut HashMap<String, AlarmState>,
    expected: &mut BTreeMap<String, Vec<String>>,
) {
    let Ok(Parsed::Reading { generator, values }) = reading::parse(record.key, record.value) else {
        return;
    };
    let state =
        states.entry(generator.to_owned()).or_insert_with(|| AlarmState::new(detector.rules(), Mono(0)));
    let source = Source { partition: record.partition, offset: record.offset, at: record.timestamp };
    let mut effects = Vec::new();
    let mut late = vec![0; detector.rules().as_slice().len()];
    let id = GeneratorId::from(generator);
    let log = Log { topic: None, epoch: || Epoch::UNKNOWN };
    detector.reading(&id, state, &values, source, log, Now::default(), &mut effects, &mut late);
    for effect in effects {
        if let Effect::Alert(event) = effect {
            expected.entry(generator.to_owned()).or_default().push(event.id(topic));
        }
    }
}
