//! One window of one generator.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::exact_sum::ExactSum;
use super::field::FieldStats;
use super::part::{Outlook, Part, are_sound};
use super::rule_name::RuleName;
use crate::reading::{Field, Values};

/// The fields that are aggregated, in the order of the output.
pub(super) const FIELDS: [Field; 5] =
    [Field::Temperature, Field::Pressure, Field::Fuel, Field::Load, Field::Power];

/// The first instant of a window and the first instant behind it, in milliseconds of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Span {
    /// The window of this length, aligned to the epoch, that `at` is in. At the ends of time windows are cut off.
    pub(super) fn of(at: i64, window: i64) -> Span {
        let start = i128::from(at) - i128::from(at.rem_euclid(window));
        let clamp = |time: i128| time.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Span { start: clamp(start), end: clamp(start + i128::from(window)) }
    }

    #[inline]
    pub(super) fn contains(self, at: i64) -> bool {
        self.start <= at && at < self.end
    }
}

/// The aggregate of one generator over one window, while it grows.
#[derive(Clone)]
pub(super) struct Window {
    pub(super) span: Span,
    pub(super) count: u64,
    /// By [`FIELDS`]; boxed, because most generators have three of them.
    pub(super) fields: [Option<Box<FieldStats>>; FIELDS.len()],
    /// Milliseconds by the index of the aggregator's rule.
    pub(super) above: SmallVec<[i64; 4]>,
    /// Milliseconds of rules that the aggregator doesn't have, by name: they come from an earlier set of rules, or from
    /// the aggregates of a worker that has others.
    pub(super) other: BTreeMap<RuleName, i64>,
    pub(super) fuel_used: ExactSum,
    /// `None` until a reading behind the window's end has come.
    pub(super) outlook: Option<Outlook>,
}

impl Window {
    pub(super) fn new(span: Span, rules: usize) -> Window {
        Window {
            span,
            count: 0,
            fields: [const { None }; FIELDS.len()],
            above: SmallVec::from_elem(0, rules),
            other: BTreeMap::new(),
            fuel_used: ExactSum::new(),
            outlook: None,
        }
    }

    #[inline]
    pub(super) fn add_values(&mut self, at: i64, values: &Values) {
        self.count += 1;
        for (stats, field) in self.fields.iter_mut().zip(FIELDS) {
            let Some(value) = values.get(field) else { continue };
            match stats {
                Some(stats) => stats.add(at, value),
                None => *stats = Some(Box::new(FieldStats::new(at, value))),
            }
        }
    }

    /// Prepares for several readers, once it is closed.
    pub(super) fn settle(&mut self) {
        self.fields.iter_mut().flatten().for_each(|stats| stats.settle());
    }

    /// Whether the window with this part is one that [`Part::check`] accepts. A part may come from anywhere; a state
    /// that can't be restored would keep its partition from starting.
    pub(super) fn has_room_for(&self, part: &Part, rules: &[RuleName]) -> bool {
        let known = rules.iter().zip(&self.above).filter(|(_, millis)| **millis != 0).chain(&self.other);
        let mut above: BTreeMap<&RuleName, i64> = known.map(|(name, millis)| (name, *millis)).collect();
        for (name, millis) in &part.above {
            let sum = above.entry(name).or_default();
            *sum = sum.saturating_add(*millis);
        }
        are_sound(self.count.saturating_add(part.count), above.len(), above.into_values())
    }

    /// Adds a part that is later in the log. `rules` are the aggregator's.
    pub(super) fn merge(&mut self, part: &Part, rules: &[RuleName]) {
        self.count = self.count.saturating_add(part.count);
        let parts = [&part.temperature, &part.pressure, &part.fuel, &part.load, &part.power];
        for (stats, part) in self.fields.iter_mut().zip(parts) {
            match (stats, part) {
                (_, None) => {}
                (Some(stats), Some(part)) => stats.merge(&part.decode()),
                (stats @ None, Some(part)) => *stats = Some(Box::new(part.decode())),
            }
        }
        for (name, millis) in &part.above {
            let known =
                rules.iter().position(|rule| rule == name).and_then(|index| self.above.get_mut(index));
            let sum = match known {
                Some(sum) => sum,
                None => self.other.entry(name.clone()).or_default(),
            };
            *sum = sum.saturating_add(*millis);
        }
        self.fuel_used.merge(&part.fuel_used);
        let known = self.outlook.map(|outlook| outlook.as_of);
        if part.outlook.is_some_and(|later| known.is_none_or(|known| known <= later.as_of)) {
            self.outlook = part.outlook;
        }
    }

    pub(super) fn of_part(part: &Part, rules: &[RuleName]) -> Window {
        let mut window = Window::new(Span { start: part.start, end: part.end }, rules.len());
        window.merge(part, rules);
        window
    }

    pub(super) fn to_part(&self, rules: &[RuleName]) -> Part {
        let field = |index: usize| self.fields[index].as_ref().map(|stats| stats.to_part());
        let known = rules.iter().cloned().zip(self.above.iter().copied());
        let above = known.filter(|(_, millis)| *millis != 0).chain(self.other.clone()).collect();
        Part {
            start: self.span.start,
            end: self.span.end,
            count: self.count,
            temperature: field(0),
            pressure: field(1),
            fuel: field(2),
            load: field(3),
            power: field(4),
            above,
            fuel_used: self.fuel_used.clone(),
            outlook: self.outlook,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_to_the_epoch_before_it_too() {
        let span = |at, window| (Span::of(at, window).start, Span::of(at, window).end);
        assert_eq!(span(0, 60_000), (0, 60_000));
        assert_eq!(span(59_999, 60_000), (0, 60_000));
        assert_eq!(span(-1, 60_000), (-60_000, 0));
        assert_eq!(span(-60_000, 60_000), (-60_000, 0));
        let (start, end) = span(i64::MIN, 60_000);
        assert_eq!((start, end % 60_000), (i64::MIN, 0));
        assert_eq!(span(end - 1, 60_000), (start, end), "the first window is cut off");
        assert_eq!(span(i64::MAX, 60_000).1, i64::MAX);
    }
}
