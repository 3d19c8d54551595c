//! The expected results of a topic, by the naive evaluation of `genwatch_oracle`, and whether the workers' results
//! equal them.
//!
//! Test targets include it by `#[path]`; it is no target itself.

#![allow(dead_code, unused_imports)] // Not every target needs all of it.

mod compare;
pub mod log;
mod partitions;

use std::collections::BTreeMap;

use genwatch_oracle::{Expected as Called, Meaning, NaiveRule, TopicOracle};
use log::Records;

pub use compare::{
    check_alerts, check_alerts_but_repeats, check_dead_letters, check_states, without_repeats,
};
pub use partitions::{Repeats, check_alert_records};

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

/// The expected results of a log.
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

/// Evaluates the readings of a topic by these rules, given in the order of the rules file.
pub fn evaluate(topic: &str, readings: &Records, rules: &[NaiveRule]) -> Expected {
    let mut expected = Expected::default();
    let mut oracle = TopicOracle::new(topic, rules);
    for record in readings.iter() {
        let (partition, offset) = (record.partition, record.offset);
        let (meaning, all) = oracle.evaluate(record.topic_record());
        let generator = if let Meaning::Bad(_) = meaning { "" } else { record.key() };
        if let Meaning::Reading(_) = meaning {
            expected.readings.entry(generator.to_owned()).or_default().push(offset);
        }
        for called in all {
            match called {
                Called::DeadLetter(offset, code) => {
                    expected.dead_letters.entry(partition).or_default().push((offset, code));
                }
                Called::Alert(json) => {
                    expected.alerts.entry(generator.to_owned()).or_default().push(compare::alert(&json));
                }
                Called::State(..) => {}
            }
        }
    }
    for (partition, oracle) in oracle.partitions() {
        let states = oracle.states().into_iter();
        expected.states.extend(states.map(|(id, json)| (id, (partition, compare::standings(&json)))));
    }
    expected
}
