//! All rules applied to one generator: a reading, a decommissioning, a silence; gives effects.

use std::sync::Arc;

use super::event::{AlertEvent, AlertState, Reason};
use super::machine::{Phase, Standing, Step, step};
use super::rules::{Condition, Rule, Rules};
use super::state::AlarmState;
use crate::effect::{Effect, StateChange};
use crate::log::{GeneratorId, Millis, Offset, PartitionId};
use crate::reading::Values;

/// Where and when the record stands that is being applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Source {
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its event time.
    pub at: Millis,
}

/// The rules in force, ready to be applied. Stateless: the state is the caller's.
#[derive(Debug)]
pub struct Detector {
    rules: Rules,
    watch_silence: bool,
}

impl Detector {
    /// A detector for these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Detector {
        let watch_silence = rules.watch_silence();
        Detector { rules, watch_silence }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Applies a reading: updates `state`, appends the effects, counts late evaluations by rule index. `now` is the
    /// wall clock. A reading that is part of the state already (a repeat after a crash) changes nothing.
    #[allow(clippy::too_many_arguments)]
    pub fn reading(
        &self,
        generator: &GeneratorId,
        state: &mut AlarmState,
        values: &Values,
        source: Source,
        now: Millis,
        effects: &mut Vec<Effect>,
        late: &mut [u64],
    ) {
        if source.offset <= state.applied {
            return;
        }
        state.last_seen = now;
        let mut changed = self.watch_silence && !state.stored;
        for (index, rule) in self.rules.as_slice().iter().enumerate() {
            let standing = &mut state.standings[index];
            let (now, event) = match &rule.condition {
                Condition::Threshold { field, limits, delays } => {
                    // An optional field that is absent says nothing either way.
                    let Some(value) = values.get(*field) else { continue };
                    let (now, told) = match step(*limits, *delays, *standing, value, source.at) {
                        Step::Same => continue,
                        Step::Late => {
                            late[index] += 1;
                            continue;
                        }
                        Step::Silent(now) => (now, None),
                        Step::Raised { now, began } => (now, Some((AlertState::Raised, began))),
                        Step::Cleared { now, began } => (now, Some((AlertState::Cleared, began))),
                    };
                    (now, told.map(|(state, began)| (state, Some(value), began)))
                }
                // Any reading ends a silence, late or not: it shows that the generator is there.
                Condition::Silent { .. } if standing.phase.is_active() => (
                    Standing { phase: Phase::Normal, since: source.at },
                    Some((AlertState::Cleared, None, source.at)),
                ),
                Condition::Silent { .. } => continue,
            };
            *standing = now;
            changed = true;
            if let Some((state, value, since)) = event {
                effects.push(Effect::Alert(Box::new(AlertEvent {
                    generator: generator.clone(),
                    rule: Arc::clone(rule),
                    state,
                    value,
                    at: source.at,
                    since,
                    position: Some((values.lat(), values.lon())),
                    partition: source.partition,
                    offset: source.offset,
                    reason: None,
                })));
            }
        }
        // Only what changes is remembered: `applied` moves with the state record, so that a restored state and the
        // offset it stands for are one thing.
        if changed {
            state.applied = source.offset;
            state.stored = true;
            effects.push(self.state_change(generator, source.partition, state));
        }
    }

    /// The generator is decommissioned: active alarms are cleared, the state is deleted.
    pub fn decommission(
        &self,
        generator: &GeneratorId,
        state: &mut AlarmState,
        source: Source,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        if source.offset <= state.applied {
            return;
        }
        for (rule, standing) in self.rules.as_slice().iter().zip(&state.standings) {
            if standing.phase.is_active() {
                effects.push(Effect::Alert(Box::new(AlertEvent {
                    generator: generator.clone(),
                    rule: Arc::clone(rule),
                    state: AlertState::Cleared,
                    value: None,
                    at: source.at,
                    since: source.at,
                    position: None,
                    partition: source.partition,
                    offset: source.offset,
                    reason: Some(Reason::Decommissioned),
                })));
            }
        }
        if state.stored {
            effects.push(Effect::State(StateChange {
                generator: generator.clone(),
                partition: source.partition,
                json: None,
                offset: source.offset,
            }));
        }
        *state = AlarmState::new(&self.rules, now);
    }

    /// Looks whether the generator has been silent for too long at `now`, wall clock. `last` is the offset of the last
    /// reading seen of it. Gives the effects of the alarms that are raised by it.
    pub fn silence(
        &self,
        generator: &GeneratorId,
        state: &mut AlarmState,
        partition: PartitionId,
        last: Offset,
        now: Millis,
        effects: &mut Vec<Effect>,
    ) {
        if !state.stored {
            return;
        }
        // A clock that was set back must not put off the alarm until it has caught up: silence counts anew from here.
        state.last_seen = state.last_seen.min(now);
        let quiet = now.since(state.last_seen);
        let mut changed = false;
        for (rule, standing) in self.rules.as_slice().iter().zip(&mut state.standings) {
            let raise = |after: i64| quiet >= after && !standing.phase.is_active();
            let Rule { condition: Condition::Silent { after }, .. } = **rule else {
                continue;
            };
            if !raise(after) {
                continue;
            }
            *standing = Standing { phase: Phase::Raised, since: now };
            changed = true;
            effects.push(Effect::Alert(Box::new(AlertEvent {
                generator: generator.clone(),
                rule: Arc::clone(rule),
                state: AlertState::Raised,
                value: Some(quiet as f64 / 1000.0),
                at: now,
                since: state.last_seen,
                position: None,
                partition,
                offset: last,
                reason: Some(Reason::Silent),
            })));
        }
        if changed {
            effects.push(self.state_change(generator, partition, state));
        }
    }

    fn state_change(&self, generator: &GeneratorId, partition: PartitionId, state: &AlarmState) -> Effect {
        Effect::State(StateChange {
            generator: generator.clone(),
            partition,
            json: Some(state.to_json(generator, &self.rules)),
            offset: state.applied,
        })
    }
}
