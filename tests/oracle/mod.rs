//! What a log comes to by `docs/formats.md`: alerts, dead letters and alarm states, by a naive serial evaluation.
//!
//! It is written from that page and shares no code with the crate, down to the JSON: a mistake would have to be made
//! twice to go unseen. Test targets take it in by `#[path]`; it is no target of its own.

#![allow(dead_code, unused_imports)] // Not every target that takes it in needs all of it.

mod compare;
mod json;
pub mod log;
mod partitions;

use std::collections::BTreeMap;

use json::{Object, Shape};
use log::{Records, Stored};

pub use compare::{
    check_alerts, check_alerts_but_repeats, check_dead_letters, check_states, without_repeats,
};
pub use partitions::{Repeats, check_alert_records};

/// A rule, as the rules file has it.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub name: &'static str,
    pub field: &'static str,
    pub severity: &'static str,
    /// Whether low values are bad; else high ones are.
    pub low: bool,
    pub raise: f64,
    /// `None`: cleared where raise no longer holds.
    pub clear: Option<f64>,
    /// Milliseconds of event time.
    pub on_delay: i64,
    /// Milliseconds of event time.
    pub off_delay: i64,
    /// Milliseconds of event time; `None` is off.
    pub realarm: Option<i64>,
}

impl Rule {
    const fn new(name: &'static str, field: &'static str, severity: &'static str) -> Rule {
        Rule {
            name,
            field,
            severity,
            low: false,
            raise: 0.0,
            clear: None,
            on_delay: 0,
            off_delay: 0,
            realarm: None,
        }
    }

    /// The built-in rules.
    pub const BUILT_IN: [Rule; 2] = [
        Rule { low: true, raise: 200.0, clear: Some(250.0), ..Rule::new("low_fuel", "fuel", "warning") },
        Rule { raise: 100.0, clear: Some(95.0), ..Rule::new("over_temperature", "temperature", "critical") },
    ];

    /// A rule that raises above a value, at once, for good.
    pub const fn above(name: &'static str, field: &'static str, severity: &'static str, raise: f64) -> Rule {
        Rule { raise, ..Rule::new(name, field, severity) }
    }

    /// The rule as a table of the rules file.
    pub fn to_toml(self) -> String {
        let (raise, clear) =
            if self.low { ("raise_below", "clear_above") } else { ("raise_above", "clear_below") };
        let clear = self.clear.map_or(String::new(), |value| format!("{clear} = {value:?}\n"));
        let realarm = self.realarm.map_or("off".to_owned(), |every| format!("{every}ms"));
        format!(
            "[[rule]]\nname = \"{}\"\nfield = \"{}\"\nseverity = \"{}\"\n{raise} = {:?}\n{clear}on_delay = \"{}ms\"\n\
             off_delay = \"{}ms\"\nrealarm = \"{realarm}\"\n",
            self.name, self.field, self.severity, self.raise, self.on_delay, self.off_delay
        )
    }

    fn raises(&self, value: f64) -> bool {
        if self.low { value < self.raise } else { value > self.raise }
    }

    fn clears(&self, value: f64) -> bool {
        match self.clear {
            None => !self.raises(value),
            Some(clear) if self.low => value > clear,
            Some(clear) => value < clear,
        }
    }
}

/// An alert event, every field of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    pub id: String,
    pub generator: String,
    pub rule: String,
    pub state: String,
    pub severity: String,
    pub field: String,
    pub value: Option<f64>,
    pub threshold: f64,
    pub at: i64,
    pub since: i64,
    pub position: Option<(f64, f64)>,
    pub reason: Option<String>,
    pub source: (String, i32, i64),
}

/// The phase of each rule of a generator that ever changed, and since when.
pub type Standings = BTreeMap<String, (String, i64)>;

/// What a log comes to.
#[derive(Debug, Default)]
pub struct Expected {
    /// By generator, in log order.
    pub alerts: BTreeMap<String, Vec<Alert>>,
    /// By partition: offset and code, in log order.
    pub dead_letters: BTreeMap<i32, Vec<(i64, &'static str)>>,
    /// By generator, with its partition.
    pub states: BTreeMap<String, (i32, Standings)>,
    /// By generator: the offsets of its good readings, in log order.
    pub readings: BTreeMap<String, Vec<i64>>,
}

impl Expected {
    /// How many alerts.
    pub fn alert_count(&self) -> usize {
        self.alerts.values().map(Vec::len).sum()
    }

    /// How many dead letters.
    pub fn dead_letter_count(&self) -> usize {
        self.dead_letters.values().map(Vec::len).sum()
    }
}

/// Evaluates the readings of a topic by these rules, which stand in the order of the rules file.
pub fn evaluate(topic: &str, readings: &Records, rules: &[Rule]) -> Expected {
    let mut expected = Expected::default();
    for record in readings.iter() {
        match classify(record) {
            Err(code) => {
                expected.dead_letters.entry(record.partition).or_default().push((record.offset, code))
            }
            Ok(None) => decommission(topic, record, rules, &mut expected),
            Ok(Some(reading)) => apply(topic, record, &reading, rules, &mut expected),
        }
    }
    expected
}

fn apply(topic: &str, record: &Stored, reading: &Reading, rules: &[Rule], expected: &mut Expected) {
    let generator = record.key().to_owned();
    expected.readings.entry(generator.clone()).or_default().push(record.offset);
    let at = record.timestamp;
    for rule in rules {
        let Some(value) = reading.numbers.get(rule.field).copied() else { continue };
        let known = expected.states.get(&generator).and_then(|(_, rules)| rules.get(rule.name));
        let (phase, since) = known.map_or(("normal", i64::MIN), |(phase, since)| (phase.as_str(), *since));
        // A phase to enter, and an event to tell with the time that its condition began to hold.
        let held = at.saturating_sub(since);
        let (phase, told) = match phase {
            _ if at < since => continue,
            "normal" if rule.raises(value) && rule.on_delay > 0 => ("pending", None),
            "normal" if rule.raises(value) => ("raised", Some(("raised", at))),
            "pending" if !rule.raises(value) => ("normal", None),
            "pending" if held >= rule.on_delay => ("raised", Some(("raised", since))),
            "raised" if rule.clears(value) && rule.off_delay > 0 => ("clearing", None),
            "raised" if rule.clears(value) => ("normal", Some(("cleared", at))),
            "raised" if rule.realarm.is_some_and(|every| held >= every) => {
                ("raised", Some(("raised", since)))
            }
            "clearing" if !rule.clears(value) => ("raised", None),
            "clearing" if held >= rule.off_delay => ("normal", Some(("cleared", since))),
            _ => continue,
        };
        let (_, standings) =
            expected.states.entry(generator.clone()).or_insert((record.partition, Standings::new()));
        standings.insert(rule.name.to_owned(), (phase.to_owned(), at));
        let Some((state, since)) = told else { continue };
        let threshold = if state == "raised" { rule.raise } else { rule.clear.unwrap_or(rule.raise) };
        expected.alerts.entry(generator.clone()).or_default().push(Alert {
            id: format!("{topic}-{}-{}-{}", record.partition, record.offset, rule.name),
            generator: generator.clone(),
            rule: rule.name.to_owned(),
            state: state.to_owned(),
            severity: rule.severity.to_owned(),
            field: rule.field.to_owned(),
            value: Some(value),
            threshold,
            at,
            since,
            position: Some((reading.numbers["lat"], reading.numbers["lon"])),
            reason: None,
            source: (topic.to_owned(), record.partition, record.offset),
        });
    }
}

fn decommission(topic: &str, record: &Stored, rules: &[Rule], expected: &mut Expected) {
    let generator = record.key().to_owned();
    let Some((_, standings)) = expected.states.remove(&generator) else {
        return;
    };
    let active = |rule: &&Rule| {
        standings.get(rule.name).is_some_and(|(phase, _)| phase == "raised" || phase == "clearing")
    };
    for rule in rules.iter().filter(active) {
        expected.alerts.entry(generator.clone()).or_default().push(Alert {
            id: format!("{topic}-{}-{}-{}", record.partition, record.offset, rule.name),
            generator: generator.clone(),
            rule: rule.name.to_owned(),
            state: "cleared".to_owned(),
            severity: rule.severity.to_owned(),
            field: rule.field.to_owned(),
            value: None,
            threshold: rule.clear.unwrap_or(rule.raise),
            at: record.timestamp,
            since: record.timestamp,
            position: None,
            reason: Some("decommissioned".to_owned()),
            source: (topic.to_owned(), record.partition, record.offset),
        });
    }
}

/// The numbers of a good reading.
struct Reading {
    numbers: BTreeMap<&'static str, f64>,
}

const REQUIRED: [&str; 6] = ["generatorID", "lat", "lon", "temperature", "pressure", "fuel"];
const NUMBERS: [&str; 7] = ["lat", "lon", "temperature", "pressure", "fuel", "load", "power"];

/// A reading, a decommissioning (`None`), or the first code of the list there that applies.
fn classify(record: &Stored) -> Result<Option<Reading>, &'static str> {
    let Some(value) = &record.value else {
        return classify_tombstone(record).map(|()| None);
    };
    if value.len() > 1 << 20 {
        return Err("too_large");
    }
    let text = std::str::from_utf8(value).map_err(|_| "not_utf8")?;
    let object = match json::parse(text) {
        None => return Err("not_json"),
        Some(Shape::Object(object)) => object,
        Some(_) => return Err("not_object"),
    };
    let known = || REQUIRED.iter().chain(&NUMBERS[5..]);
    if known().any(|name| all(&object, name).count() > 1) {
        return Err("duplicate_field");
    }
    let one = |name| all(&object, name).next();
    if REQUIRED.iter().any(|name| matches!(one(name), None | Some(Shape::Null))) {
        return Err("missing_field");
    }
    let Some(Shape::String(id)) = one("generatorID") else {
        return Err("wrong_type");
    };
    let mut numbers = BTreeMap::new();
    for name in NUMBERS {
        match one(name) {
            Some(Shape::Number(number)) => drop(numbers.insert(name, *number)),
            None | Some(Shape::Null) => {}
            Some(_) => return Err("wrong_type"),
        }
    }
    let beyond = numbers["lat"].abs() > 90.0 || numbers["lon"].abs() > 180.0;
    if id.is_empty() || id.len() > 256 || beyond || numbers.values().any(|number| number.is_infinite()) {
        return Err("out_of_range");
    }
    match &record.key {
        None => Err("key_missing"),
        Some(key) if key != id => Err("key_mismatch"),
        Some(_) => Ok(Some(Reading { numbers })),
    }
}

/// A record without a value has only its key to be judged by.
fn classify_tombstone(record: &Stored) -> Result<(), &'static str> {
    let key = record.key.as_deref().ok_or("key_missing")?;
    std::str::from_utf8(key).map_err(|_| "not_utf8")?;
    if key.is_empty() || key.len() > 256 { Err("out_of_range") } else { Ok(()) }
}

fn all<'o>(object: &'o Object, name: &'static str) -> impl Iterator<Item = &'o Shape> {
    object.iter().filter(move |(key, _)| key == name.as_bytes()).map(|(_, shape)| shape)
}
