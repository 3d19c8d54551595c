//! What is remembered of one generator, and its stored form.
//!
//! Owned by the partition that the generator's readings come from; never shared.

use std::fmt;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::fuel::FuelTrack;
use super::part::{InvalidPart, Part};
use super::rule_name::RuleName;
use super::window::Window;
use crate::types::Millis;

/// The windows of one generator, and what its next reading is compared with.
#[derive(Clone)]
pub struct AggregateState {
    /// The open windows, oldest first.
    pub(super) open: SmallVec<[Box<Window>; 2]>,
    /// The end of the last window that was closed.
    pub(super) closed: i64,
    /// The latest event time of an input that wasn't dropped.
    pub(super) seen: i64,
    /// The reading of the latest event time.
    pub(super) previous: Option<Previous>,
    /// Closed windows that a late reading may still correct, oldest first.
    pub(super) kept: Vec<Kept>,
}

/// What the next reading is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Previous {
    pub(super) at: i64,
    /// Whether each rule's raise condition held, by the index of the aggregator's rule.
    pub(super) held: SmallVec<[bool; 8]>,
    pub(super) fuel: FuelTrack,
}

/// A closed window, compact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// How often it was corrected.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) revision: u32,
    pub(super) part: Box<Part>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl fmt::Debug for AggregateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateState")
            .field("open", &self.open.len())
            .field("closed", &self.closed)
            .field("seen", &self.seen)
            .field("kept", &self.kept.len())
            .finish_non_exhaustive()
    }
}

impl Default for AggregateState {
    fn default() -> AggregateState {
        AggregateState::new()
    }
}

impl AggregateState {
    /// The state of a generator that was never heard of.
    #[must_use]
    pub fn new() -> AggregateState {
        AggregateState {
            open: SmallVec::new(),
            closed: i64::MIN,
            seen: i64::MIN,
            previous: None,
            kept: Vec::new(),
        }
    }

    /// The latest event time that counted, in milliseconds; `None` if there was none. The greatest one of all
    /// generators of a partition is the least that its watermark can be.
    #[must_use]
    pub fn seen(&self) -> Option<Millis> {
        (self.seen != i64::MIN).then_some(Millis(self.seen))
    }

    /// The number of open windows.
    #[must_use]
    pub fn open_windows(&self) -> usize {
        self.open.len()
    }

    /// The number of closed windows that are kept for corrections.
    #[must_use]
    pub fn kept_windows(&self) -> usize {
        self.kept.len()
    }
}

/// The body of a stored [`AggregateState`]. The record's envelope (generator, topic, offset, epoch) is its writer's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredAggregates {
    /// The open windows, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) windows: Vec<Part>,
    /// The end of the last closed window, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) closed: Option<i64>,
    /// The latest event time that counted, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seen: Option<i64>,
    /// The reading of the latest event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<StoredPrevious>,
    /// Closed windows that a late reading may still correct, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) kept: Vec<Kept>,
}

/// What the next reading is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct StoredPrevious {
    at: i64,
    /// The rules whose raise condition held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<RuleName>,
    fuel: FuelTrack,
}

/// Why a stored state can't be continued.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Its windows have another length.
    #[error(
        "its windows are {stored} ms long, and --window is {window} ms: start with the former --window, or with another --group"
    )]
    OtherWindow {
        /// The length of a stored window, in milliseconds.
        stored: i64,
        /// The length that was asked for, in milliseconds.
        window: i64,
    },
    /// It wasn't written by us.
    #[error("it contradicts itself")]
    Invalid(#[from] InvalidPart),
}

impl StoredAggregates {
    /// Returns the stored form; restoring it continues exactly.
    pub(super) fn of(state: &AggregateState, rules: &[RuleName]) -> StoredAggregates {
        let known = |time: i64| (time != i64::MIN).then_some(time);
        let previous = state.previous.as_ref().map(|previous| {
            let held = rules.iter().zip(&previous.held).filter(|(_, held)| **held);
            StoredPrevious {
                at: previous.at,
                held: held.map(|(name, _)| name.clone()).collect(),
                fuel: previous.fuel.clone(),
            }
        });
        StoredAggregates {
            windows: state.open.iter().map(|window| window.to_part(rules)).collect(),
            closed: known(state.closed),
            seen: known(state.seen),
            previous,
            kept: state.kept.clone(),
        }
    }

    /// Checks that it can be continued by windows of this length.
    pub(super) fn check(&self, window: i64) -> Result<(), RestoreError> {
        let check = |part: &Part| -> Result<(), RestoreError> {
            part.check()?;
            let (start, end) = (part.start, part.end);
            let span = super::window::Span::of(start, window);
            if (start, end) == (span.start, span.end) {
                return Ok(());
            }
            Err(RestoreError::OtherWindow { stored: end.saturating_sub(start), window })
        };
        let parts = || self.windows.iter();
        let kept = || self.kept.iter().map(|kept| &*kept.part);
        parts().chain(kept()).try_for_each(check)?;
        let in_order = parts().zip(parts().skip(1)).chain(kept().zip(kept().skip(1)));
        let ordered = in_order.into_iter().all(|(one, next)| one.start < next.start);
        if !ordered || self.previous.as_ref().is_some_and(|previous| !previous.fuel.is_valid()) {
            return Err(InvalidPart::Contradiction.into());
        }
        Ok(())
    }

    pub(super) fn restore(self, window: i64, rules: &[RuleName]) -> Result<AggregateState, RestoreError> {
        self.check(window)?;
        let previous = self.previous.map(|stored| Previous {
            at: stored.at,
            held: rules.iter().map(|rule| stored.held.contains(rule)).collect(),
            fuel: stored.fuel,
        });
        Ok(AggregateState {
            open: self.windows.iter().map(|part| Box::new(Window::of_part(part, rules))).collect(),
            closed: self.closed.unwrap_or(i64::MIN),
            seen: self.seen.unwrap_or(i64::MIN),
            previous,
            kept: self.kept,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::field::FieldStats;
    use super::super::{AggregateCounts, Aggregator, Late};
    use super::*;
    use crate::alarm::rules::Rules;
    use crate::reading::Values;
    use crate::types::GeneratorId;

    /// Bytes that a state takes.
    fn size(state: &AggregateState) -> usize {
        let fields = state.open.iter().flat_map(|window| window.fields.iter().flatten());
        let fields: usize = fields.map(|stats| size_of::<FieldStats>() + stats.heap()).sum();
        let fuel: usize = state.previous.iter().map(|previous| previous.fuel.heap()).sum();
        size_of::<AggregateState>() + state.open.len() * size_of::<Window>() + fields + fuel
    }

    #[test]
    fn a_generator_with_an_open_window_and_three_fields_takes_less_than_three_kibibytes() {
        let aggregator = Aggregator::new(60_000, 0, Late::Drop, &Rules::default()).unwrap();
        let (mut state, mut out) = (AggregateState::new(), Vec::new());
        for second in 0..3630 {
            let values = Values::new(0.0, 0.0, 74.1, 198.3, 901.0 - second as f64 / 100.0, None, None);
            let (id, at) = (GeneratorId::from("g"), Millis(second * 1000));
            aggregator.add(&id, &mut state, at, &values, at, &mut out, &mut AggregateCounts::default());
        }
        assert_eq!((out.len(), state.open.len()), (60, 1));
        let size = size(&state);
        println!("{size} bytes");
        assert!((1024..3072).contains(&size), "{size}");
    }
}
