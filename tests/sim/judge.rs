//! The judge: compares what becomes visible with what the oracle says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use genwatch::alarm::event::Reason;
use genwatch::effect::Effect;
use serde_json::Value;

use crate::invariants::{Violation, ensure};
use crate::oracle::{Entry, Expected, Meaning, Oracle, Rule, TOPIC};

/// Judges one partition under exactly-once: each commit must hold precisely what its records call for.
#[derive(Debug)]
pub struct ExactlyOnce {
    partition: i32,
    oracle: Oracle,
    /// Entries of the log that the oracle has evaluated.
    evaluated: usize,
    committed: i64,
}

impl ExactlyOnce {
    /// Before the first commit.
    pub fn new(partition: i32, rules: &[Rule]) -> ExactlyOnce {
        ExactlyOnce { partition, oracle: Oracle::new(partition, rules), evaluated: 0, committed: 0 }
    }

    /// A commit has become visible.
    pub fn commit<'a>(
        &mut self,
        log: &[Entry],
        offset: i64,
        effects: impl Iterator<Item = &'a Effect>,
    ) -> Result<(), Violation> {
        let (partition, before) = (self.partition, self.committed);
        ensure!(offset >= before, Offsets, "partition {partition} went back from {before} to {offset}");
        self.committed = offset;
        let mut expected = VecDeque::new();
        for effect in effects {
            if is_silence(effect) {
                self.evaluate(log, offset.min(effect_offset(effect) + 1), &mut expected);
                ensure!(
                    expected.is_empty(),
                    Effects,
                    "partition {partition} lost {expected:?} before {effect:?}"
                );
                let told = self.oracle.silence(&alert_json(effect).unwrap_or_default());
                match told {
                    Ok(told) => expected.extend(told),
                    Err(reason) => ensure!(false, Effects, "partition {partition}: {reason}"),
                }
            }
            while expected.is_empty() && self.next_below(log, offset) {
                let next = log[self.evaluated].offset + 1;
                self.evaluate(log, next, &mut expected);
            }
            let Some(wanted) = expected.pop_front() else {
                let text = format!("{effect:?}");
                ensure!(
                    false,
                    Effects,
                    "partition {partition}, commit of {before}..{offset}: nothing calls for {text}"
                );
                break;
            };
            check(partition, &wanted, effect, log)?;
        }
        self.evaluate(log, offset, &mut expected);
        ensure!(
            expected.is_empty(),
            Effects,
            "partition {partition}, commit of {before}..{offset}: lost are {expected:?}"
        );
        Ok(())
    }

    /// The generators whose silence nobody has noticed.
    pub fn not_silent(&self) -> Vec<&str> {
        self.oracle.not_silent()
    }

    /// What the state topic must hold.
    pub fn states(&self) -> BTreeMap<String, Value> {
        self.oracle.states()
    }

    fn next_below(&self, log: &[Entry], offset: i64) -> bool {
        log.get(self.evaluated).is_some_and(|entry| entry.offset < offset)
    }

    fn evaluate(&mut self, log: &[Entry], below: i64, expected: &mut VecDeque<Expected>) {
        while self.next_below(log, below) {
            expected.extend(self.oracle.evaluate(&log[self.evaluated]));
            self.evaluated += 1;
        }
    }
}

/// Judges one partition under at-least-once: nothing may be lost, and a repeat must be the same as the first.
#[derive(Debug)]
pub struct AtLeastOnce {
    partition: i32,
    oracle: Oracle,
    /// What each entry of the log calls for (no states), and whether it has been seen.
    expected: Vec<Vec<(Expected, bool)>>,
    /// The entries with alerts that haven't all been seen, by generator.
    unseen: BTreeMap<String, BTreeSet<usize>>,
    committed: i64,
}

impl AtLeastOnce {
    /// Before the first record.
    pub fn new(partition: i32, rules: &[Rule]) -> AtLeastOnce {
        let oracle = Oracle::new(partition, rules);
        AtLeastOnce { partition, oracle, expected: Vec::new(), unseen: BTreeMap::new(), committed: 0 }
    }

    /// A record has been appended to the log.
    pub fn appended(&mut self, entry: &Entry) {
        let expected = self.oracle.evaluate(entry).into_iter();
        let expected: Vec<_> =
            expected.filter(|one| !matches!(one, Expected::State(..))).map(|one| (one, false)).collect();
        if !expected.is_empty() && !matches!(entry.meaning, Meaning::Bad(_)) {
            self.unseen.entry(entry.generator.clone()).or_default().insert(self.expected.len());
        }
        self.expected.push(expected);
    }

    /// An alert or a dead letter has become visible.
    pub fn visible(&mut self, log: &[Entry], effect: &Effect) -> Result<(), Violation> {
        let partition = self.partition;
        let offset = effect_offset(effect);
        let index = log.partition_point(|entry| entry.offset < offset);
        let found = self.expected.get_mut(index).into_iter().flatten();
        let mut found = found.filter(|(wanted, _)| check(partition, wanted, effect, log).is_ok());
        let Some((_, seen)) = found.next() else {
            let text = format!("{effect:?}");
            ensure!(false, Effects, "partition {partition}: nothing calls for {text}");
            return Ok(());
        };
        let first = !std::mem::replace(seen, true);
        if let (Effect::Alert(alert), true) = (effect, first) {
            let generator = alert.generator.as_str();
            let unseen = self.unseen.entry(generator.to_owned()).or_default();
            ensure!(
                unseen.first().is_none_or(|earliest| *earliest >= index),
                Effects,
                "partition {partition}: {effect:?} came before an earlier alert of its generator"
            );
            if self.expected[index].iter().all(|(_, seen)| *seen) {
                unseen.remove(&index);
            }
        }
        Ok(())
    }

    /// An offset has been committed.
    pub fn offset(&mut self, log: &[Entry], offset: i64) -> Result<(), Violation> {
        let (partition, before) = (self.partition, self.committed);
        ensure!(offset >= before, Offsets, "partition {partition} went back from {before} to {offset}");
        let from = log.partition_point(|entry| entry.offset < before);
        let to = log.partition_point(|entry| entry.offset < offset);
        for (lost, _) in self.expected[from..to].iter().flatten().filter(|(_, seen)| !seen) {
            ensure!(false, Effects, "partition {partition}, commit of {before}..{offset}: lost is {lost:?}");
        }
        self.committed = offset;
        Ok(())
    }

    /// What the state topic must hold when everything is committed.
    pub fn states(&self) -> BTreeMap<String, Value> {
        self.oracle.states()
    }
}

fn is_silence(effect: &Effect) -> bool {
    matches!(effect, Effect::Alert(alert) if alert.reason == Some(Reason::Silent))
}

fn effect_offset(effect: &Effect) -> i64 {
    match effect {
        Effect::Alert(alert) => alert.offset.0,
        Effect::DeadLetter(letter) => letter.offset.0,
        Effect::State(_) => -1,
    }
}

fn alert_json(effect: &Effect) -> Option<Value> {
    let Effect::Alert(alert) = effect else { return None };
    serde_json::from_slice(&alert.to_json(TOPIC)).ok()
}

/// Whether an effect is what was expected.
pub fn check(partition: i32, wanted: &Expected, effect: &Effect, log: &[Entry]) -> Result<(), Violation> {
    let same = match (wanted, effect) {
        (Expected::Alert(json), Effect::Alert(_)) => alert_json(effect).as_ref() == Some(json),
        (Expected::State(generator, json), Effect::State(change)) => {
            let parsed = change.json.as_ref().map(|bytes| serde_json::from_slice::<Value>(bytes).ok());
            change.generator.as_str() == generator
                && change.partition.0 == partition
                && parsed == json.clone().map(Some)
        }
        (Expected::DeadLetter(offset, code), Effect::DeadLetter(letter)) => {
            let index = log.partition_point(|entry| entry.offset < *offset);
            log.get(index).is_some_and(|entry| {
                letter.offset.0 == *offset
                    && letter.partition.0 == partition
                    && letter.error.code.as_str() == *code
                    && letter.timestamp.0 == entry.at
                    && (&letter.key, &letter.value) == (&entry.key, &entry.value)
            })
        }
        _ => false,
    };
    ensure!(same, Effects, "partition {partition}: wanted {wanted:?}, there is {effect:?}");
    Ok(())
}
