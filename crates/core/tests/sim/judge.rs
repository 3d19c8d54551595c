//! The judge compares what becomes visible with the oracle's results.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use genwatch_core::alarm::event::Reason;
use genwatch_core::handler::effect::{DeadLetter, Effect};
use genwatch_oracle::{Expected, Meaning, NaiveRule, Oracle};
use serde_json::Value;

use crate::invariants::{Invariant, Violation, ensure};
use crate::records::{Entry, TOPIC};

/// Judges one partition under exactly-once.
///
/// Generators are judged separately: what is visible of each is a prefix of its serial sequence, its states name the
/// offsets that the oracle names, and everything below the committed offset is there. Effects above the offset may be
/// there already: they become visible as soon as their own generator's reading is finished.
#[derive(Debug)]
pub struct ExactlyOnce {
    partition: i32,
    oracle: Oracle,
    appended: usize,
    /// The entries that the oracle hasn't evaluated yet, by generator.
    ahead: BTreeMap<String, VecDeque<usize>>,
    /// The bad records whose dead letters aren't visible yet.
    bad: VecDeque<usize>,
    /// The offsets of decommissioned states, by generator.
    decommissioned: BTreeMap<String, i64>,
    committed: i64,
    /// Whether states may be written again unchanged.
    stored_again: bool,
    /// The invariant that a missing effect breaks.
    missing: Invariant,
}

impl ExactlyOnce {
    /// The judge before the first record of this topic.
    pub fn new(topic: Option<String>, partition: i32, rules: &[NaiveRule]) -> ExactlyOnce {
        ExactlyOnce {
            partition,
            oracle: Oracle::new(TOPIC, topic, partition, rules),
            appended: 0,
            ahead: BTreeMap::new(),
            bad: VecDeque::new(),
            decommissioned: BTreeMap::new(),
            committed: 0,
            stored_again: false,
            missing: Invariant::Effects,
        }
    }

    /// Another log preceded this one.
    pub fn after_another_log(mut self) -> ExactlyOnce {
        self.missing = Invariant::OtherLog;
        self
    }

    /// All states are requested again.
    pub fn stored_again(&mut self) {
        self.stored_again = true;
    }

    /// A state of the previous log was kept, as this JSON.
    pub fn kept(&mut self, state: &Value) {
        self.oracle.keep(state);
    }

    /// The log has lost its end; `entries` remain. What was visible of the others stays visible.
    pub fn truncated(&mut self, entries: usize) {
        self.missing = Invariant::OtherLog;
        self.appended = entries;
        self.bad.retain(|index| *index < entries);
        for ahead in self.ahead.values_mut() {
            ahead.retain(|index| *index < entries);
        }
    }

    /// A record has been appended to the log.
    pub fn appended(&mut self, entry: &Entry) {
        match entry.meaning {
            Meaning::Bad(_) => self.bad.push_back(self.appended),
            Meaning::Reading(_) | Meaning::Decommissioned => {
                self.ahead.entry(entry.generator.clone()).or_default().push_back(self.appended);
            }
        }
        self.appended += 1;
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
        let here = format!("partition {partition}, commit of {before}..{offset}");
        // The rest of the current group: groups aren't split or interleaved.
        let mut group = VecDeque::new();
        for effect in effects {
            let generator = match effect {
                Effect::DeadLetter(letter) => {
                    self.letter(log, letter, effect)?;
                    continue;
                }
                Effect::State(change) if change.json.is_none() => {
                    let gone = self.decommissioned.remove(change.generator.as_str());
                    ensure!(
                        group.is_empty() && gone == Some(change.offset.0) && change.offset.0 < offset,
                        Effects,
                        "{here}: {effect:?} deletes a state, but the decommissioned state is that of {gone:?}"
                    );
                    continue;
                }
                Effect::State(_) if group.is_empty() && self.is_stored_again(effect) => continue,
                Effect::Output(alert) => alert.generator.as_str(),
                Effect::State(change) => change.generator.as_str(),
            };
            if group.is_empty() {
                group = self.next_group(log, generator, effect)?;
            }
            let Some(wanted) = group.pop_front() else {
                ensure!(false, Effects, "{here}: nothing calls for {effect:?}");
                break;
            };
            check(partition, &wanted, effect, log)?;
            if let Expected::State(generator, state) = wanted {
                match state["offset"].as_i64().filter(|_| state["decommissioned"] == true) {
                    Some(offset) => self.decommissioned.insert(generator, offset),
                    None => self.decommissioned.remove(&generator),
                };
            }
        }
        ensure!(group.is_empty(), Effects, "{here}: {group:?} was split off");
        for (generator, ahead) in &mut self.ahead {
            while ahead.front().is_some_and(|index| log[*index].offset < offset) {
                let lost = ahead.pop_front().map(|index| self.oracle.evaluate(log[index].record()));
                let lost = lost.unwrap_or_default();
                if !lost.is_empty() {
                    let what = format!("{here}: {lost:?} of {generator} are lost");
                    return Err(Violation { invariant: self.missing, what });
                }
            }
        }
        let missing = self.bad.front().filter(|index| log[**index].offset < offset);
        ensure!(missing.is_none(), Letters, "{here}: the dead letter of {missing:?} is lost");
        Ok(())
    }

    /// The generators whose silence hasn't been noticed.
    pub fn not_silent(&self) -> Vec<&str> {
        self.oracle.not_silent()
    }

    /// The number of known generators.
    pub fn known(&self) -> usize {
        self.oracle.known()
    }

    /// The states that the state topic must hold.
    pub fn states(&self) -> BTreeMap<String, Value> {
        self.oracle.states()
    }

    fn is_stored_again(&self, effect: &Effect) -> bool {
        let state = effect.as_state().filter(|_| self.stored_again);
        state.is_some_and(|change| {
            let written = change.json.as_deref().and_then(|json| serde_json::from_slice::<Value>(json).ok());
            written.as_ref() == self.oracle.states().get(change.generator.as_str())
        })
    }

    /// Dead letters are those of the bad records below the committed offset: one that is visible earlier would come
    /// twice.
    fn letter(&mut self, log: &[Entry], letter: &DeadLetter, effect: &Effect) -> Result<(), Violation> {
        let (partition, committed) = (self.partition, self.committed);
        let offset = letter.offset.0;
        ensure!(
            offset < committed,
            Letters,
            "partition {partition}: the dead letter of {offset} is visible, but the offset is {committed}"
        );
        let next = self.bad.pop_front().map(|index| &log[index]);
        let Some((entry, Meaning::Bad(code))) = next.map(|entry| (entry, &entry.meaning)) else {
            ensure!(false, Letters, "partition {partition}: nothing calls for {effect:?}");
            return Ok(());
        };
        let wanted = Expected::DeadLetter(entry.offset, code);
        let same = check(partition, &wanted, effect, log).is_ok();
        ensure!(same, Letters, "partition {partition}: wanted {wanted:?}, there is {effect:?}");
        Ok(())
    }

    /// The generator's next group, which should begin with this effect.
    fn next_group(
        &mut self,
        log: &[Entry],
        generator: &str,
        effect: &Effect,
    ) -> Result<VecDeque<Expected>, Violation> {
        let partition = self.partition;
        let forgotten = has_reason(effect, Reason::Forgotten);
        let silence = forgotten || has_reason(effect, Reason::Silent);
        // A silence follows everything that was read of its generator; any other effect has no such limit.
        let last = if silence { effect_offset(effect) } else { i64::MAX };
        let mut group = Vec::new();
        let ahead = self.ahead.entry(generator.to_owned()).or_default();
        while group.is_empty() && ahead.front().is_some_and(|index| log[*index].offset <= last) {
            group =
                ahead.pop_front().map(|index| self.oracle.evaluate(log[index].record())).unwrap_or_default();
        }
        if silence {
            ensure!(group.is_empty(), Effects, "partition {partition} lost {group:?} before {effect:?}");
            let is_named = |entry: &&Entry| {
                let is_bad = matches!(entry.meaning, Meaning::Bad(_));
                entry.offset == last && entry.generator == generator && !is_bad
            };
            let named = log.iter().find(is_named);
            let epoch = named.map_or(-1, |entry| entry.epoch);
            let alert = alert_json(effect).unwrap_or_default();
            let judged = match forgotten {
                true => self.oracle.forget(&alert),
                false => self.oracle.silence(&alert, epoch),
            };
            match judged {
                Ok(told) => group = told,
                Err(reason) => ensure!(false, Effects, "partition {partition}: {reason}"),
            }
        }
        Ok(group.into())
    }
}

/// Judges one partition under at-least-once: nothing is lost, and each repeat equals the first.
#[derive(Debug)]
pub struct AtLeastOnce {
    partition: i32,
    oracle: Oracle,
    /// The expected effects of each log entry (without states), and whether each was seen.
    expected: Vec<Vec<(Expected, bool)>>,
    /// The entries whose alerts haven't all been seen, by generator.
    unseen: BTreeMap<String, BTreeSet<usize>>,
    committed: i64,
}

impl AtLeastOnce {
    /// The judge before the first record of this topic.
    pub fn new(topic: Option<String>, partition: i32, rules: &[NaiveRule]) -> AtLeastOnce {
        let oracle = Oracle::new(TOPIC, topic, partition, rules);
        AtLeastOnce { partition, oracle, expected: Vec::new(), unseen: BTreeMap::new(), committed: 0 }
    }

    /// A state of the previous log is kept, as this JSON.
    pub fn kept(&mut self, state: &Value) {
        self.oracle.keep(state);
    }

    /// A record has been appended to the log.
    pub fn appended(&mut self, entry: &Entry) {
        let expected = self.oracle.evaluate(entry.record()).into_iter();
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
        if let (Effect::Output(alert), true) = (effect, first) {
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
            ensure!(false, Effects, "partition {partition}, commit of {before}..{offset}: {lost:?} is lost");
        }
        self.committed = offset;
        Ok(())
    }

    /// The states that the state topic must hold when everything is committed.
    pub fn states(&self) -> BTreeMap<String, Value> {
        self.oracle.states()
    }
}

fn has_reason(effect: &Effect, reason: Reason) -> bool {
    matches!(effect, Effect::Output(alert) if alert.reason == Some(reason))
}

fn effect_offset(effect: &Effect) -> i64 {
    match effect {
        Effect::Output(alert) => alert.offset.0,
        Effect::DeadLetter(letter) => letter.offset.0,
        Effect::State(_) => -1,
    }
}

fn alert_json(effect: &Effect) -> Option<Value> {
    let Effect::Output(alert) = effect else { return None };
    serde_json::from_slice(&alert.to_json(TOPIC)).ok()
}

/// Checks that an effect is the expected one.
pub fn check(partition: i32, wanted: &Expected, effect: &Effect, log: &[Entry]) -> Result<(), Violation> {
    let same = match (wanted, effect) {
        (Expected::Alert(json), Effect::Output(_)) => alert_json(effect).as_ref() == Some(json),
        (Expected::State(generator, json), Effect::State(change)) => {
            let parsed = change.json.as_ref().and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
            change.generator.as_str() == generator
                && change.partition.0 == partition
                && parsed.as_ref() == Some(json)
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
