//! An alert event: the record in the alerts topic for an alarm that is raised or cleared.

use std::sync::Arc;

use serde::Serialize;

use super::rules::{Condition, Rule};
use crate::engine::encode::{Encoder, OutgoingRecord};
use crate::handler::ReadingPosition;
use crate::handler::effect::Output;
use crate::types::{GeneratorId, Millis, Offset, PartitionId};

/// Whether an alarm was raised or cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertKind {
    /// The incident began.
    Raised,
    /// The incident is over.
    Cleared,
}

impl AlertKind {
    /// `raised` or `cleared`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AlertKind::Raised => "raised",
            AlertKind::Cleared => "cleared",
        }
    }
}

/// The cause of an event other than a value that crossed a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The generator was decommissioned (null value).
    Decommissioned,
    /// No reading for the time a deadman rule allows.
    Silent,
    /// So long without a reading that the generator is forgotten, as if it were decommissioned.
    #[serde(rename = "decommissioned")]
    Forgotten,
}

/// One alert event.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertEvent {
    /// The generator.
    pub generator: GeneratorId,
    /// The rule.
    pub rule: Arc<Rule>,
    /// Raised or cleared.
    pub kind: AlertKind,
    /// The deciding value; `None` where no reading decided.
    pub value: Option<f64>,
    /// Event time of the deciding reading.
    pub at: Millis,
    /// When the condition that led to it began to hold.
    pub since: Millis,
    /// Latitude and longitude of the deciding reading, in degrees.
    pub position: Option<(f64, f64)>,
    /// The partition of the deciding reading.
    pub partition: PartitionId,
    /// The offset of the deciding reading; of the last one seen, where silence decided.
    pub offset: Offset,
    /// Set where no reading decided.
    pub reason: Option<Reason>,
}

impl AlertEvent {
    /// An event at this reading, of a condition that began to hold at `since`; without a value, position and
    /// reason. Every event begins as one of these.
    #[must_use]
    pub fn new(
        generator: &GeneratorId,
        rule: Arc<Rule>,
        kind: AlertKind,
        source: ReadingPosition,
        since: Millis,
    ) -> AlertEvent {
        let ReadingPosition { partition, offset, at } = source;
        let (value, position, reason) = (None, None, None);
        let generator = generator.clone();
        AlertEvent { generator, rule, kind, value, at, since, position, partition, offset, reason }
    }

    /// The event's id. The same reading always leads to the same id, so that a downstream consumer can deduplicate.
    /// Silence has no reading of its own, hence the suffix after the last reading's event. If there is no last
    /// reading either, because the log was re-created, generator and time replace the offset.
    #[must_use]
    pub fn id(&self, topic: &str) -> String {
        let Self { partition, offset, rule, generator, at, .. } = self;
        let name = &rule.name;
        let what = match self.reason {
            None | Some(Reason::Decommissioned) => return format!("{topic}-{partition}-{offset}-{name}"),
            Some(Reason::Silent) => "silent",
            Some(Reason::Forgotten) => "forgotten",
        };
        if offset.0 >= 0 {
            format!("{topic}-{partition}-{offset}-{name}-{what}")
        } else {
            format!("{topic}-{partition}-{generator}-{at}-{name}-{what}")
        }
    }

    /// The event's value in the alerts topic, as in `docs/formats.md`. `topic` is the readings topic.
    #[must_use]
    pub fn to_json(&self, topic: &str) -> Vec<u8> {
        let (field, threshold) = self.rule.condition.told(self.kind);
        let json = AlertJson {
            id: &self.id(topic),
            generator: self.generator.as_str(),
            rule: &self.rule.name,
            state: self.kind,
            severity: &self.rule.severity,
            field,
            value: self.value,
            threshold,
            at: self.at,
            since: self.since,
            lat: self.position.map(|(lat, _)| lat),
            lon: self.position.map(|(_, lon)| lon),
            reason: self.reason,
            source: SourceJson { topic, partition: self.partition, offset: self.offset },
        };
        // Only strings and finite numbers: serializing them into memory can't fail.
        serde_json::to_vec(&json).unwrap_or_default()
    }
}

impl Output for Box<AlertEvent> {
    /// The JSON of an alert with its headers: about 600 with the overhead.
    fn bytes(&self) -> usize {
        408
    }

    fn record<'a>(&'a self, names: &'a Encoder) -> OutgoingRecord<'a> {
        names.alert(self)
    }
}

impl Condition {
    /// The field and the threshold that an event states.
    pub(super) fn told(&self, kind: AlertKind) -> (Option<&'static str>, f64) {
        match self {
            Condition::Threshold { field, limits, .. } => (
                Some(field.name()),
                match kind {
                    AlertKind::Raised => limits.raise_threshold(),
                    AlertKind::Cleared => limits.clear_threshold(),
                },
            ),
            // A deadman rule measures seconds of silence.
            Condition::Deadman { after } => (None, *after as f64 / 1000.0),
        }
    }
}

#[derive(Serialize)]
struct AlertJson<'a> {
    id: &'a str,
    #[serde(rename = "generatorID")]
    generator: &'a str,
    rule: &'a str,
    state: AlertKind,
    severity: &'a str,
    field: Option<&'static str>,
    value: Option<f64>,
    threshold: f64,
    at: Millis,
    since: Millis,
    lat: Option<f64>,
    lon: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    source: SourceJson<'a>,
}

#[derive(Serialize)]
struct SourceJson<'a> {
    topic: &'a str,
    partition: PartitionId,
    offset: Offset,
}

#[cfg(test)]
mod tests {
    use super::super::rules::Rules;
    use super::*;

    #[test]
    fn an_event_has_the_form_of_the_contract() {
        let event = AlertEvent {
            generator: GeneratorId::from("generator4"),
            rule: Rules::default().as_slice()[0].clone(),
            kind: AlertKind::Raised,
            value: Some(199.0),
            at: Millis(1_766_400_000_000),
            since: Millis(1_766_400_000_000),
            position: Some((40.65995, -111.99633)),
            partition: PartitionId(3),
            offset: Offset(1042),
            reason: None,
        };
        let expected = concat!(
            r#"{"id":"emergency_generators-3-1042-low_fuel","generatorID":"generator4","rule":"low_fuel","#,
            r#""state":"raised","severity":"warning","field":"fuel","value":199.0,"threshold":200.0,"#,
            r#""at":1766400000000,"since":1766400000000,"lat":40.65995,"lon":-111.99633,"#,
            r#""source":{"topic":"emergency_generators","partition":3,"offset":1042}}"#
        );
        assert_eq!(String::from_utf8(event.to_json("emergency_generators")).expect("utf-8"), expected);
    }

    #[test]
    fn who_is_forgotten_is_told_as_one_that_is_decommissioned_by_an_id_of_its_own() {
        let mut event = AlertEvent {
            generator: GeneratorId::from("g"),
            rule: Rules::default().as_slice()[0].clone(),
            kind: AlertKind::Cleared,
            value: None,
            at: Millis(9),
            since: Millis(5),
            position: None,
            partition: PartitionId(3),
            offset: Offset(7),
            reason: Some(Reason::Forgotten),
        };
        let json: serde_json::Value = serde_json::from_slice(&event.to_json("t")).expect("JSON");
        assert_eq!(
            (&json["reason"], &json["id"]),
            (&"decommissioned".into(), &"t-3-7-low_fuel-forgotten".into())
        );
        event.reason = Some(Reason::Decommissioned);
        assert_eq!(event.id("t"), "t-3-7-low_fuel");
    }
}
