//! The reorder buffer of one partition: what was taken in, finished or not, in the order of the log.

use std::collections::VecDeque;

use crate::effect::Effect;
use crate::log::{Millis, Offset};

/// Runs of timestamps kept between two commits; what is beyond counts with the last run, so that an outage costs no
/// memory.
pub(super) const MAX_TIME_RUNS: usize = 16_384;

/// Holds each record's place until it and all before it are finished.
#[derive(Debug)]
pub struct ReorderBuffer {
    places: VecDeque<Place>,
    /// The sequence number of the front place.
    first: u64,
    /// Everything before this offset has retired.
    position: Offset,
    bytes: usize,
}

#[derive(Debug)]
struct Place {
    /// The offset to commit when this record has retired.
    end: Offset,
    /// The record's timestamp; `None` where the place stands for no record.
    at: Option<Millis>,
    bytes: usize,
    /// `None` until finished.
    effects: Option<Vec<Effect>>,
}

/// What has retired and not yet been taken for a commit.
#[derive(Debug, Default)]
pub struct Retired {
    /// The effects, in the order of the log.
    pub effects: Vec<Effect>,
    /// Their bytes.
    pub bytes: usize,
    /// How many records.
    pub records: u64,
    /// Record timestamps with how many records bear them.
    pub times: Vec<(Millis, u32)>,
}

impl Retired {
    /// Adds effects.
    pub fn add(&mut self, effects: Vec<Effect>) {
        self.bytes += effects.iter().map(Effect::bytes).sum::<usize>();
        self.effects.extend(effects);
    }

    /// Counts one record's timestamp.
    pub fn count(&mut self, at: Millis) {
        self.records += 1;
        let full = self.times.len() >= MAX_TIME_RUNS;
        match self.times.last_mut() {
            Some((last, n)) if *last == at || full => *n = n.saturating_add(1),
            _ => self.times.push((at, 1)),
        }
    }
}

impl ReorderBuffer {
    /// An empty buffer; the next record to retire is the one at `position`.
    #[must_use]
    pub fn new(position: Offset) -> ReorderBuffer {
        ReorderBuffer { places: VecDeque::new(), first: 0, position, bytes: 0 }
    }

    /// Takes a place for the record at `offset`; gives its sequence number.
    pub fn push(&mut self, offset: Offset, at: Millis, bytes: usize) -> u64 {
        self.bytes += bytes;
        self.places.push_back(Place { end: offset.next(), at: Some(at), bytes, effects: None });
        self.first + self.places.len() as u64 - 1
    }

    /// The record at `offset` is finished as it arrives: retires at once if nothing is before it.
    pub fn pass(&mut self, offset: Offset, at: Millis, effects: Vec<Effect>, retired: &mut Retired) {
        if self.places.is_empty() {
            self.position = offset.next();
            retired.add(effects);
            retired.count(at);
        } else {
            let seq = self.push(offset, at, 0);
            self.finish(seq, effects, retired);
        }
    }

    /// A place that stands for no record, only for effects that belong behind all that was taken in before.
    pub fn append(&mut self, effects: Vec<Effect>, retired: &mut Retired) {
        match self.places.back().map(|place| place.end) {
            None => retired.add(effects),
            Some(end) => {
                let bytes = effects.iter().map(Effect::bytes).sum();
                self.bytes += bytes;
                self.places.push_back(Place { end, at: None, bytes, effects: Some(effects) });
            }
        }
    }

    /// Nothing is to be worked before `end`.
    pub fn skip_to(&mut self, end: Offset) {
        match self.places.back_mut() {
            None => self.position = self.position.max(end),
            Some(place) => place.end = place.end.max(end),
        }
    }

    /// The record with this sequence number is finished; retires the finished prefix.
    pub fn finish(&mut self, seq: u64, effects: Vec<Effect>, retired: &mut Retired) {
        let place =
            seq.checked_sub(self.first).and_then(|index| self.places.get_mut(usize::try_from(index).ok()?));
        let Some(place) = place else {
            debug_assert!(false, "a record finished that has no place");
            return;
        };
        debug_assert!(place.effects.is_none(), "a record finished twice");
        // Held from now on, however long the records before this one take.
        let bytes = effects.iter().map(Effect::bytes).sum::<usize>();
        place.bytes += bytes;
        self.bytes += bytes;
        place.effects = Some(effects);
        self.retire(retired);
    }

    fn retire(&mut self, retired: &mut Retired) {
        while self.places.front().is_some_and(|place| place.effects.is_some()) {
            let Some(place) = self.places.pop_front() else {
                return;
            };
            self.first += 1;
            self.position = place.end;
            self.bytes -= place.bytes;
            retired.add(place.effects.unwrap_or_default());
            if let Some(at) = place.at {
                retired.count(at);
            }
        }
    }

    /// Everything before this offset has retired.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Records held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of the records held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(buffer: &mut ReorderBuffer, offset: i64) -> u64 {
        buffer.push(Offset(offset), Millis(offset), 10)
    }

    #[test]
    fn only_the_finished_prefix_retires() {
        let (mut buffer, mut retired) = (ReorderBuffer::new(Offset(5)), Retired::default());
        let (a, b, c) = (take(&mut buffer, 5), take(&mut buffer, 7), take(&mut buffer, 8));
        buffer.finish(b, vec![], &mut retired);
        assert_eq!((buffer.position(), buffer.len()), (Offset(5), 3));
        buffer.finish(a, vec![], &mut retired);
        assert_eq!((buffer.position(), buffer.len()), (Offset(8), 1));
        buffer.finish(c, vec![], &mut retired);
        assert_eq!((buffer.position(), buffer.bytes()), (Offset(9), 0));
        assert_eq!(retired.times, [(Millis(5), 1), (Millis(7), 1), (Millis(8), 1)]);
    }

    #[test]
    fn a_record_done_on_arrival_waits_for_those_before_it() {
        let (mut buffer, mut retired) = (ReorderBuffer::new(Offset(0)), Retired::default());
        buffer.pass(Offset(0), Millis(0), vec![], &mut retired);
        assert_eq!(buffer.position(), Offset(1));
        let running = take(&mut buffer, 1);
        buffer.pass(Offset(2), Millis(2), vec![], &mut retired);
        assert_eq!(buffer.position(), Offset(1));
        buffer.finish(running, vec![], &mut retired);
        assert_eq!(buffer.position(), Offset(3));
    }

    #[test]
    fn effects_count_from_the_moment_they_are_held() {
        let (mut buffer, mut retired) = (ReorderBuffer::new(Offset(0)), Retired::default());
        let (slow, quick) = (take(&mut buffer, 0), take(&mut buffer, 1));
        let effects = vec![Effect::State(crate::effect::StateChange {
            generator: crate::log::GeneratorId::from("g"),
            partition: crate::log::PartitionId(0),
            json: None,
            offset: Offset(1),
        })];
        let bytes = effects[0].bytes();
        buffer.finish(quick, effects, &mut retired);
        assert_eq!((buffer.bytes(), retired.bytes), (20 + bytes, 0));
        buffer.finish(slow, vec![], &mut retired);
        assert_eq!((buffer.bytes(), retired.bytes), (0, bytes));
    }

    #[test]
    fn the_end_of_the_log_counts_as_done_once_all_before_it_is() {
        let (mut buffer, mut retired) = (ReorderBuffer::new(Offset(0)), Retired::default());
        let running = take(&mut buffer, 0);
        buffer.skip_to(Offset(4));
        assert_eq!(buffer.position(), Offset(0));
        buffer.finish(running, vec![], &mut retired);
        assert_eq!(buffer.position(), Offset(4));
        buffer.skip_to(Offset(6));
        assert_eq!(buffer.position(), Offset(6));
    }
}
