//! The values of one generator over time, with less detail with age: the series of the time machine.
//!
//! Two points may be as far apart as their age times a factor. The factor follows from how many points fit,
//! so a day takes as little memory as it is given: a logarithmic number of points, dense where it is new.

/// Memory for the points of all generators.
const BUDGET: usize = 64 << 20;
/// Points per generator, at least and at most.
const CAPACITY: (usize, usize) = (32, 4096);
/// By how many points a series grows.
const STEP: usize = 16;

/// One point; 16 bytes, as there are millions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Seconds since the epoch.
    pub at: u32,
    /// Coolant temperature in °C.
    pub temperature: f32,
    /// Oil pressure in kPa.
    pub pressure: f32,
    /// Fuel in litres.
    pub fuel: f32,
}

/// How much detail all series have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detail {
    /// The most points of a series.
    capacity: usize,
    /// The share of its age that separates a point from the next.
    per_age: f64,
    /// Seconds that are kept.
    kept: u32,
}

impl Detail {
    /// The detail that fits if there are so many generators, and so many seconds are kept.
    #[must_use]
    pub fn of(generators: usize, kept: u32) -> Detail {
        let fits = BUDGET / size_of::<Point>() / generators.max(1);
        let capacity = fits.clamp(CAPACITY.0, CAPACITY.1);
        // A quarter of the room is for points that are new, a second apart, until the next thinning.
        let wanted = capacity as f64 * 0.75;
        let points = |per_age: f64| (1.0 + (f64::from(kept) * per_age).max(1.0).ln()) / per_age;
        let (mut low, mut high) = (1e-6, 10.0);
        for _ in 0..50 {
            let middle = f64::midpoint(low, high);
            if points(middle) > wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        Detail { capacity, per_age: high, kept }
    }

    /// The most points of a series.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Seconds between two points of this age.
    fn spacing(&self, age: i64) -> i64 {
        ((age.max(0) as f64 * self.per_age) as i64).max(1)
    }
}

/// The points of one generator, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Series(Vec<Point>);

impl Series {
    /// Whether a point at this time would add detail.
    #[must_use]
    pub fn wants(&self, at: u32, now: u32, detail: &Detail) -> bool {
        let age = i64::from(now) - i64::from(at);
        if age > i64::from(detail.kept) {
            return false;
        }
        let spacing = detail.spacing(age);
        let next = self.0.partition_point(|point| point.at < at);
        let far = |point: Option<&Point>| {
            point.is_none_or(|point| (i64::from(point.at) - i64::from(at)).abs() >= spacing)
        };
        far(next.checked_sub(1).and_then(|before| self.0.get(before))) && far(self.0.get(next))
    }

    /// Adds a point, at its place, if it adds detail.
    pub fn push(&mut self, point: Point, now: u32, detail: &Detail) {
        if !self.wants(point.at, now, detail) {
            return;
        }
        if self.0.len() >= detail.capacity {
            self.thin(now, detail);
        }
        if self.0.len() == self.0.capacity() {
            let room = detail.capacity.saturating_sub(self.0.len()).clamp(1, STEP.max(self.0.len() / 4));
            self.0.reserve_exact(room);
        }
        let place = self.0.partition_point(|other| other.at < point.at);
        self.0.insert(place, point);
    }

    /// Fits a series to the detail that there is now, as when more generators share the memory.
    pub fn fit(&mut self, now: u32, detail: &Detail) {
        if self.0.len() > detail.capacity {
            self.thin(now, detail);
        }
        self.0.shrink_to(detail.capacity);
    }

    /// Drops points that are too old, or too close to an older one for their age. (If the older ones gave way
    /// to newer ones, no point would ever become old.) The newest stays.
    fn thin(&mut self, now: u32, detail: &Detail) {
        let oldest = i64::from(now) - i64::from(detail.kept);
        let newest = self.0.last().copied();
        let mut last: Option<i64> = None;
        self.0.retain(|point| {
            let at = i64::from(point.at);
            let apart = last.is_none_or(|last| at - last >= detail.spacing(i64::from(now) - last));
            let stays = at >= oldest && apart;
            if stays {
                last = Some(at);
            }
            stays
        });
        if newest != self.0.last().copied() {
            self.0.extend(newest);
        }
        // Ages that make no sense, as of a clock that was set: every second one then, and the newest.
        while self.0.len() > detail.capacity * 7 / 8 {
            let mut index = self.0.len();
            self.0.retain(|_| {
                index -= 1;
                index.is_multiple_of(2)
            });
        }
    }

    /// The last point at or before this time.
    #[must_use]
    pub fn at(&self, at: i64) -> Option<&Point> {
        let next = self.0.partition_point(|point| i64::from(point.at) <= at);
        self.0.get(next.checked_sub(1)?)
    }

    /// The points from one time to another, in seconds.
    #[must_use]
    pub fn between(&self, from: i64, to: i64) -> &[Point] {
        let first = self.0.partition_point(|point| i64::from(point.at) < from);
        let end = self.0.partition_point(|point| i64::from(point.at) <= to);
        &self.0[first..end.max(first)]
    }

    /// Bytes on the heap.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Point>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u32 = 24 * 60 * 60;
    const NOW: u32 = 1_766_400_000;

    fn point(at: u32) -> Point {
        Point { at, temperature: at as f32, pressure: 0.0, fuel: 0.0 }
    }

    fn filled(detail: &Detail, seconds: u32) -> Series {
        let mut series = Series::default();
        for at in NOW - seconds..=NOW {
            series.push(point(at), at, detail);
        }
        series
    }

    #[test]
    fn the_memory_of_all_generators_is_bounded() {
        for generators in [1, 200, 1000, 10_000, 100_000] {
            let detail = Detail::of(generators, DAY);
            let bytes = detail.capacity() * size_of::<Point>() * generators;
            assert!(bytes <= BUDGET, "{generators}: {bytes}");
            let series = filled(&detail, 20_000);
            assert!(series.bytes() <= detail.capacity() * size_of::<Point>());
        }
        assert_eq!(Detail::of(100_000, DAY).capacity(), 41);
        assert_eq!(Detail::of(1, DAY).capacity(), 4096);
        assert_eq!(Detail::of(1_000_000, DAY).capacity(), 32);
    }

    #[test]
    fn spacing_grows_with_age_and_the_newest_and_the_oldest_stay() {
        for generators in [200, 100_000] {
            let detail = Detail::of(generators, DAY);
            let series = filled(&detail, DAY);
            let points = series.between(0, i64::from(NOW));
            assert_eq!(points.last().map(|point| point.at), Some(NOW));
            assert!(points.len() > detail.capacity() / 4, "{}", points.len());
            for pair in points.windows(2) {
                let age = i64::from(NOW - pair[0].at);
                let apart = i64::from(pair[1].at - pair[0].at);
                assert!(pair[0].at < pair[1].at);
                assert!(apart <= 3 * detail.spacing(age) + 1, "{apart} s at an age of {age} s");
            }
            let covered = NOW - points[0].at;
            assert!(covered > DAY / 2, "{generators}: {covered} s");
        }
    }

    #[test]
    fn what_comes_late_is_put_at_its_place() {
        let detail = Detail::of(200, DAY);
        let mut series = Series::default();
        for at in [100, 50, 75, 50, 200] {
            series.push(point(NOW - 300 + at), NOW, &detail);
        }
        let order: Vec<u32> = series.between(0, i64::MAX).iter().map(|p| p.at - (NOW - 300)).collect();
        assert_eq!(order, [50, 75, 100, 200]);
        assert!(!series.wants(NOW - 200, NOW, &detail), "there is one");
        assert!(!series.wants(NOW - 2 * DAY, NOW, &detail), "too old");
    }

    #[test]
    fn a_time_between_two_points_has_the_values_of_the_first() {
        let detail = Detail::of(200, DAY);
        let mut series = Series::default();
        series.push(point(NOW - 20), NOW, &detail);
        series.push(point(NOW - 10), NOW, &detail);
        assert_eq!(series.at(i64::from(NOW - 21)), None);
        assert_eq!(series.at(i64::from(NOW - 15)), Some(&point(NOW - 20)));
        assert_eq!(series.at(i64::from(NOW)), Some(&point(NOW - 10)));
        assert_eq!(series.between(i64::from(NOW), 0), []);
    }

    #[test]
    fn when_more_generators_come_a_series_gives_room_back() {
        let mut series = filled(&Detail::of(1, DAY), 4000);
        let shared = Detail::of(100_000, DAY);
        series.fit(NOW, &shared);
        assert!(series.bytes() <= 41 * size_of::<Point>(), "{}", series.bytes());
        assert_eq!(series.at(i64::from(NOW)), Some(&point(NOW)));
    }

    #[test]
    fn times_of_the_future_are_kept_within_bounds_too() {
        let detail = Detail::of(100_000, DAY);
        let mut series = Series::default();
        for second in 0..1000 {
            series.push(point(NOW + second), NOW, &detail);
        }
        assert!(series.0.len() <= detail.capacity());
    }
}
