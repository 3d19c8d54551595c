//! The alarm state of one generator, and its record in the state topic.
//!
//! Owned by the partition that the generator's readings come from; never shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::event::AlertKind;
use super::machine::{Delays, Limits, Phase, RuleState};
use super::rules::{Condition, Rule, Rules, default_severity};
use crate::reading::Field;
use crate::types::{Epoch, GeneratorId, Millis, Mono, Now, Offset, TopicId};

/// The alarm state of one generator in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmState {
    /// One state per rule, by the rule's index. Two fit inline: the default rules.
    pub rule_states: SmallVec<[RuleState; 2]>,
    /// Stored states of rules that this worker doesn't run (disabled, or known only to a newer release). They are
    /// kept unchanged, so that a rolling change of the rules doesn't raise an alarm twice.
    carried: BTreeMap<String, StoredStanding>,
    /// The offset of the last reading that this state covers; a reading at or before it is a repeat.
    pub applied: Offset,
    /// The leader epoch of that reading, or a newer one seen while it was the last; see [`AlarmState::covers`].
    pub epoch: Epoch,
    /// When this worker last saw a reading; a deadman rule measures from here.
    pub last_seen: Mono,
    /// Whether the state topic knows this generator.
    pub stored: bool,
}

impl AlarmState {
    /// The state of a generator that no reading has touched.
    #[must_use]
    pub fn new(rules: &Rules, now: Mono) -> AlarmState {
        AlarmState {
            rule_states: SmallVec::from_elem(RuleState::INITIAL, rules.as_slice().len()),
            carried: BTreeMap::new(),
            applied: Offset(-1),
            epoch: Epoch::UNKNOWN,
            last_seen: now,
            stored: false,
        }
    }

    /// Restores the state that another owner left. Silence continues: a deadman rule's state says when the generator
    /// last reported, to within the interval of its rewrites (see [`heard_again_after`]); the generator gets the
    /// benefit of that.
    #[must_use]
    pub fn restore(stored: StoredState, rules: &Rules, now: Now) -> AlarmState {
        let mut state = AlarmState::new(rules, now.mono);
        let mut carried = stored.rules;
        for (index, rule) in rules.as_slice().iter().enumerate() {
            if let Some(StoredStanding { phase, since, .. }) = carried.remove(&rule.name) {
                state.rule_states[index] = RuleState { phase, since };
            }
        }
        state.carried = carried;
        let heard = rules.as_slice().iter().zip(&state.rule_states).filter_map(|(rule, rule_state)| {
            let Condition::Deadman { after } = rule.condition else { return None };
            // When an alarm was raised, the silence was already that old.
            let before = if rule_state.phase.is_active() { after } else { 0 };
            (rule_state.since.0 >= 0)
                .then(|| rule_state.since.0.saturating_add(heard_again_after(after)).saturating_sub(before))
        });
        if let Some(heard) = heard.min() {
            state.last_seen = now.mono.after(-now.wall.since(Millis(heard)).max(0));
        }
        state.applied = stored.offset;
        state.epoch = stored.epoch;
        state.stored = !stored.decommissioned;
        state
    }

    /// Whether it is still the state of a generator that no reading has touched.
    #[must_use]
    pub fn is_new(&self) -> bool {
        let untouched = self.rule_states.iter().all(|rule_state| *rule_state == RuleState::INITIAL);
        !self.stored && untouched && self.carried.is_empty() && self.applied < Offset(0)
    }

    /// The rules that this worker doesn't run and whose alarm is active, with what a cleared event says of them.
    pub fn carried_alarms(&self) -> impl Iterator<Item = Arc<Rule>> + '_ {
        let active = self.carried.iter().filter(|(_, stored)| stored.phase.is_active());
        active.map(|(name, stored)| Arc::new(stored.to_clear(name)))
    }

    /// Whether the state already covers a record of this offset. A leader `epoch` newer than the state's means that
    /// the offset is used again for another record; `epoch` is called only where that matters. If either epoch is
    /// unknown, the offset alone decides.
    #[inline]
    #[must_use]
    pub fn covers(&self, offset: Offset, epoch: impl Fn() -> Epoch) -> bool {
        offset <= self.applied && (!self.epoch.is_known() || epoch() <= self.epoch)
    }

    /// Returns the record for the state topic: JSON, as [`StoredState`] reads it. `topic` is the readings topic.
    #[must_use]
    pub fn to_json(&self, generator: &GeneratorId, rules: &Rules, topic: Option<&TopicId>) -> Vec<u8> {
        let mut all = self.carried.clone();
        for (rule, rule_state) in rules.as_slice().iter().zip(&self.rule_states) {
            if *rule_state != RuleState::INITIAL {
                all.insert(rule.name.clone(), StoredStanding::new(rule, *rule_state));
            }
        }
        StoredState {
            generator: generator.as_str().to_owned(),
            topic: topic.cloned(),
            offset: self.applied,
            epoch: self.epoch,
            rules: all,
            decommissioned: false,
        }
        .to_json()
    }
}

/// How much later than the stored time a reading must be to have a deadman rule's state rewritten, in milliseconds: a
/// quarter of what the rule waits for, so that silence outlives any number of restarts; but at least ten seconds,
/// because each rewrite is a record of the state topic for each generator.
#[must_use]
pub fn heard_again_after(silent_for: i64) -> i64 {
    (silent_for / 4).max(10_000)
}

/// A record of the state topic:
/// `{"generatorID":"generator4","topic":"fXb3ZTPHT7y5Iq7LgnAqLQ","offset":1042,"epoch":3,"rules":{"low_fuel":{"phase":"raised","since":1766400000000,"severity":"warning","field":"fuel","threshold":250.0}}}`.
/// An absent rule is in its initial state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredState {
    /// The generator, as in the key.
    #[serde(rename = "generatorID")]
    pub generator: String,
    /// The id of the readings topic; the offset means nothing in another. Absent where the broker knows no ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicId>,
    /// The offset of the reading that led to this state, in the readings partition of the same number.
    pub offset: Offset,
    /// The leader epoch of that reading.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub epoch: Epoch,
    /// The state of each rule.
    pub rules: BTreeMap<String, StoredStanding>,
    /// The generator is gone and this record is about to be deleted; see [`StoredState::of_decommissioned`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decommissioned: bool,
}

/// The state of one rule in a record. While its alarm is active, it also holds what a cleared event says of the rule,
/// because the generator may be decommissioned where the rule isn't run. Records of older releases lack that, and so
/// do records that such a release has carried on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredStanding {
    /// The phase.
    pub phase: Phase,
    /// When it was entered, event time.
    pub since: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
}

impl StoredStanding {
    fn new(rule: &Rule, RuleState { phase, since }: RuleState) -> StoredStanding {
        if !phase.is_active() {
            return StoredStanding { phase, since, severity: None, field: None, threshold: None };
        }
        let (field, threshold) = rule.condition.told(AlertKind::Cleared);
        StoredStanding {
            phase,
            since,
            severity: Some(rule.severity.clone()),
            field: field.map(str::to_owned),
            threshold: Some(threshold),
        }
    }

    /// The rule's severity; `None` where it isn't stored.
    #[must_use]
    pub fn severity(&self) -> Option<&str> {
        self.severity.as_deref()
    }

    /// The rule as far as a cleared event needs it; it is never evaluated. Unknown parts get a rules file's default,
    /// or 0.
    fn to_clear(&self, name: &str) -> Rule {
        let threshold = self.threshold.unwrap_or(0.0);
        let condition = match self.field.as_deref().and_then(Field::from_name) {
            Some(field) => Condition::Threshold {
                field,
                limits: Limits::Low { raise: threshold, clear: None },
                delays: Delays { on: 0, off: 0, realarm: None },
            },
            None => Condition::Deadman { after: (threshold * 1000.0).round() as i64 },
        };
        let severity = self.severity.clone().unwrap_or_else(default_severity);
        Rule { name: name.to_owned(), severity, condition }
    }
}

impl StoredState {
    /// Reads a record of the state topic.
    ///
    /// # Errors
    /// When it isn't such a record.
    pub fn from_json(value: &[u8]) -> Result<StoredState, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// The placeholder for the state of a decommissioned generator until the committed offset has passed the
    /// decommissioning. If the state were deleted at once and we crashed before that, the next owner would evaluate
    /// old readings again, because it couldn't tell them from new ones. See [`crate::pool::outbox`].
    #[must_use]
    pub fn of_decommissioned(
        generator: &GeneratorId,
        topic: Option<&TopicId>,
        offset: Offset,
        epoch: Epoch,
    ) -> StoredState {
        StoredState {
            generator: generator.as_str().to_owned(),
            topic: topic.cloned(),
            offset,
            epoch,
            rules: BTreeMap::new(),
            decommissioned: true,
        }
    }

    /// The record's value.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Only strings and finite numbers: serializing them into memory can't fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_unknown(epoch: &Epoch) -> bool {
    !epoch.is_known()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_owner_wrote_the_next_restores_exactly() {
        let rules = Rules::default();
        let id = GeneratorId::from("generator4");
        let mut state = AlarmState::new(&rules, Mono(7));
        state.rule_states[0] = RuleState { phase: Phase::Clearing, since: Millis(5) };
        (state.applied, state.epoch) = (Offset(42), Epoch(3));
        state.stored = true;
        let topic = TopicId::from("fXb3ZTPHT7y5Iq7LgnAqLQ");
        let stored = StoredState::from_json(&state.to_json(&id, &rules, Some(&topic))).expect("own format");
        assert_eq!(stored.topic, Some(topic));
        assert_eq!(AlarmState::restore(stored, &rules, Now { mono: Mono(7), wall: Millis(7) }), state);
    }

    #[test]
    fn readings_up_to_a_decommissioning_are_known_and_the_generator_is_not() {
        let decommissioned =
            StoredState::of_decommissioned(&GeneratorId::from("g"), None, Offset(7), Epoch::UNKNOWN)
                .to_json();
        let stored = StoredState::from_json(&decommissioned).expect("own format");
        let state = AlarmState::restore(stored, &Rules::default(), Now::default());
        assert_eq!((state.applied, state.stored), (Offset(7), false));
    }

    #[test]
    fn an_offset_that_is_used_again_under_a_newer_leader_is_no_repeat() {
        let mut state = AlarmState::new(&Rules::default(), Mono(0));
        state.applied = Offset(7);
        for (known, epoch, covered) in
            [(2, 2, true), (2, 1, true), (2, 3, false), (2, -1, true), (-1, 3, true)]
        {
            state.epoch = Epoch(known);
            assert_eq!(state.covers(Offset(7), || Epoch(epoch)), covered, "{known} {epoch}");
            assert!(!state.covers(Offset(8), || Epoch(epoch)));
        }
    }

    #[test]
    fn a_rule_that_this_replica_does_not_run_is_carried_on() {
        let text = br#"{"generatorID":"g","offset":1,"rules":{"gone":{"phase":"raised","since":3}}}"#;
        let rules = Rules::default();
        let state = AlarmState::restore(StoredState::from_json(text).expect("valid"), &rules, Now::default());
        assert_eq!(state.to_json(&GeneratorId::from("g"), &rules, None), text);
    }
}
