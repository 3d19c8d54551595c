//! Cuts the time that is to be read into slices, each of which is one query and fits into one transaction.
//!
//! A slice grows while there is little in it and shrinks when there is too much: a year without rows takes a few
//! queries, and a busy hour many.

use std::time::Duration;

use super::time::{Nanos, nanos};

/// The first slice.
const FIRST: Duration = Duration::from_secs(60);
/// The shortest slice, if no alignment says otherwise.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest slice.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// A slice with more new rows doesn't grow.
const GROWS_BELOW: usize = 10_000;
/// By how much a slice that was too large shrinks.
const SHRINK: i64 = 8;

/// A range of time, from `start` up to but not including `stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first time in it.
    pub start: Nanos,
    /// The first time after it.
    pub stop: Nanos,
}

/// How long slices are.
#[derive(Debug)]
pub struct Slices {
    length: i64,
    /// Every bound is a multiple of this.
    unit: i64,
    shortest: i64,
}

impl Slices {
    /// Slices whose bounds are multiples of `align`, if there is one.
    #[must_use]
    pub fn new(align: Option<Duration>) -> Slices {
        let unit = align.map_or(1, nanos).max(1);
        let shortest = if align.is_some() { unit } else { nanos(SHORTEST) };
        let length = Nanos(nanos(FIRST)).floor(unit).0.max(shortest);
        Slices { length, unit, shortest }
    }

    /// Returns the last time that a slice may end at, so that it isn't later than `at`; also where one may begin.
    #[must_use]
    pub fn bound(&self, at: Nanos) -> Nanos {
        at.floor(self.unit)
    }

    /// Returns the slice that begins at `start`; `None` if `end` is reached.
    #[must_use]
    pub fn at(&self, start: Nanos, end: Nanos) -> Option<Slice> {
        let (start, end) = (self.bound(start), self.bound(end));
        let stop = Nanos(start.0.saturating_add(self.length)).min(end);
        (start < stop).then_some(Slice { start, stop })
    }

    /// Notes how many new rows a slice had.
    pub fn took(&mut self, rows: usize) {
        if rows < GROWS_BELOW {
            self.length = self.length.saturating_mul(2).min(nanos(LONGEST).max(self.unit));
            self.length = Nanos(self.length).floor(self.unit).0.max(self.shortest);
        }
    }

    /// Makes slices shorter because `slice` was too large; returns whether that is possible.
    pub fn shrink(&mut self, slice: Slice) -> bool {
        let length = slice.stop.0.saturating_sub(slice.start.0);
        if length <= self.shortest {
            return false;
        }
        self.length = Nanos(length / SHRINK).floor(self.unit).0.max(self.shortest);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    #[test]
    fn years_without_rows_take_a_few_queries_and_nothing_is_left_out() {
        let mut slices = Slices::new(None);
        let (mut at, end, mut count) = (Nanos(0), Nanos(56 * 365 * 24 * HOUR + 7), 0);
        while let Some(slice) = slices.at(at, end) {
            assert_eq!(slice.start, at);
            (at, count) = (slice.stop, count + 1);
            slices.took(0);
        }
        assert_eq!(at, end);
        assert!(count < 710, "{count}");
    }

    #[test]
    fn a_slice_shrinks_until_it_can_not() {
        let mut slices = Slices::new(None);
        (0..40).for_each(|_| slices.took(0));
        let mut count = 0;
        loop {
            let slice = slices.at(Nanos(0), Nanos(i64::MAX)).expect("a slice");
            if !slices.shrink(slice) {
                break;
            }
            count += 1;
        }
        assert_eq!(slices.at(Nanos(0), Nanos(i64::MAX)).map(|slice| slice.stop.0), Some(nanos(SHORTEST)));
        assert!(count < 10, "{count}");
        slices.took(GROWS_BELOW);
        assert_eq!(slices.length, nanos(SHORTEST), "a full slice doesn't grow");
    }

    #[test]
    fn aligned_slices_have_whole_windows_only() {
        let minutes = Duration::from_secs(7 * 60);
        let (unit, mut slices) = (nanos(minutes), Slices::new(Some(minutes)));
        let end = Nanos(1000 * HOUR + 5);
        let mut at = slices.bound(Nanos(3 * HOUR + 1));
        while let Some(slice) = slices.at(at, end) {
            assert!(slice.start.0 % unit == 0 && slice.stop.0 % unit == 0, "{slice:?}");
            at = slice.stop;
            slices.took(0);
        }
        assert_eq!(at, end.floor(unit));
        let slice = Slice { start: Nanos(0), stop: Nanos(unit) };
        assert!(!slices.shrink(slice), "one window can't be cut");
    }
}
