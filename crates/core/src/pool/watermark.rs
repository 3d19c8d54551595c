//! The watermark of one partition: the offset below which every record is finished. Commits commit it.
//!
//! Records finish in any order; each has a place until it and all before it are finished. A place holds only the
//! record's end and timestamp: effects leave through the outbox as soon as they exist.

use std::collections::VecDeque;

use crate::types::{Millis, Offset};

/// Runs of timestamps kept between two commits; later ones count with the last run, so that an outage costs no
/// memory.
const MAX_TIME_RUNS: usize = 16_384;

/// Follows the records of a partition.
#[derive(Debug)]
pub struct Watermark {
    places: VecDeque<Place>,
    /// The sequence number of the front place.
    first: u64,
    offset: Offset,
    unfinished: usize,
}

/// One record's place: small, because a slow record may have a million finished ones after it.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Twice the offset after the record, plus one if it is finished.
    end_and_finished: u64,
    /// The record's timestamp.
    at: Millis,
}

const _: () = assert!(size_of::<Place>() == 16);

impl Place {
    #[inline]
    fn new(end: Offset, at: Millis, finished: bool) -> Place {
        Place { end_and_finished: (end.0.cast_unsigned() << 1) | u64::from(finished), at }
    }

    #[inline]
    fn end(self) -> Offset {
        Offset((self.end_and_finished >> 1).cast_signed())
    }

    #[inline]
    fn is_finished(self) -> bool {
        self.end_and_finished & 1 == 1
    }
}

/// Records that the watermark has passed and no commit has covered yet, for the metrics.
#[derive(Debug, Default)]
pub struct Passed {
    /// How many.
    pub records: u64,
    /// Their timestamps, each with its number of records.
    pub times: Vec<(Millis, u32)>,
}

impl Passed {
    /// Counts one record's timestamp.
    #[inline]
    pub fn count(&mut self, at: Millis) {
        self.records += 1;
        let full = self.times.len() >= MAX_TIME_RUNS;
        match self.times.last_mut() {
            Some((last, n)) if *last == at || full => *n = n.saturating_add(1),
            _ => self.times.push((at, 1)),
        }
    }

    /// Adds later ones.
    pub fn add(&mut self, other: Passed) {
        self.records += other.records;
        if self.times.len() < MAX_TIME_RUNS {
            self.times.extend(other.times);
        }
    }
}

impl Watermark {
    /// A watermark at `offset`: everything before it is finished, and nothing else is known.
    #[inline]
    #[must_use]
    pub fn new(offset: Offset) -> Watermark {
        Watermark { places: VecDeque::new(), first: 0, offset, unfinished: 0 }
    }

    /// Gives the record at `offset` a place. Returns its sequence number.
    #[inline]
    pub fn begin(&mut self, offset: Offset, at: Millis) -> u64 {
        self.unfinished += 1;
        self.push(Place::new(offset.next(), at, false))
    }

    /// Passes the record at `offset`, which is finished on arrival.
    #[inline]
    pub fn pass(&mut self, offset: Offset, at: Millis, passed: &mut Passed) {
        if self.places.is_empty() {
            self.offset = offset.next();
            passed.count(at);
        } else {
            self.push(Place::new(offset.next(), at, true));
        }
    }

    /// Skips to `end`: nothing before it needs processing.
    pub fn skip_to(&mut self, end: Offset) {
        match self.places.back_mut() {
            None => self.offset = self.offset.max(end),
            Some(place) => *place = Place::new(place.end().max(end), place.at, place.is_finished()),
        }
    }

    /// Finishes the record with this sequence number.
    #[inline]
    pub fn finish(&mut self, seq: u64, passed: &mut Passed) {
        let place =
            seq.checked_sub(self.first).and_then(|index| self.places.get_mut(usize::try_from(index).ok()?));
        let Some(place) = place else {
            debug_assert!(false, "a finished record has no place");
            return;
        };
        debug_assert!(!place.is_finished(), "a record finishes twice");
        *place = Place::new(place.end(), place.at, true);
        self.unfinished -= 1;
        while let Some(place) = self.places.front().copied().filter(|place| place.is_finished()) {
            self.places.pop_front();
            self.first += 1;
            self.offset = place.end();
            passed.count(place.at);
        }
    }

    /// Everything before this offset is finished.
    #[inline]
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Records in process, or waiting for it.
    #[inline]
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Finished records after an unfinished one: a crash repeats them.
    #[inline]
    #[must_use]
    pub fn finished(&self) -> usize {
        self.places.len() - self.unfinished
    }

    fn push(&mut self, place: Place) -> u64 {
        self.places.push_back(place);
        self.first + self.places.len() as u64 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(watermark: &mut Watermark, offset: i64) -> u64 {
        watermark.begin(Offset(offset), Millis(offset))
    }

    #[test]
    fn it_follows_the_finished_prefix() {
        let (mut watermark, mut passed) = (Watermark::new(Offset(5)), Passed::default());
        let (a, b, c) = (begin(&mut watermark, 5), begin(&mut watermark, 7), begin(&mut watermark, 8));
        watermark.finish(b, &mut passed);
        assert_eq!((watermark.offset(), watermark.unfinished(), watermark.finished()), (Offset(5), 2, 1));
        watermark.finish(a, &mut passed);
        assert_eq!((watermark.offset(), watermark.unfinished(), watermark.finished()), (Offset(8), 1, 0));
        watermark.finish(c, &mut passed);
        assert_eq!((watermark.offset(), watermark.unfinished()), (Offset(9), 0));
        assert_eq!(passed.times, [(Millis(5), 1), (Millis(7), 1), (Millis(8), 1)]);
    }

    #[test]
    fn a_record_done_on_arrival_waits_for_those_before_it() {
        let (mut watermark, mut passed) = (Watermark::new(Offset(0)), Passed::default());
        watermark.pass(Offset(0), Millis(0), &mut passed);
        assert_eq!(watermark.offset(), Offset(1));
        let running = begin(&mut watermark, 1);
        watermark.pass(Offset(2), Millis(2), &mut passed);
        assert_eq!((watermark.offset(), passed.records), (Offset(1), 1));
        watermark.finish(running, &mut passed);
        assert_eq!((watermark.offset(), passed.records), (Offset(3), 3));
    }

    #[test]
    fn the_end_of_the_log_counts_as_done_once_all_before_it_is() {
        let (mut watermark, mut passed) = (Watermark::new(Offset(0)), Passed::default());
        let running = begin(&mut watermark, 0);
        watermark.skip_to(Offset(4));
        assert_eq!(watermark.offset(), Offset(0));
        watermark.finish(running, &mut passed);
        assert_eq!(watermark.offset(), Offset(4));
        watermark.skip_to(Offset(6));
        assert_eq!(watermark.offset(), Offset(6));
    }
}
