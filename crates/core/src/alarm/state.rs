//! The alarm state of one generator, and its record in the state topic.
//!
//! Owned by the partition the generator's readings come from; nobody shares it.

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
    /// One rule state a rule, by the rule's index. Two fit inline: the default rules.
    pub rule_states: SmallVec<[RuleState; 2]>,
    /// Standings of rules that this replica doesn't run (disabled, or known to a newer release only), kept as they are
    /// so that a rolling change of the rules doesn't raise an alarm twice.
    carried: BTreeMap<String, StoredStanding>,
    /// The offset of the last reading that is part of this state; a reading at or before it is a repeat.
    pub applied: Offset,
    /// The leader epoch of that reading, or a newer one that was there when it was the last; see [`AlarmState::covers`].
    pub epoch: Epoch,
    /// When this replica last saw a reading; what a deadman rule measures from.
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

    /// The state as another owner left it. Silence goes on: a deadman rule's rule state says when the generator was last heard of, give
    /// or take what it isn't written anew for (see [`heard_again_after`]); the generator gets the benefit of that.
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
            // When an alarm was raised, the silence was that old already.
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

    /// Whether it is as one that no reading has touched.
    #[must_use]
    pub fn is_new(&self) -> bool {
        let untouched = self.rule_states.iter().all(|rule_state| *rule_state == RuleState::INITIAL);
        !self.stored && untouched && self.carried.is_empty() && self.applied < Offset(0)
    }

    /// Of each rule that this replica doesn't run and whose alarm is active: what a cleared event says of it.
    pub fn carried_alarms(&self) -> impl Iterator<Item = Arc<Rule>> + '_ {
        let active = self.carried.iter().filter(|(_, stored)| stored.phase.is_active());
        active.map(|(name, stored)| Arc::new(stored.to_clear(name)))
    }

    /// Whether a record of this offset is part of the state already. The leader `epoch` is asked for where that matters: a
    /// newer one than the state's says that the offset is used again, for another record. Where either isn't known the
    /// offset alone decides.
    #[inline]
    #[must_use]
    pub fn covers(&self, offset: Offset, epoch: impl Fn() -> Epoch) -> bool {
        offset <= self.applied && (!self.epoch.is_known() || epoch() <= self.epoch)
    }

    /// The record for the state topic: JSON, as [`StoredState`] reads it. `topic` is that of the readings.
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

/// How much later than the last time a reading has to be for a deadman rule's rule state to say so, in milliseconds: a quarter of what
/// the rule waits for, so that silence outlives any number of restarts; and at most each ten seconds, as it's a record of the
/// state topic for each generator.
#[must_use]
pub fn heard_again_after(silent_for: i64) -> i64 {
    (silent_for / 4).max(10_000)
}

/// A record of the state topic:
/// `{"generatorID":"generator4","topic":"fXb3ZTPHT7y5Iq7LgnAqLQ","offset":1042,"epoch":3,"rules":{"low_fuel":{"phase":"raised","since":1766400000000,"severity":"warning","field":"fuel","threshold":250.0}}}`.
/// A rule that is absent stands as if no reading had touched it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredState {
    /// The generator, as in the key.
    #[serde(rename = "generatorID")]
    pub generator: String,
    /// The id of the readings topic; the offset means nothing in another. Absent where the broker knows no ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicId>,
    /// The offset of the reading that made this state, in the partition of the same number of the readings topic.
    pub offset: Offset,
    /// The leader epoch of that reading.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub epoch: Epoch,
    /// Where each rule stands.
    pub rules: BTreeMap<String, StoredStanding>,
    /// The generator is gone and this record is about to be deleted; see [`StoredState::of_decommissioned`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decommissioned: bool,
}

/// Where a rule stands, in a record. While its alarm is active also what a cleared event says of the rule, as the generator
/// may be decommissioned where the rule isn't run. Records of older releases don't have that, nor do those that such a
/// release has carried on.
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

    /// The rule as far as a cleared event says it; it is never evaluated. What isn't known is as a rules file leaves it, or 0.
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

    /// What stands for the state of a decommissioned generator until the committed offset has passed the decommissioning:
    /// were the state deleted at once, a crash before that would have the next owner evaluate readings again that it can't
    /// tell from new ones. See [`crate::pool::outbox`].
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
        // Strings and finite numbers alone: serializing them into memory can't fail.
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
