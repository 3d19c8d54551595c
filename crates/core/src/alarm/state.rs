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
use crate::types::{Millis, Mono, Now};

/// The alarm state of one generator in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct AlarmState {
    /// One state per rule, by the rule's index. Two fit inline: the default rules.
    pub rule_states: SmallVec<[RuleState; 2]>,
    /// Stored states of rules that this worker doesn't run (disabled, or known only to a newer release). They are
    /// kept unchanged, so that a rolling change of the rules doesn't raise an alarm twice. Hardly any generator has one:
    /// eight bytes instead of 24.
    #[allow(clippy::box_collection)]
    carried: Option<Box<BTreeMap<String, StoredStanding>>>,
    /// When this worker last saw a reading; a deadman rule measures from here.
    pub last_seen: Mono,
}

impl AlarmState {
    /// The state of a generator that no reading has touched.
    #[must_use]
    pub fn new(rules: &Rules, now: Mono) -> AlarmState {
        AlarmState {
            rule_states: SmallVec::from_elem(RuleState::INITIAL, rules.as_slice().len()),
            carried: None,
            last_seen: now,
        }
    }

    /// Restores the state that another owner left. Silence continues: a deadman rule's state says when the generator
    /// last reported, to within the interval of its rewrites (see [`heard_again_after`]); the generator gets the
    /// benefit of that.
    #[must_use]
    pub fn restore(stored: StoredAlarms, rules: &Rules, now: Now) -> AlarmState {
        let mut state = AlarmState::new(rules, now.mono);
        let mut carried = stored.rules;
        for (index, rule) in rules.as_slice().iter().enumerate() {
            if let Some(StoredStanding { phase, since, .. }) = carried.remove(&rule.name) {
                state.rule_states[index] = RuleState { phase, since };
            }
        }
        state.carried = (!carried.is_empty()).then(|| Box::new(carried));
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
        state
    }

    /// Whether it is still the state of a generator that no reading has touched.
    #[must_use]
    pub fn is_new(&self) -> bool {
        let untouched = self.rule_states.iter().all(|rule_state| *rule_state == RuleState::INITIAL);
        untouched && self.carried.is_none()
    }

    /// The rules that this worker doesn't run and whose alarm is active, with what a cleared event says of them.
    pub fn carried_alarms(&self) -> impl Iterator<Item = Arc<Rule>> + '_ {
        let active =
            self.carried.iter().flat_map(|all| all.iter()).filter(|(_, stored)| stored.phase.is_active());
        active.map(|(name, stored)| Arc::new(stored.to_clear(name)))
    }

    /// What to store of it.
    #[must_use]
    pub fn to_stored(&self, rules: &Rules) -> StoredAlarms {
        let mut all = self.carried.as_deref().cloned().unwrap_or_default();
        for (rule, rule_state) in rules.as_slice().iter().zip(&self.rule_states) {
            if *rule_state != RuleState::INITIAL {
                all.insert(rule.name.clone(), StoredStanding::new(rule, *rule_state));
            }
        }
        StoredAlarms { rules: all }
    }
}

/// How much later than the stored time a reading must be to have a deadman rule's state rewritten, in milliseconds: a
/// quarter of what the rule waits for, so that silence outlives any number of restarts; but at least ten seconds,
/// because each rewrite is a record of the state topic for each generator.
#[must_use]
pub fn heard_again_after(silent_for: i64) -> i64 {
    (silent_for / 4).max(10_000)
}

/// What a state record holds of a generator's alarms. An absent rule is in its initial state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredAlarms {
    /// The state of each rule.
    pub rules: BTreeMap<String, StoredStanding>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_owner_wrote_the_next_restores_exactly() {
        let rules = Rules::default();
        let mut state = AlarmState::new(&rules, Mono(7));
        state.rule_states[0] = RuleState { phase: Phase::Clearing, since: Millis(5) };
        let stored = serde_json::to_vec(&state.to_stored(&rules)).expect("JSON");
        let stored = serde_json::from_slice(&stored).expect("own format");
        assert_eq!(AlarmState::restore(stored, &rules, Now { mono: Mono(7), wall: Millis(7) }), state);
    }

    #[test]
    fn a_rule_that_this_replica_does_not_run_is_carried_on() {
        let text = r#"{"rules":{"gone":{"phase":"raised","since":3}}}"#;
        let rules = Rules::default();
        let stored: StoredAlarms = serde_json::from_str(text).expect("valid");
        let state = AlarmState::restore(stored, &rules, Now::default());
        assert_eq!(serde_json::to_string(&state.to_stored(&rules)).expect("JSON"), text);
    }
}
