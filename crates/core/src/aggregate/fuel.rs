//! A generator's fuel: what it used, when it was refuelled, how long the rest lasts.
//!
//! # Use
//!
//! From one reading to the next the generator uses `previous - current` litres, which may be negative: fuel sloshes.
//! A level that is above the lowest one since the last refuel by more than [`REFUEL_LITRES`] and by more than
//! [`REFUEL_PART`] of it is a refuel. The rise from that lowest level to the present one isn't use, so what was
//! subtracted on the way is added again. While the level rises further, that is refuel, too, until the first fall.
//!
//! # Hours left
//!
//! The level falls along a line; its slope is the median of the slopes between all pairs of points (H. Theil, "A
//! rank-invariant method of linear and polynomial regression analysis", 1950; P. K. Sen, "Estimates of the regression
//! coefficient based on Kendall's tau", JASA 63, 1968), which up to 29 % of wild points don't move. The points are the
//! last reading of each minute since the last refuel, over [`SPAN`]. With an even number of slopes the median is the
//! mean of the middle two. `hours = last level / -slope`.

use serde::{Deserialize, Serialize};

use super::exact_sum::ExactSum;

/// A rise of at most this many litres isn't a refuel.
pub const REFUEL_LITRES: f64 = 1.0;

/// A rise of at most this part of the lowest level isn't a refuel.
pub const REFUEL_PART: f64 = 0.05;

/// Over how long the rate of use is measured, in milliseconds.
pub const SPAN: i64 = 30 * 60_000;

/// The least time from the first point to the last that gives a rate, in milliseconds.
pub const LEAST_SPAN: i64 = 5 * 60_000;

/// The points are the last readings of slots of this length, aligned to the epoch, in milliseconds.
const SLOT: i64 = 60_000;

/// A slower use per hour than this part of the level counts as none: the tank would last a century.
const LEAST_RATE: f64 = 1e-6;

const HOUR: f64 = 3_600_000.0;

/// A level at a time: milliseconds, litres.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Point(i64, f64);

/// The levels of one generator since its last refuel, as far as they matter. Also its stored form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FuelTrack {
    /// The last level.
    level: f64,
    /// The lowest one since the last refuel.
    low: f64,
    /// It is being refuelled: the level rises.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    refuelling: bool,
    /// In order of time; the last is the last reading.
    points: Vec<Point>,
}

impl FuelTrack {
    pub(super) fn new(at: i64, level: f64) -> FuelTrack {
        FuelTrack { level, low: level, refuelling: false, points: vec![Point(at, level)] }
    }

    /// Takes the next level; `at` isn't before the last one. Adds to `used` what was used since then.
    pub(super) fn add(&mut self, at: i64, level: f64, used: &mut ExactSum) {
        let previous = std::mem::replace(&mut self.level, level);
        if self.refuelling && level >= previous {
            self.restart(at, level);
        } else if !self.refuelling && level - self.low > REFUEL_LITRES.max(REFUEL_PART * self.low.abs()) {
            // Since the lowest level `low - previous` was added.
            used.add(previous);
            used.add(-self.low);
            self.refuelling = true;
            self.restart(at, level);
        } else {
            used.add(previous);
            used.add(-level);
            self.refuelling = false;
            self.low = self.low.min(level);
            self.push(Point(at, level));
        }
    }

    fn restart(&mut self, at: i64, level: f64) {
        self.low = level;
        self.points.clear();
        self.points.push(Point(at, level));
    }

    fn push(&mut self, point: Point) {
        let old = self.points.iter().take_while(|old| point.0.saturating_sub(old.0) > SPAN).count();
        self.points.drain(..old);
        match self.points.last_mut() {
            Some(last) if last.0.div_euclid(SLOT) == point.0.div_euclid(SLOT) => *last = point,
            _ => self.points.push(point),
        }
    }

    fn before(&self, end: i64) -> &[Point] {
        &self.points[..self.points.partition_point(|point| point.0 < end)]
    }

    /// The time of the last point before `end`.
    pub(super) fn last_before(&self, end: i64) -> Option<i64> {
        self.before(end).last().map(|point| point.0)
    }

    /// The hours that the fuel lasts, by the points before `end`; `None` where they don't say.
    pub(super) fn hours_left(&self, end: i64) -> Option<f64> {
        let points = self.before(end);
        let (first, last) = (points.first()?, points.last()?);
        if last.0.saturating_sub(first.0) < LEAST_SPAN {
            return None;
        }
        let recent = points.partition_point(|point| last.0.saturating_sub(point.0) > SPAN);
        let slope = theil_sen(&points[recent..])?;
        let hours = last.1 / -slope;
        let falls = -slope > LEAST_RATE * last.1.abs() && hours.is_finite();
        falls.then(|| hours.max(0.0))
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap(&self) -> usize {
        self.points.capacity() * size_of::<Point>()
    }

    /// Whether it can be one: what is restored may come from anywhere.
    pub(super) fn is_valid(&self) -> bool {
        let ordered = self.points.windows(2).all(|pair| pair[0].0 < pair[1].0);
        ordered && !self.points.is_empty() && self.points.len() as i64 <= SPAN / SLOT + 1
    }
}

/// The median of the pairwise slopes, in units per hour; `None` with less than two points.
fn theil_sen(points: &[Point]) -> Option<f64> {
    let mut slopes = Vec::with_capacity(points.len() * points.len().saturating_sub(1) / 2);
    for (index, later) in points.iter().enumerate() {
        for earlier in &points[..index] {
            slopes.push((later.1 - earlier.1) / (later.0.saturating_sub(earlier.0) as f64 / HOUR));
        }
    }
    if slopes.is_empty() {
        return None;
    }
    let middle = slopes.len() / 2;
    let even = slopes.len() % 2 == 0;
    let (below, upper, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(lower) if even => Some((lower + upper) / 2.0),
        _ => Some(upper),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    /// The use over these levels, one a minute, and the track.
    fn run(levels: &[f64]) -> (f64, FuelTrack) {
        let mut used = ExactSum::new();
        let mut track = FuelTrack::new(0, levels[0]);
        for (minute, level) in (1..).zip(&levels[1..]) {
            track.add(minute * MINUTE, *level, &mut used);
        }
        (used.value().unwrap(), track)
    }

    #[test]
    fn a_refuel_is_no_use() {
        assert_eq!(run(&[100.0, 99.0, 98.5]).0, 1.5);
        assert_eq!(run(&[100.0, 101.0, 99.0]).0, 1.0, "sloshing");
        assert_eq!(run(&[100.0, 90.0, 300.0, 400.0, 399.0]).0, 11.0, "in two steps");
        assert_eq!(run(&[100.0, 90.0, 92.0, 94.0, 300.0]).0, 10.0, "the slow begin of it is undone");
        assert_eq!(
            run(&[100.0, 90.0, 300.0, 300.0, 310.0, 309.0, 320.0]).0,
            0.0,
            "after a fall it is sloshing again"
        );
        assert_eq!(run(&[10.0, 10.9, 11.0]).0, -1.0, "exactly a litre isn't more than a litre");
        assert_eq!(run(&[10.0, 10.9, 11.1]).0, 0.0);
        assert_eq!(run(&[0.0, 500.0]).0, 0.0);
    }

    #[test]
    fn the_rest_lasts_as_long_as_most_points_say() {
        let levels: Vec<f64> = (0..20).map(|minute| 100.0 - f64::from(minute)).collect();
        let (_, track) = run(&levels);
        assert_eq!(track.hours_left(i64::MAX), Some(81.0 / 60.0));
        let mut wild = levels.clone();
        // Not beyond 5 %: that would be a refuel.
        (wild[3], wild[9], wild[17]) = (97.9, 91.9, 83.9);
        let (_, track) = run(&wild);
        let hours = track.hours_left(i64::MAX).unwrap();
        assert!((hours - 81.0 / 60.0).abs() < 0.02, "{hours}");
        assert_eq!(run(&levels[..5]).1.hours_left(i64::MAX), None, "four minutes are too short");
        assert_eq!(run(&levels[..6]).1.hours_left(i64::MAX), Some(95.0 / 60.0));
        assert_eq!(run(&levels).1.hours_left(6 * MINUTE), Some(95.0 / 60.0), "as of then");
        assert_eq!(run(&[50.0; 20]).1.hours_left(i64::MAX), None, "nothing is used");
        assert_eq!(run(&[levels, vec![500.0, 499.0]].concat()).1.hours_left(i64::MAX), None, "refuelled");
    }

    #[test]
    fn points_are_of_the_last_half_hour_one_a_minute() {
        let mut track = FuelTrack::new(0, 1e6);
        for second in 1..7200 {
            track.add(second * 1000, 1e6 - second as f64, &mut ExactSum::new());
        }
        assert_eq!(track.points.len(), 31);
        assert_eq!(track.points.last(), Some(&Point(7_199_000, 1e6 - 7199.0)));
        assert!(track.is_valid());
    }

    #[test]
    fn hostile_levels_and_times_say_nothing() {
        for level in [f64::MAX, f64::MIN, 0.0, -1.0, 5e-324] {
            let mut track = FuelTrack::new(i64::MIN, -level);
            let mut used = ExactSum::new();
            for at in [i64::MIN, -1, 0, 1, i64::MAX, i64::MAX] {
                track.add(at, level, &mut used);
                track.add(at, level / 2.0, &mut used);
                let hours = track.hours_left(i64::MAX);
                assert!(hours.is_none_or(|hours| hours >= 0.0 && hours.is_finite()));
                assert!(track.is_valid());
            }
        }
    }
}
