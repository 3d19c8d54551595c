//! What the contract says a log comes to: alerts, dead letters and alarm states, by a naive serial evaluation.
//!
//! It is written from the contract and shares no code with the crate, down to the JSON: a mistake would have to be made
//! twice to go unseen. It knows the two built-in rules, which have no delays.

mod compare;
mod json;

use std::collections::BTreeMap;

use json::{Object, Shape};

use crate::world::World;
use crate::world::records::{Records, Stored};

pub use compare::{check_alerts, check_alerts_but_repeats};

/// One of the built-in rules.
struct Rule {
    name: &'static str,
    field: &'static str,
    severity: &'static str,
    /// Whether low values are bad; else high ones are.
    low: bool,
    raise: f64,
    clear: f64,
}

const RULES: [Rule; 2] = [
    Rule { name: "low_fuel", field: "fuel", severity: "warning", low: true, raise: 200.0, clear: 250.0 },
    Rule {
        name: "over_temperature",
        field: "temperature",
        severity: "critical",
        low: false,
        raise: 100.0,
        clear: 95.0,
    },
];

impl Rule {
    fn raises(&self, value: f64) -> bool {
        if self.low { value < self.raise } else { value > self.raise }
    }

    fn clears(&self, value: f64) -> bool {
        if self.low { value > self.clear } else { value < self.clear }
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

/// Evaluates the readings of a topic.
pub fn evaluate(topic: &str, readings: &Records) -> Expected {
    let mut expected = Expected::default();
    for record in readings.iter() {
        match classify(record) {
            Err(code) => {
                expected.dead_letters.entry(record.partition).or_default().push((record.offset, code))
            }
            Ok(None) => decommission(topic, record, &mut expected),
            Ok(Some(reading)) => apply(topic, record, &reading, &mut expected),
        }
    }
    expected
}

/// Evaluates the readings of a world, and compares all that its workers have left with it: alerts, dead letters and states,
/// none missing, none twice, in order.
#[track_caller]
pub fn verify(world: &World) -> Expected {
    let readings = world.readings();
    let expected = evaluate(&world.topic, &readings);
    check_alerts(&expected, &world.alerts());
    compare::check_dead_letters(&expected, &world.topic, &readings, &world.read(&world.dlq_topic()));
    compare::check_states(&expected, &world.read(&world.state_topic()));
    expected
}

/// As [`verify`], where dead letters and alerts may be repeated.
#[track_caller]
pub fn verify_but_repeats(world: &World) -> Expected {
    let readings = world.readings();
    let expected = evaluate(&world.topic, &readings);
    check_alerts_but_repeats(&expected, &world.alerts());
    let letters = compare::without_repeats(&world.read(&world.dlq_topic()));
    compare::check_dead_letters(&expected, &world.topic, &readings, &letters);
    compare::check_states(&expected, &world.read(&world.state_topic()));
    expected
}

fn apply(topic: &str, record: &Stored, reading: &Reading, expected: &mut Expected) {
    let generator = record.key().to_owned();
    expected.readings.entry(generator.clone()).or_default().push(record.offset);
    let at = record.timestamp;
    for rule in &RULES {
        let value = reading.numbers[rule.field];
        let (phase, since) = match expected.states.get(&generator).and_then(|(_, rules)| rules.get(rule.name))
        {
            Some((phase, since)) => (phase.as_str(), *since),
            None => ("normal", i64::MIN),
        };
        if at < since {
            continue;
        }
        let (state, phase, threshold) = match phase {
            "normal" if rule.raises(value) => ("raised", "raised", rule.raise),
            "raised" if rule.clears(value) => ("cleared", "normal", rule.clear),
            _ => continue,
        };
        let (_, standings) =
            expected.states.entry(generator.clone()).or_insert((record.partition, Standings::new()));
        standings.insert(rule.name.to_owned(), (phase.to_owned(), at));
        let event = Alert {
            id: format!("{topic}-{}-{}-{}", record.partition, record.offset, rule.name),
            generator: generator.clone(),
            rule: rule.name.to_owned(),
            state: state.to_owned(),
            severity: rule.severity.to_owned(),
            field: rule.field.to_owned(),
            value: Some(value),
            threshold,
            at,
            since: at,
            position: Some((reading.numbers["lat"], reading.numbers["lon"])),
            reason: None,
            source: (topic.to_owned(), record.partition, record.offset),
        };
        expected.alerts.entry(generator.clone()).or_default().push(event);
    }
}

fn decommission(topic: &str, record: &Stored, expected: &mut Expected) {
    let generator = record.key().to_owned();
    let Some((_, standings)) = expected.states.remove(&generator) else {
        return;
    };
    for rule in
        RULES.iter().filter(|rule| standings.get(rule.name).is_some_and(|(phase, _)| phase == "raised"))
    {
        let event = Alert {
            id: format!("{topic}-{}-{}-{}", record.partition, record.offset, rule.name),
            generator: generator.clone(),
            rule: rule.name.to_owned(),
            state: "cleared".to_owned(),
            severity: rule.severity.to_owned(),
            field: rule.field.to_owned(),
            value: None,
            threshold: rule.clear,
            at: record.timestamp,
            since: record.timestamp,
            position: None,
            reason: Some("decommissioned".to_owned()),
            source: (topic.to_owned(), record.partition, record.offset),
        };
        expected.alerts.entry(generator.clone()).or_default().push(event);
    }
}

/// The numbers of a good reading.
struct Reading {
    numbers: BTreeMap<&'static str, f64>,
}

const REQUIRED: [&str; 6] = ["generatorID", "lat", "lon", "temperature", "pressure", "fuel"];
const NUMBERS: [&str; 7] = ["lat", "lon", "temperature", "pressure", "fuel", "load", "power"];

/// A reading, a decommissioning (`None`), or the first code of the contract's list that applies.
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
