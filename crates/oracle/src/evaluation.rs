//! The serial evaluation: a partition's records, one after another.
//!
//! It has its own rules, phases and records, and shares nothing with the code that it judges. Its results, in log
//! order, are what workers must make visible, whatever happens to them.
//!
//! Silence (a deadman rule) is measured by a worker's clock, which the log doesn't hold. So the oracle doesn't
//! predict it: it takes what was raised, judges whether that is possible, and predicts everything that follows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::meaning::{Meaning, Numbers};
use crate::rule::{Kind, Limit, NaiveRule};

/// A record of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogRecord<'a> {
    /// Its offset.
    pub offset: i64,
    /// The leader epoch under which it was written; -1 if unknown.
    pub epoch: i32,
    /// Its event time, in milliseconds.
    pub at: i64,
    /// Its key: the generator; unused if the record is bad.
    pub generator: &'a str,
    /// Its meaning.
    pub meaning: &'a Meaning,
}

/// What must become visible for a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// An alert, as its JSON.
    Alert(Value),
    /// A dead letter: offset and code.
    DeadLetter(i64, &'static str),
    /// The new alarm state of a generator, as its JSON.
    State(String, Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Normal,
    Pending,
    Raised,
    Clearing,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Normal => "normal",
            Phase::Pending => "pending",
            Phase::Raised => "raised",
            Phase::Clearing => "clearing",
        }
    }

    fn is_active(self) -> bool {
        self == Phase::Raised || self == Phase::Clearing
    }
}

#[derive(Clone, Debug)]
struct Generator {
    /// The phase and when it was entered; `None` before the first change.
    rules: Vec<(Phase, Option<i64>)>,
    /// The offset of the last record that changed something.
    changed_at: i64,
    /// Its leader epoch.
    epoch: i32,
}

/// The serial evaluation of one partition.
#[derive(Clone, Debug)]
pub struct Oracle {
    topic: String,
    topic_id: Option<String>,
    partition: i32,
    rules: Vec<NaiveRule>,
    generators: BTreeMap<String, Generator>,
}

impl Oracle {
    /// The evaluation before the first record of a partition of this topic. The rules are in the order of the file.
    /// `topic_id` is the id that states name.
    #[must_use]
    pub fn new(topic: &str, topic_id: Option<String>, partition: i32, rules: &[NaiveRule]) -> Oracle {
        let (topic, rules) = (topic.to_owned(), rules.to_vec());
        Oracle { topic, topic_id, partition, rules, generators: BTreeMap::new() }
    }

    /// Sets a generator's state before its first record, from the JSON of a stored state.
    pub fn keep(&mut self, state: &Value) {
        let phase = |name: &Value| {
            let named = |phase: &Phase| *name == phase.name();
            [Phase::Normal, Phase::Pending, Phase::Raised, Phase::Clearing].into_iter().find(named)
        };
        let standing = |rule: &NaiveRule| {
            let stored = &state["rules"][&rule.name];
            (phase(&stored["phase"]).unwrap_or(Phase::Normal), stored["since"].as_i64())
        };
        let rules = self.rules.iter().map(standing).collect();
        let id = state["generatorID"].as_str().unwrap_or_default().to_owned();
        let changed_at = state["offset"].as_i64().unwrap_or(-1);
        self.generators.insert(id, Generator { rules, changed_at, epoch: -1 });
    }

    /// Returns what the next record must make visible, in order.
    pub fn evaluate(&mut self, record: LogRecord<'_>) -> Vec<Expected> {
        match record.meaning {
            Meaning::Bad(code) => vec![Expected::DeadLetter(record.offset, code)],
            Meaning::Decommissioned => self.decommission(record),
            Meaning::Reading(numbers) => self.reading(record, numbers),
        }
    }

    /// The state of every generator, as in the state topic; absent if nothing ever changed.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, Value> {
        self.generators.keys().filter_map(|id| Some((id.clone(), self.state(id)?))).collect()
    }

    /// The known generators whose deadman alarm isn't active.
    #[must_use]
    pub fn not_silent(&self) -> Vec<&str> {
        let Some(rule) = self.rules.iter().position(|rule| matches!(rule.kind, Kind::Deadman(_))) else {
            return Vec::new();
        };
        let lively = self.generators.iter().filter(|(_, generator)| !generator.rules[rule].0.is_active());
        lively.map(|(id, _)| id.as_str()).collect()
    }

    /// A worker has raised silence by `alert`, which names a record of this `epoch`. Returns what must become visible
    /// for it, or why the alert is wrong.
    pub fn silence(&mut self, alert: &Value, epoch: i32) -> Result<Vec<Expected>, String> {
        let id = alert["generatorID"].as_str().unwrap_or_default().to_owned();
        let known = self.rules.iter().position(|rule| alert["rule"] == rule.name.as_str());
        let Some(index) = known else { return Err(format!("no rule calls for {alert}")) };
        let Kind::Deadman(after) = self.rules[index].kind else {
            return Err(format!("not a deadman rule's: {alert}"));
        };
        let Some(generator) = self.generators.get_mut(&id) else {
            return Err(format!("nothing is known of that generator: {alert}"));
        };
        if generator.rules[index].0.is_active() {
            return Err(format!("that silence was raised before: {alert}"));
        }
        let (at, since) = (alert["at"].as_i64().unwrap_or(0), alert["since"].as_i64().unwrap_or(0));
        if at - since < after {
            return Err(format!("too early: {alert}"));
        }
        generator.rules[index] = (Phase::Raised, Some(at));
        let rule = &self.rules[index];
        let offset = alert["source"]["offset"].as_i64().unwrap_or(-1);
        // The state covers the last reading before the silence.
        if offset > generator.changed_at || epoch > generator.epoch {
            (generator.changed_at, generator.epoch) = (offset, epoch);
        }
        let mut expected = alert_json((&self.topic, self.partition), rule, "raised", offset, &id);
        // If no reading of this log was seen, the generator and the time replace the offset.
        let what = if offset < 0 { format!("{id}-{at}") } else { offset.to_string() };
        expected["id"] = json!(format!("{}-{}-{what}-{}-silent", self.topic, self.partition, rule.name));
        expected["value"] = json!((at - since) as f64 / 1000.0);
        expected["threshold"] = json!(after as f64 / 1000.0);
        expected["at"] = json!(at);
        expected["since"] = json!(since);
        expected["reason"] = json!("silent");
        Ok(vec![Expected::Alert(expected), Expected::State(id.clone(), self.state(&id).unwrap_or_default())])
    }

    /// How many generators are known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.generators.len()
    }

    /// A worker has forgotten a generator for its silence; `alert` is the first that it clears for that. Returns the
    /// same as [`Oracle::silence`].
    pub fn forget(&mut self, alert: &Value) -> Result<Vec<Expected>, String> {
        let id = alert["generatorID"].as_str().unwrap_or_default().to_owned();
        let Some(generator) = self.generators.get(&id) else {
            return Err(format!("nothing is known of that generator: {alert}"));
        };
        let mut standings = self.rules.iter().zip(&generator.rules);
        if !standings.any(|(rule, (phase, _))| matches!(rule.kind, Kind::Deadman(_)) && phase.is_active()) {
            return Err(format!("its silence wasn't raised before: {alert}"));
        }
        let (offset, epoch) = (generator.changed_at, generator.epoch);
        let mut expected = self.clear(&id, offset, epoch, &alert["at"]);
        for one in &mut expected {
            let Expected::Alert(cleared) = one else { continue };
            let what = if offset < 0 { format!("{id}-{}", alert["at"]) } else { offset.to_string() };
            let rule = cleared["rule"].as_str().unwrap_or_default();
            cleared["id"] = json!(format!("{}-{}-{what}-{rule}-forgotten", self.topic, self.partition));
            cleared["since"] = alert["since"].clone();
        }
        Ok(expected)
    }

    fn reading(&mut self, record: LogRecord<'_>, numbers: &Numbers) -> Vec<Expected> {
        let id = record.generator;
        let watches_silence = self.rules.iter().any(|rule| matches!(rule.kind, Kind::Deadman(_)));
        let mut fresh;
        let (known, generator) = match self.generators.get_mut(id) {
            Some(generator) => (true, generator),
            None => {
                let rules = vec![(Phase::Normal, None); self.rules.len()];
                fresh = Generator { rules, changed_at: -1, epoch: -1 };
                (false, &mut fresh)
            }
        };
        let mut expected = Vec::new();
        // A deadman rule must know a generator from its first reading on.
        let mut changed = watches_silence && !known;
        for (rule, standing) in self.rules.iter().zip(&mut generator.rules) {
            let told = match &rule.kind {
                Kind::Deadman(after) if standing.0.is_active() => {
                    *standing = (Phase::Normal, Some(record.at));
                    Some(("cleared", record.at, None, *after as f64 / 1000.0))
                }
                // The state says when the generator last reported, to within a quarter of the allowed silence, but
                // at least ten seconds.
                Kind::Deadman(after) => {
                    let again =
                        standing.1.map_or(i64::MIN, |since: i64| since.max(-1) + (after / 4).max(10_000));
                    if record.at < 0 || record.at < again {
                        continue;
                    }
                    *standing = (Phase::Normal, Some(record.at));
                    None
                }
                Kind::Limit(limit) => {
                    let Some(value) = numbers.field(limit.field) else { continue };
                    let before = *standing;
                    let told = step(limit, standing, value, record.at);
                    if *standing == before {
                        continue;
                    }
                    told.map(|(state, since)| {
                        let clear = limit.clear.unwrap_or(limit.raise);
                        (state, since, Some(value), if state == "raised" { limit.raise } else { clear })
                    })
                }
            };
            changed = true;
            if let Some((state, since, value, threshold)) = told {
                let mut alert = alert_json((&self.topic, self.partition), rule, state, record.offset, id);
                alert["value"] = json!(value);
                alert["threshold"] = json!(threshold);
                alert["at"] = json!(record.at);
                alert["since"] = json!(since);
                alert["lat"] = json!(numbers.lat);
                alert["lon"] = json!(numbers.lon);
                expected.push(Expected::Alert(alert));
            }
        }
        if changed {
            (generator.changed_at, generator.epoch) = (record.offset, record.epoch);
            if !known {
                let generator = generator.clone();
                self.generators.insert(id.to_owned(), generator);
            }
            expected.push(Expected::State(id.to_owned(), self.state(id).unwrap_or_default()));
        }
        expected
    }

    fn decommission(&mut self, record: LogRecord<'_>) -> Vec<Expected> {
        self.clear(record.generator, record.offset, record.epoch, &json!(record.at))
    }

    /// The generator is decommissioned.
    fn clear(&mut self, id: &str, offset: i64, epoch: i32, at: &Value) -> Vec<Expected> {
        let Some(generator) = self.generators.remove(id) else {
            return Vec::new();
        };
        let mut expected = Vec::new();
        for (rule, (phase, _)) in self.rules.iter().zip(&generator.rules) {
            if phase.is_active() {
                let mut alert = alert_json((&self.topic, self.partition), rule, "cleared", offset, id);
                alert["threshold"] = clear_threshold(rule);
                alert["at"] = at.clone();
                alert["since"] = at.clone();
                alert["reason"] = json!("decommissioned");
                expected.push(Expected::Alert(alert));
            }
        }
        // Kept until the committed offset has passed it, then deleted.
        let mut decommissioned = self.state_json(id, offset, epoch, json!({}));
        decommissioned["decommissioned"] = json!(true);
        expected.push(Expected::State(id.to_owned(), decommissioned));
        expected
    }

    fn state(&self, id: &str) -> Option<Value> {
        let generator = self.generators.get(id)?;
        let touched = self.rules.iter().zip(&generator.rules).filter_map(|(rule, (phase, since))| {
            let mut standing = json!({"phase": phase.name(), "since": (*since)?});
            if phase.is_active() {
                // The rule as its cleared alert states it.
                standing["severity"] = json!(rule.severity);
                standing["threshold"] = clear_threshold(rule);
                if let Kind::Limit(limit) = &rule.kind {
                    standing["field"] = json!(limit.field);
                }
            }
            Some((rule.name.clone(), standing))
        });
        let rules: serde_json::Map<String, Value> = touched.collect();
        Some(self.state_json(id, generator.changed_at, generator.epoch, rules.into()))
    }

    fn state_json(&self, id: &str, offset: i64, epoch: i32, rules: Value) -> Value {
        let mut state = json!({"generatorID": id, "offset": offset, "rules": rules});
        if let Some(topic) = &self.topic_id {
            state["topic"] = json!(topic);
        }
        if epoch >= 0 {
            state["epoch"] = json!(epoch);
        }
        state
    }
}

/// Evaluates one reading against one rule: moves the phase; returns the event, and when its cause began.
fn step(
    limit: &Limit,
    standing: &mut (Phase, Option<i64>),
    value: f64,
    at: i64,
) -> Option<(&'static str, i64)> {
    let (phase, since) = *standing;
    if since.is_some_and(|since| at < since) {
        return None;
    }
    let held = since.map_or(i64::MAX, |since| at - since);
    let began = since.unwrap_or(at);
    let (next, told) = match phase {
        Phase::Normal | Phase::Pending if !limit.raises(value) => (Phase::Normal, None),
        Phase::Normal if limit.on > 0 => (Phase::Pending, None),
        Phase::Normal => (Phase::Raised, Some(("raised", at))),
        Phase::Pending if held >= limit.on => (Phase::Raised, Some(("raised", began))),
        Phase::Pending => (Phase::Pending, None),
        Phase::Raised if limit.clears(value) && limit.off > 0 => (Phase::Clearing, None),
        Phase::Raised if limit.clears(value) => (Phase::Normal, Some(("cleared", at))),
        Phase::Raised => match limit.realarm {
            Some(every) if held >= every => {
                *standing = (Phase::Raised, Some(at));
                return Some(("raised", began));
            }
            _ => (Phase::Raised, None),
        },
        Phase::Clearing if !limit.clears(value) => (Phase::Raised, None),
        Phase::Clearing if held >= limit.off => (Phase::Normal, Some(("cleared", began))),
        Phase::Clearing => (Phase::Clearing, None),
    };
    if next != phase {
        *standing = (next, Some(at));
    }
    told
}

/// The threshold of a cleared alert.
fn clear_threshold(rule: &NaiveRule) -> Value {
    match &rule.kind {
        Kind::Limit(limit) => json!(limit.clear.unwrap_or(limit.raise)),
        Kind::Deadman(after) => json!(*after as f64 / 1000.0),
    }
}

/// The members that all alerts of a record share.
fn alert_json(
    (topic, partition): (&str, i32),
    rule: &NaiveRule,
    state: &str,
    offset: i64,
    generator: &str,
) -> Value {
    let field = match &rule.kind {
        Kind::Limit(limit) => json!(limit.field),
        Kind::Deadman(_) => Value::Null,
    };
    json!({
        "id": format!("{topic}-{partition}-{offset}-{}", rule.name),
        "generatorID": generator,
        "rule": rule.name,
        "state": state,
        "severity": rule.severity,
        "field": field,
        "value": null,
        "lat": null,
        "lon": null,
        "source": {"topic": topic, "partition": partition, "offset": offset},
    })
}
