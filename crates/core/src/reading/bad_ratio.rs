//! `--max-bad-ratio`: many bad records at once mean a broken producer, not a bad record. The worker then stops, so
//! that it doesn't empty the topic into the dead letter queue.

/// The number of records over which the ratio is measured.
pub const WINDOW: u32 = 1000;

/// Counts bad records in windows of [`WINDOW`] records. Owned by the worker's thread.
#[derive(Debug)]
pub struct BadRatioLimit {
    /// Bad records that a window may hold.
    allowed: u32,
    records: u32,
    bad: u32,
}

impl BadRatioLimit {
    /// A limit of `max_ratio`, from 0 (no bad record at all) to 1 (any number).
    #[must_use]
    pub fn new(max_ratio: f64) -> BadRatioLimit {
        BadRatioLimit { allowed: (max_ratio.clamp(0.0, 1.0) * f64::from(WINDOW)) as u32, records: 0, bad: 0 }
    }

    /// Counts a record. Returns the number of bad records in this window if there are too many.
    #[must_use]
    pub fn count(&mut self, bad: bool) -> Option<u32> {
        if self.records == WINDOW {
            (self.records, self.bad) = (0, 0);
        }
        self.records += 1;
        self.bad += u32::from(bad);
        (self.bad > self.allowed).then_some(self.bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_passed_as_soon_as_the_window_cannot_be_good_any_more() {
        let mut limit = BadRatioLimit::new(0.1);
        let first = (1..).find(|_| limit.count(true).is_some());
        assert_eq!(first, Some(101));
    }

    #[test]
    fn a_few_bad_records_among_many_pass() {
        let mut limit = BadRatioLimit::new(0.1);
        assert!((0..100_000).all(|number| limit.count(number % 20 == 0).is_none()));
    }

    #[test]
    fn zero_allows_none_and_one_allows_all() {
        assert_eq!(BadRatioLimit::new(0.0).count(true), Some(1));
        let mut limit = BadRatioLimit::new(1.0);
        assert!((0..10_000).all(|_| limit.count(true).is_none()));
    }
}
