//! The decisions: which window a reading belongs to, whether it is late, when a window closes.

use std::sync::Arc;

use super::fuel::FuelTrack;
use super::output::Aggregate;
use super::part::{InvalidPart, Outlook, Part};
use super::rule_name::RuleName;
use super::sketch::MAX_COUNT;
use super::state::{AggregateState, Kept, Previous, RestoreError, StoredAggregates};
use super::window::{Span, Window};
use crate::alarm::machine::Limits;
use crate::alarm::rules::{Condition, Rules};
use crate::reading::{Field, Values};
use crate::types::{GeneratorId, Millis};

/// A raise condition is taken to hold from one reading to the next, over at most this many milliseconds. A longer gap
/// counts as nothing.
pub const MAX_GAP: i64 = 60_000;

/// After a silence that is longer than this, in milliseconds, a reading has no previous one.
pub const MAX_SILENCE: i64 = 3_600_000;

/// The most windows that grace, or the time for corrections, may cover: a day of minutes. It bounds what one generator
/// takes in memory, whatever its clock says.
pub const MAX_WINDOWS: i64 = 1440;

/// What becomes of a late reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// It is dropped and counted.
    Drop,
    /// It corrects its window, and the window is emitted once more.
    Correct {
        /// How far the watermark may be beyond the window's end, in milliseconds.
        within: i64,
    },
}

/// Whether an input has changed the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It was dropped, and no window was closed.
    Same,
    /// The state has changed.
    Changed,
    /// The state has changed and there is output.
    Emitted,
}

/// Counts of unusual inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AggregateCounts {
    /// Late and dropped.
    pub late_dropped: u64,
    /// Late, and a window was corrected.
    pub late_corrected: u64,
    /// Older than the generator's previous reading, in time for their window.
    pub out_of_order: u64,
}

/// Why these windows can't be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindows {
    /// It must be positive.
    #[error("--window must be longer than zero")]
    NoWindow,
    /// It must not be negative.
    #[error("--grace and the time for corrections must not be negative")]
    Negative,
    /// Too many windows of one generator would be open or kept.
    #[error(
        "{covered} ms of grace, or of time for corrections, cover more than {MAX_WINDOWS} windows of {window} ms, which every generator would have to keep: choose a larger --window or less time"
    )]
    TooMany {
        /// Grace or the time for corrections, whichever is longer, in milliseconds.
        covered: i64,
        /// The length of a window, in milliseconds.
        window: i64,
    },
}

/// Aggregates the readings of any number of generators by window of event time. It has no state of its own: each
/// generator's is an [`AggregateState`].
#[derive(Clone, Debug)]
pub struct Aggregator {
    /// The length of a window, in milliseconds.
    window: i64,
    /// How long after its end a window stays open, in milliseconds.
    grace: i64,
    late: Late,
    /// The names of the enabled threshold rules.
    names: Arc<[RuleName]>,
    /// Their fields and limits.
    conditions: Vec<(Field, Limits)>,
    /// See [`MAX_GAP`]; never longer than a window, so that a gap spans two windows at most.
    max_gap: i64,
}

impl Aggregator {
    /// An aggregator with windows of `window` milliseconds that stay open for `grace` milliseconds of event time after
    /// their end.
    ///
    /// # Errors
    /// When the window is empty, or grace and corrections cover too many windows.
    pub fn new(window: i64, grace: i64, late: Late, rules: &Rules) -> Result<Aggregator, InvalidWindows> {
        let within = match late {
            Late::Drop => 0,
            Late::Correct { within } => within,
        };
        if window <= 0 {
            return Err(InvalidWindows::NoWindow);
        }
        if grace < 0 || within < 0 {
            return Err(InvalidWindows::Negative);
        }
        let covered = grace.max(within);
        if covered / window > MAX_WINDOWS {
            return Err(InvalidWindows::TooMany { covered, window });
        }
        let thresholds = rules.as_slice().iter().filter_map(|rule| match rule.condition {
            Condition::Threshold { field, limits, .. } => {
                Some((RuleName::from(rule.name.as_str()), (field, limits)))
            }
            Condition::Deadman { .. } => None,
        });
        let (names, conditions): (Vec<_>, Vec<_>) = thresholds.unzip();
        Ok(Aggregator { window, grace, late, names: names.into(), conditions, max_gap: MAX_GAP.min(window) })
    }

    /// How long after its end a window stays open, in milliseconds.
    #[must_use]
    pub fn grace(&self) -> i64 {
        self.grace
    }

    /// Checks that a part's window lies within one of ours.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn check(&self, part: &Part) -> Result<(), InvalidPart> {
        part.fits(self.window)
    }

    /// Adds a reading. `watermark` is the latest event time of the partition's records before this one. Windows that
    /// the watermark, or the reading itself, has passed by their grace are closed into `out`, so that it doesn't matter
    /// whether [`Aggregator::close`] was called in the meantime.
    #[allow(clippy::too_many_arguments)]
    pub fn add(
        &self,
        generator: &GeneratorId,
        state: &mut AggregateState,
        at: Millis,
        values: &Values,
        watermark: Millis,
        out: &mut Vec<Aggregate>,
        counts: &mut AggregateCounts,
    ) -> Added {
        let before = out.len();
        let at = at.0;
        let watermark = watermark.0.max(state.seen);
        self.close_until(generator, state, watermark, out);
        self.forget_kept(state, watermark);

        let span = match state.open.last() {
            Some(newest) if newest.span.contains(at) => newest.span,
            _ => Span::of(at, self.window),
        };
        if self.is_late(state, span, watermark) {
            if self.may_correct(span, watermark, counts) {
                let mut late = Window::new(span, self.names.len());
                late.add_values(at, values);
                self.correct(generator, state, &late.to_part(&self.names), out);
            }
            return if out.len() > before { Added::Emitted } else { Added::Same };
        }
        state.seen = state.seen.max(at);
        let index = self.open(state, span);
        // A part may have said so many that one more could not be stored.
        if state.open[index].count >= MAX_COUNT {
            return if out.len() > before { Added::Emitted } else { Added::Changed };
        }
        match &state.previous {
            Some(previous) if at < previous.at => counts.out_of_order += 1,
            _ => self.follow(state, index, at, values),
        }
        state.open[index].add_values(at, values);
        self.close_until(generator, state, watermark.max(at), out);
        if out.len() > before { Added::Emitted } else { Added::Changed }
    }

    /// Adds a part of a smaller window. `watermark` is the latest [`Part::event_time`] of the partition's records
    /// before this one. A part with numbers so absurd that the window could not be stored with it is dropped. Otherwise
    /// as [`Aggregator::add`].
    ///
    /// # Errors
    /// When the part's window isn't within one of ours. Then nothing has changed.
    #[allow(clippy::too_many_arguments)]
    pub fn add_part(
        &self,
        generator: &GeneratorId,
        state: &mut AggregateState,
        part: &Part,
        watermark: Millis,
        out: &mut Vec<Aggregate>,
        counts: &mut AggregateCounts,
    ) -> Result<Added, InvalidPart> {
        part.fits(self.window)?;
        let before = out.len();
        let at = part.event_time().0;
        let watermark = watermark.0.max(state.seen);
        self.close_until(generator, state, watermark, out);
        self.forget_kept(state, watermark);

        let span = Span::of(part.start, self.window);
        if self.is_late(state, span, watermark) {
            if self.may_correct(span, watermark, counts) {
                self.correct(generator, state, part, out);
            }
            return Ok(if out.len() > before { Added::Emitted } else { Added::Same });
        }
        let open = state.open.iter().find(|window| window.span == span);
        if open.is_some_and(|window| !window.has_room_for(part, &self.names)) {
            return Ok(if out.len() > before { Added::Emitted } else { Added::Same });
        }
        state.seen = state.seen.max(at);
        let index = self.open(state, span);
        state.open[index].merge(part, &self.names);
        self.close_until(generator, state, watermark.max(at), out);
        Ok(if out.len() > before { Added::Emitted } else { Added::Changed })
    }

    /// Closes each open window whose end and grace aren't after `up_to`, oldest first. `up_to` is the partition's
    /// watermark; for a silent generator it is derived from a clock. Returns whether there was one.
    pub fn close(
        &self,
        generator: &GeneratorId,
        state: &mut AggregateState,
        up_to: Millis,
        out: &mut Vec<Aggregate>,
    ) -> bool {
        let before = out.len();
        self.close_until(generator, state, up_to.0, out);
        out.len() > before
    }

    /// The time at which [`Aggregator::close`] has something to do; `None` without an open window.
    #[must_use]
    pub fn deadline(&self, state: &AggregateState) -> Option<Millis> {
        state.open.first().map(|window| Millis(window.span.end.saturating_add(self.grace)))
    }

    /// Closes all open windows of a generator that is decommissioned, oldest first. Its state can be deleted.
    pub fn finish(&self, generator: &GeneratorId, state: &mut AggregateState, out: &mut Vec<Aggregate>) {
        self.close_until(generator, state, i64::MAX, out);
    }

    /// Whether the state can be forgotten: no reading that may still come would find a difference.
    #[must_use]
    pub fn is_empty(&self, state: &AggregateState, watermark: Millis) -> bool {
        let Millis(watermark) = watermark;
        let within = match self.late {
            Late::Drop => self.grace,
            Late::Correct { within } => self.grace.max(within),
        };
        // The earliest window that isn't dropped begins after this.
        let horizon = watermark.saturating_sub(within).saturating_sub(self.window);
        let passed = |at: i64| at == i64::MIN || at < horizon.saturating_sub(MAX_SILENCE);
        state.open.is_empty()
            && (state.closed == i64::MIN || state.closed <= horizon)
            && state.kept.iter().all(|kept| !self.is_correctable(kept.part.end, watermark))
            && passed(state.seen)
    }

    /// The stored form of a state; [`Aggregator::restore`] continues it exactly.
    #[must_use]
    pub fn store(&self, state: &AggregateState) -> StoredAggregates {
        StoredAggregates::of(state, &self.names)
    }

    /// Checks a stored state without restoring it.
    ///
    /// # Errors
    /// As [`Aggregator::restore`].
    pub fn check_stored(&self, stored: &StoredAggregates) -> Result<(), RestoreError> {
        stored.check(self.window)
    }

    /// Restores a stored state. The rules may have changed: time above a limit stays under the rule's name.
    ///
    /// # Errors
    /// When its windows have another length, or it contradicts itself.
    pub fn restore(&self, stored: StoredAggregates) -> Result<AggregateState, RestoreError> {
        stored.restore(self.window, &self.names)
    }

    #[inline]
    fn is_late(&self, state: &AggregateState, span: Span, watermark: i64) -> bool {
        span.end.saturating_add(self.grace) <= watermark || span.end <= state.closed
    }

    fn is_correctable(&self, end: i64, watermark: i64) -> bool {
        match self.late {
            Late::Drop => false,
            Late::Correct { within } => end > watermark.saturating_sub(within),
        }
    }

    /// The index of the open window, which is opened if need be.
    #[inline]
    fn open(&self, state: &mut AggregateState, span: Span) -> usize {
        let index = state.open.partition_point(|window| window.span.start < span.start);
        if state.open.get(index).is_none_or(|window| window.span != span) {
            let mut window = Box::new(Window::new(span, self.names.len()));
            if state.previous.as_ref().is_some_and(|previous| previous.at >= span.end) {
                window.outlook = outlook(state.previous.as_ref(), span);
            }
            state.open.insert(index, window);
        }
        index
    }

    /// What lies between the previous reading and this one, which isn't older and belongs to the open window at
    /// `index`: time above limits, and fuel.
    fn follow(&self, state: &mut AggregateState, index: usize, at: i64, values: &Values) {
        let fuel = values.get(Field::Fuel).unwrap_or(0.0);
        // The levels before the end of an older window are complete now.
        for window in &mut state.open[..index] {
            if window.outlook.is_none() {
                window.outlook = outlook(state.previous.as_ref(), window.span);
            }
        }
        let held = self
            .conditions
            .iter()
            .map(|(field, limits)| values.get(*field).is_some_and(|value| limits.raises(value)));
        let gap = state.previous.as_ref().map(|previous| at.saturating_sub(previous.at));
        match (&mut state.previous, gap) {
            (Some(previous), Some(gap)) if gap <= MAX_SILENCE => {
                if 0 < gap && gap <= self.max_gap && previous.held.contains(&true) {
                    share(&mut state.open, index, previous, at);
                }
                previous.fuel.add(at, fuel, &mut state.open[index].fuel_used);
                previous.at = at;
                for (before, now) in previous.held.iter_mut().zip(held) {
                    *before = now;
                }
            }
            (previous, _) => {
                *previous = Some(Previous { at, held: held.collect(), fuel: FuelTrack::new(at, fuel) });
            }
        }
    }

    fn close_until(
        &self,
        generator: &GeneratorId,
        state: &mut AggregateState,
        up_to: i64,
        out: &mut Vec<Aggregate>,
    ) {
        while let Some(oldest) = state.open.first() {
            if oldest.span.end.saturating_add(self.grace) > up_to {
                break;
            }
            let mut window = *state.open.remove(0);
            if window.outlook.is_none() {
                window.outlook = outlook(state.previous.as_ref(), window.span);
            }
            window.settle();
            state.closed = state.closed.max(window.span.end);
            if self.late != Late::Drop {
                self.keep(state, &window, 0);
            }
            out.push(self.aggregate(generator, window, None, None));
        }
        // So the kept windows are bounded, too. `up_to` may be a clock's, which makes nothing too late to correct.
        self.forget_kept(state, state.seen);
    }

    /// Whether a late input corrects its window; else it is dropped. Counts it.
    fn may_correct(&self, span: Span, watermark: i64, counts: &mut AggregateCounts) -> bool {
        let may = self.is_correctable(span.end, watermark);
        *if may { &mut counts.late_corrected } else { &mut counts.late_dropped } += 1;
        may
    }

    /// Corrects a closed window by a late input, and emits it once more.
    fn correct(
        &self,
        generator: &GeneratorId,
        state: &mut AggregateState,
        late: &Part,
        out: &mut Vec<Aggregate>,
    ) {
        let span = Span::of(late.start, self.window);
        let mut window = Window::new(span, self.names.len());
        let known = state.kept.binary_search_by_key(&span.start, |kept| kept.part.start).ok();
        let revision = known.map(|index| {
            let Kept { revision, part } = &state.kept[index];
            window.merge(part, &self.names);
            revision.saturating_add(1)
        });
        if revision.is_some() && !window.has_room_for(late, &self.names) {
            return;
        }
        window.merge(late, &self.names);
        // Without a reading in time, this is the window's first output, and its part all of it.
        let added = revision.map(|_| Arc::new(late.clone()));
        if revision.is_none() && window.outlook.is_none() {
            window.outlook = outlook(state.previous.as_ref(), span);
        }
        self.keep(state, &window, revision.unwrap_or(0));
        out.push(self.aggregate(generator, window, revision, added));
    }

    fn keep(&self, state: &mut AggregateState, window: &Window, revision: u32) {
        let kept = Kept { revision, part: Box::new(window.to_part(&self.names)) };
        match state.kept.binary_search_by_key(&window.span.start, |kept| kept.part.start) {
            Ok(index) => state.kept[index] = kept,
            Err(index) => state.kept.insert(index, kept),
        }
    }

    /// Forgets the closed windows that can't be corrected any more.
    #[inline]
    fn forget_kept(&self, state: &mut AggregateState, watermark: i64) {
        let old = state.kept.iter().take_while(|kept| !self.is_correctable(kept.part.end, watermark));
        let old = old.count();
        state.kept.drain(..old);
    }

    fn aggregate(
        &self,
        generator: &GeneratorId,
        window: Window,
        revision: Option<u32>,
        added: Option<Arc<Part>>,
    ) -> Aggregate {
        Aggregate {
            generator: generator.clone(),
            window: Arc::new(window),
            rules: self.names.clone(),
            revision,
            added,
        }
    }
}

/// How long the fuel lasts, as of the end of a window, by the levels before it; `None` where there are none, or only
/// levels from long before the window.
fn outlook(previous: Option<&Previous>, span: Span) -> Option<Outlook> {
    let fuel = &previous?.fuel;
    let heard = fuel.last_before(span.end)?;
    let recent = heard >= span.start.saturating_sub(MAX_SILENCE);
    recent.then(|| Outlook { as_of: span.end, hours: fuel.hours_left(span.end) })
}

/// Shares the time from the previous reading to `at` out: what lies before the end of the previous reading's window is
/// that window's if it is still open, the rest is the window's at `index`.
fn share(open: &mut [Box<Window>], index: usize, previous: &Previous, at: i64) {
    // A gap is no longer than a window, so it touches two at most, which are neighbours among the open ones.
    let earlier = index.checked_sub(1).filter(|&earlier| open[earlier].span.contains(previous.at));
    let split = if earlier.is_some() { open[index].span.start } else { previous.at };
    for (rule, _) in previous.held.iter().enumerate().filter(|(_, held)| **held) {
        if let Some(earlier) = earlier {
            add_millis(&mut open[earlier].above[rule], previous.at, split);
        }
        add_millis(&mut open[index].above[rule], split, at);
    }
}

fn add_millis(sum: &mut i64, from: i64, to: i64) {
    *sum = sum.saturating_add(to.saturating_sub(from)).min(MAX_COUNT as i64);
}
