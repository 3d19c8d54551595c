//! Counts the readings of each window in the log, and compares them with the aggregates of closed windows. No I/O.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A window: its start, and the generator.
type Key = (i64, String);

/// Readings and aggregates, window by window.
#[derive(Debug)]
pub struct WindowCounts {
    window: i64,
    grace: i64,
    /// The latest timestamp in each partition.
    watermarks: BTreeMap<i32, i64>,
    /// The readings of each window that has no aggregate yet, and its partition.
    readings: BTreeMap<Key, (i32, u64)>,
    /// Aggregates that came before all their readings were seen here.
    early: BTreeMap<Key, u64>,
    /// The last window of each generator that was compared.
    last: BTreeMap<String, i64>,
    compared: WindowComparison,
}

/// The result of comparing aggregates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowComparison {
    /// Aggregates, without repeats.
    pub aggregates: u64,
    /// The sum of their counts.
    pub counted: u64,
    /// Readings in the log in these windows.
    pub readings: u64,
    /// Windows whose aggregate counts more readings than there are.
    pub too_many: u64,
    /// Windows that should be closed, and have no aggregate.
    pub missing: u64,
    /// Repeated aggregates.
    pub repeated: u64,
    /// Readings that the downsampler dropped because they were late.
    pub late: u64,
}

impl WindowComparison {
    /// Whether each reading of a closed window is in its aggregate, once.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.counted + self.late == self.readings && self.too_many == 0 && self.missing == 0
    }
}

/// The part of an aggregate that counts here.
#[derive(Deserialize)]
struct Counted {
    #[serde(rename = "generatorID")]
    generator: String,
    window: Start,
    count: u64,
}

#[derive(Deserialize)]
struct Start {
    start: i64,
}

impl WindowCounts {
    /// Starts with nothing; `window` and `grace` in milliseconds.
    #[must_use]
    pub fn new(window: i64, grace: i64) -> WindowCounts {
        WindowCounts {
            window,
            grace,
            watermarks: BTreeMap::new(),
            readings: BTreeMap::new(),
            early: BTreeMap::new(),
            last: BTreeMap::new(),
            compared: WindowComparison::default(),
        }
    }

    /// Counts a reading.
    pub fn reading(&mut self, partition: i32, generator: &str, at: i64) {
        let watermark = self.watermarks.entry(partition).or_insert(at);
        *watermark = at.max(*watermark);
        let start = at - at.rem_euclid(self.window);
        if self.last.get(generator).is_some_and(|last| start <= *last) {
            // Too late for a window that was compared.
            self.compared.readings += 1;
            return;
        }
        self.readings.entry((start, generator.to_owned())).or_insert((partition, 0)).1 += 1;
    }

    /// Counts an aggregate; what isn't one is a window too many.
    pub fn aggregate(&mut self, value: &[u8]) {
        let Ok(Counted { generator, window, count }) = serde_json::from_slice(value) else {
            self.compared.too_many += 1;
            return;
        };
        let is_repeated = self.last.get(&generator).is_some_and(|last| window.start <= *last);
        if is_repeated || self.early.insert((window.start, generator), count).is_some() {
            self.compared.repeated += 1;
        }
    }

    /// Compares the windows of which all readings have come by the timestamps of their partitions.
    pub fn compare_closed(&mut self) {
        let due: Vec<Key> = self.due().cloned().collect();
        for key in due {
            if let Some(count) = self.early.remove(&key) {
                self.compare(key, count);
            }
        }
    }

    /// Windows that have to be closed, and have no aggregate yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.due().filter(|key| !self.early.contains_key(*key)).count()
    }

    /// Compares the rest. All readings and all aggregates have come, and the downsampler has dropped so many readings.
    #[must_use]
    pub fn verdict(mut self, late: u64) -> WindowComparison {
        self.compare_closed();
        self.compared.missing = self.waiting() as u64;
        for (key, count) in std::mem::take(&mut self.early) {
            self.compare(key, count);
        }
        self.compared.late = late;
        self.compared
    }

    fn compare(&mut self, key: Key, count: u64) {
        let readings = self.readings.remove(&key).map_or(0, |(_, readings)| readings);
        let compared = &mut self.compared;
        compared.aggregates += 1;
        compared.counted += count;
        compared.readings += readings;
        compared.too_many += u64::from(count > readings);
        self.last.insert(key.1, key.0);
    }

    /// Windows that are closed: their partitions have readings behind their end and grace.
    fn due(&self) -> impl Iterator<Item = &Key> {
        let closed_at = |key: &Key| key.0 + self.window + self.grace;
        let latest = self.watermarks.values().max().copied().unwrap_or(i64::MIN);
        let sorted = self.readings.iter().take_while(move |(key, _)| closed_at(key) <= latest);
        let is_due = move |key: &Key, partition: &i32| {
            self.watermarks.get(partition).is_some_and(|watermark| closed_at(key) <= *watermark)
        };
        sorted.filter(move |(key, (partition, _))| is_due(key, partition)).map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aggregate(generator: &str, start: i64, count: u64) -> Vec<u8> {
        format!(r#"{{"generatorID":"{generator}","window":{{"start":{start},"end":0}},"count":{count}}}"#)
            .into_bytes()
    }

    /// Three readings of `a` and one of `b` in the first window; then one of `a` that closes it for their partition.
    fn counts() -> WindowCounts {
        let mut counts = WindowCounts::new(1000, 200);
        for at in [0, 10, 999] {
            counts.reading(0, "a", at);
        }
        counts.reading(0, "b", 500);
        counts.reading(1, "c", 500);
        counts.reading(0, "a", 1200);
        counts
    }

    #[test]
    fn each_reading_of_a_closed_window_is_in_its_aggregate() {
        let mut counts = counts();
        assert_eq!(counts.waiting(), 2, "partition 1 has nothing behind the window");
        counts.aggregate(&aggregate("a", 0, 3));
        counts.aggregate(&aggregate("b", 0, 1));
        counts.compare_closed();
        assert_eq!(counts.waiting(), 0);
        counts.aggregate(&aggregate("b", 0, 1));
        // By the clock.
        counts.aggregate(&aggregate("c", 0, 1));
        let verdict = counts.verdict(0);
        assert!(verdict.is_right(), "{verdict:?}");
        assert_eq!((verdict.aggregates, verdict.counted, verdict.repeated), (3, 5, 1));
    }

    #[test]
    fn what_is_lost_doubled_or_made_up_is_wrong() {
        let verdict = |aggregates: &[Vec<u8>], late| {
            let mut counts = counts();
            aggregates.iter().for_each(|one| counts.aggregate(one));
            counts.verdict(late)
        };
        let (a, b) = (aggregate("a", 0, 3), aggregate("b", 0, 1));
        assert!(verdict(&[a.clone(), b.clone()], 0).is_right());
        assert_eq!(verdict(std::slice::from_ref(&b), 0).missing, 1);
        for wrong in [aggregate("a", 0, 2), aggregate("a", 0, 4), aggregate("a", -1000, 3), b"{}".to_vec()] {
            assert!(!verdict(&[wrong, b.clone()], 0).is_right());
        }
        assert!(!verdict(&[a.clone(), b.clone(), b"{}".to_vec()], 0).is_right());
        assert!(
            verdict(&[aggregate("a", 0, 2), b.clone()], 1).is_right(),
            "one was late, and is counted as that"
        );
        assert!(!verdict(&[a.clone(), b.clone()], 1).is_right());
        let mut counts = counts();
        [&a, &b].into_iter().for_each(|one| counts.aggregate(one));
        counts.compare_closed();
        counts.reading(0, "a", 998);
        assert_eq!(counts.waiting(), 0, "its window is closed");
        assert!(counts.verdict(1).is_right());
    }
}
