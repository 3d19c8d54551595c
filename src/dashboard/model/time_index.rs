//! Which offset had which timestamp, thinned: the age of the first waiting record, without reading it again.

use genwatch_core::types::{Millis, Offset};

/// The most entries; when they are full, every second one goes.
const MOST: usize = 1024;
/// Milliseconds between two entries at first.
const APART: i64 = 50;

/// Offsets and timestamps of one partition, by offset.
#[derive(Debug)]
pub struct TimeIndex {
    entries: Vec<(Offset, Millis)>,
    /// The newest record: not thinned yet.
    last: Option<(Offset, Millis)>,
    apart: i64,
}

impl Default for TimeIndex {
    fn default() -> Self {
        TimeIndex { entries: Vec::new(), last: None, apart: APART }
    }
}

impl TimeIndex {
    /// Notes a record, read in the order of the log.
    pub fn note(&mut self, offset: Offset, at: Millis) {
        if self.last.is_some_and(|(last, _)| offset <= last) {
            return;
        }
        self.last = Some((offset, at));
        if self.entries.last().is_some_and(|(_, last)| (at.0 - last.0).abs() < self.apart) {
            return;
        }
        self.entries.push((offset, at));
        if self.entries.len() >= MOST {
            let mut index = 0;
            self.entries.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.apart *= 2;
        }
    }

    /// The oldest record that is known.
    #[must_use]
    pub fn first(&self) -> Option<(Offset, Millis)> {
        self.entries.first().copied()
    }

    /// The newest record.
    #[must_use]
    pub fn last(&self) -> Option<(Offset, Millis)> {
        self.last
    }

    /// The timestamp of the record at this offset, or of the one before it that is known: not much older.
    /// `None`: the offset is from before the first record that was noted, or behind the last.
    #[must_use]
    pub fn at(&self, offset: Offset) -> Option<Millis> {
        let (last, at) = self.last?;
        if offset > last {
            return None;
        }
        if offset == last {
            return Some(at);
        }
        let next = self.entries.partition_point(|(entry, _)| *entry <= offset);
        self.entries.get(next.checked_sub(1)?).map(|(_, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_has_about_its_time_however_many_there_are() {
        let mut index = TimeIndex::default();
        for n in 0..1_000_000 {
            index.note(Offset(100 + n), Millis(n * 10));
        }
        assert!(index.entries.len() < MOST);
        assert_eq!(index.at(Offset(99)), None);
        assert_eq!(index.at(Offset(1_000_099)), Some(Millis(9_999_990)));
        assert_eq!(index.at(Offset(1_000_100)), None, "not read yet");
        let at = index.at(Offset(500_100)).unwrap();
        assert!((at.0 - 5_000_000).abs() <= index.apart, "{at} {}", index.apart);
    }
}
