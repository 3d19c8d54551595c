//! The watermark of one partition: the offset below which every record is finished. It is what a commit commits.
//!
//! Records finish in any order; each has a place until it and all before it are finished. A place holds nothing of the
//! record but its end and its timestamp: effects leave by the outbox as soon as they are there.

use std::collections::VecDeque;

use crate::types::{Millis, Offset};

/// Runs of timestamps kept between two commits; what is beyond counts with the last run, so that an outage costs no
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

/// One record's place: small, as a slow record may have a million finished ones behind it.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Twice the offset behind the record, plus one if it is finished.
    end_and_finished: u64,
    /// The record's timestamp.
    at: Millis,
}

const _: () = assert!(size_of::<Place>() == 16);

impl Place {
    fn new(end: Offset, at: Millis, finished: bool) -> Place {
        Place { end_and_finished: (end.0.cast_unsigned() << 1) | u64::from(finished), at }
    }

    fn end(self) -> Offset {
        Offset((self.end_and_finished >> 1).cast_signed())
    }

    fn is_finished(self) -> bool {
        self.end_and_finished & 1 == 1
    }
}

/// Records that the watermark has passed and no commit has covered yet, for the metrics.
#[derive(Debug, Default)]
pub struct Passed {
    /// How many.
    pub records: u64,
    /// Their timestamps, with how many bear each.
    pub times: Vec<(Millis, u32)>,
}

impl Passed {
    /// Counts one record's timestamp.
    pub fn count(&mut self, at: Millis) {
        self.records += 1;
        let full = self.times.len() >= MAX_TIME_RUNS;
        match self.times.last_mut() {
            Some((last, n)) if *last == at || full => *n = n.saturating_add(1),
            _ => self.times.push((at, 1)),
        }
    }

    /// Adds what has passed since.
    pub fn add(&mut self, other: Passed) {
        self.records += other.records;
        if self.times.len() < MAX_TIME_RUNS {
            self.times.extend(other.times);
        }
    }
}

impl Watermark {
    /// All before `offset` is finished, nothing else is known.
    #[must_use]
    pub fn new(offset: Offset) -> Watermark {
        Watermark { places: VecDeque::new(), first: 0, offset, unfinished: 0 }
    }

    /// The record at `offset` is to be worked; gives its sequence number.
    pub fn begin(&mut self, offset: Offset, at: Millis) -> u64 {
        self.unfinished += 1;
        self.push(Place::new(offset.next(), at, false))
    }

    /// The record at `offset` is finished as it arrives.
    #[inline]
    pub fn pass(&mut self, offset: Offset, at: Millis, passed: &mut Passed) {
        if self.places.is_empty() {
            self.offset = offset.next();
            passed.count(at);
        } else {
            self.push(Place::new(offset.next(), at, true));
        }
    }

    /// Nothing is to be worked before `end`.
    pub fn skip_to(&mut self, end: Offset) {
        match self.places.back_mut() {
            None => self.offset = self.offset.max(end),
            Some(place) => *place = Place::new(place.end().max(end), place.at, place.is_finished()),
        }
    }

    /// The record with this sequence number is finished.
    pub fn finish(&mut self, seq: u64, passed: &mut Passed) {
        let place =
            seq.checked_sub(self.first).and_then(|index| self.places.get_mut(usize::try_from(index).ok()?));
        let Some(place) = place else {
            debug_assert!(false, "a record finished that has no place");
            return;
        };
        debug_assert!(!place.is_finished(), "a record finished twice");
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
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Records that are being worked, or wait for it.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Finished records behind an unfinished one: what a crash repeats.
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
