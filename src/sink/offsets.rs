//! Tracks the held partitions, how far each is written, and which offsets to commit.
//!
//! Invariants: an offset to commit is never ahead of what the store has acknowledged, nor of a dead letter that isn't
//! durable yet. Nothing is committed for a partition that isn't held, or that was given back and assigned again since the records were taken in.

use std::collections::{BTreeMap, BTreeSet};

use genwatch_core::types::{Offset, TopicPartition};

use super::batch::{AssignmentEpoch, NextOffset};

/// The sink's only knowledge of offsets. Owned by its loop.
#[derive(Debug, Default)]
pub struct OffsetTracker {
    held: BTreeMap<TopicPartition, Held>,
    epochs: u64,
    /// The commit under way: one at a time, so that an older answer can't be taken for a newer one.
    committing: Vec<(TopicPartition, NextOffset)>,
}

#[derive(Debug)]
struct Held {
    epoch: AssignmentEpoch,
    /// Everything below was taken in since this epoch began.
    taken: Option<Offset>,
    /// Everything below is written, or makes no point; `None` until something is known.
    done: Option<Offset>,
    committed: Option<Offset>,
    /// Records whose dead letters aren't durable yet.
    owed: BTreeSet<Offset>,
    /// Whether `done` moved in this epoch: the group's starting offset needs no commit.
    moved: bool,
}

impl OffsetTracker {
    /// Adds assigned partitions.
    pub fn assigned(&mut self, places: &[TopicPartition]) {
        for place in places {
            self.epochs += 1;
            let epoch = AssignmentEpoch(self.epochs);
            let held =
                Held { epoch, taken: None, done: None, committed: None, owed: BTreeSet::new(), moved: false };
            self.held.insert(*place, held);
        }
    }

    /// Removes partitions.
    pub fn removed(&mut self, places: &[TopicPartition]) {
        for place in places {
            self.held.remove(place);
        }
    }

    /// Takes in a record. Returns its partition's current epoch; `None` if the partition isn't held.
    pub fn take_in(&mut self, place: TopicPartition, offset: Offset) -> Option<AssignmentEpoch> {
        let held = self.held.get_mut(&place)?;
        held.taken = Some(offset.next());
        Some(held.epoch)
    }

    /// Notes that a record of this epoch is done only when its dead letter is durable.
    pub fn owes(&mut self, place: TopicPartition, epoch: AssignmentEpoch, offset: Offset) {
        if let Some(held) = self.held.get_mut(&place).filter(|held| held.epoch == epoch) {
            held.owed.insert(offset);
        }
    }

    /// Notes that the dead letter of a record is durable.
    pub fn paid(&mut self, place: TopicPartition, epoch: AssignmentEpoch, offset: Offset) {
        if let Some(held) = self.held.get_mut(&place).filter(|held| held.epoch == epoch) {
            held.owed.remove(&offset);
        }
    }

    /// Returns the next record to take in, if known.
    #[must_use]
    pub fn next(&self, place: TopicPartition) -> Option<Offset> {
        self.held.get(&place).and_then(|held| held.taken.max(held.done))
    }

    /// Returns the offset below which all is written, if known.
    #[must_use]
    pub fn done(&self, place: TopicPartition) -> Option<Offset> {
        self.held.get(&place).and_then(|held| held.done)
    }

    /// Returns the held partitions.
    pub fn places(&self) -> impl Iterator<Item = TopicPartition> {
        self.held.keys().copied()
    }

    /// Returns the partitions whose offset isn't known yet.
    #[must_use]
    pub fn unknown(&self) -> Vec<TopicPartition> {
        self.held.keys().filter(|place| self.next(**place).is_none()).copied().collect()
    }

    /// Sets where reading begins: everything below was done before. Does nothing where it has already begun: records
    /// taken in aren't done.
    pub fn begins(&mut self, place: TopicPartition, at: Offset) {
        if let Some(held) = self.held.get_mut(&place).filter(|held| held.taken.is_none()) {
            held.done.get_or_insert(at);
        }
    }

    /// Resets where reading begins, whatever was known: the log has changed.
    pub fn begins_anew(&mut self, place: TopicPartition, at: Offset) {
        if self.held.contains_key(&place) {
            self.assigned(&[place]);
            self.begins(place, at);
        }
    }

    /// Notes a written batch.
    pub fn written(&mut self, until: &BTreeMap<TopicPartition, NextOffset>) {
        for (place, until) in until {
            if let Some(held) = self.held.get_mut(place).filter(|held| held.epoch == until.epoch) {
                held.advance(until.next);
            }
        }
    }

    /// Notes that the log was read up to here while no record of the partition is under way: only transaction markers
    /// are behind the written records.
    pub fn read_through(&mut self, place: TopicPartition, position: Offset) {
        if let Some(held) = self.held.get_mut(&place) {
            held.advance(position);
        }
    }

    /// Returns the offsets to commit now; none while a commit is under way. Answer with [`OffsetTracker::committed`].
    #[must_use]
    pub fn commit(&mut self) -> Vec<(TopicPartition, Offset)> {
        if !self.committing.is_empty() {
            return Vec::new();
        }
        let is_due = |held: &Held| held.moved && held.committable() != held.committed;
        for (place, held) in self.held.iter().filter(|(_, held)| is_due(held)) {
            if let Some(next) = held.committable() {
                self.committing.push((*place, NextOffset { epoch: held.epoch, next }));
            }
        }
        self.committing.iter().map(|(place, until)| (*place, until.next)).collect()
    }

    /// Takes the answer to a commit. The next commit includes refused offsets.
    pub fn committed(&mut self, success: bool) {
        for (place, until) in std::mem::take(&mut self.committing) {
            let held = self.held.get_mut(&place).filter(|held| held.epoch == until.epoch);
            if let Some(held) = held.filter(|_| success) {
                held.committed = Some(until.next);
            }
        }
    }

    /// Whether everything written is committed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.committing.is_empty()
            && self.held.values().all(|held| !held.moved || held.committable() == held.committed)
    }

    /// Whether every partition is written up to these ends.
    #[must_use]
    pub fn has_reached(&self, ends: &BTreeMap<TopicPartition, Offset>) -> bool {
        let end = |place| Some(ends.get(place).copied().unwrap_or(Offset(0)));
        self.held.iter().all(|(place, held)| held.committable() >= end(place))
    }

    /// Whether every partition is taken in up to these ends.
    #[must_use]
    pub fn has_taken_in(&self, ends: &BTreeMap<TopicPartition, Offset>) -> bool {
        self.held.keys().all(|place| self.next(*place) >= Some(ends.get(place).copied().unwrap_or(Offset(0))))
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl Held {
    /// Everything below is written, and its dead letters are durable.
    fn committable(&self) -> Option<Offset> {
        let owed = self.owed.first().copied();
        self.done.map(|done| owed.map_or(done, |owed| owed.min(done)))
    }

    fn advance(&mut self, next: Offset) {
        if self.done.is_none_or(|done| next > done) {
            self.done = Some(next);
            self.moved = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use genwatch_core::types::PartitionId;

    fn place(partition: i32) -> TopicPartition {
        TopicPartition { topic: 0, partition: PartitionId(partition) }
    }

    fn until(offsets: &OffsetTracker, partition: i32, next: i64) -> BTreeMap<TopicPartition, NextOffset> {
        let epoch = offsets.held[&place(partition)].epoch;
        BTreeMap::from([(place(partition), NextOffset { epoch, next: Offset(next) })])
    }

    #[test]
    fn only_what_is_written_is_committed_and_once() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0), place(1)]);
        assert!(offsets.commit().is_empty());
        offsets.written(&until(&offsets, 1, 5));
        assert_eq!(offsets.commit(), [(place(1), Offset(5))]);
        offsets.written(&until(&offsets, 1, 9));
        assert!(offsets.commit().is_empty(), "one commit at a time");
        assert!(!offsets.is_settled());
        offsets.committed(true);
        assert_eq!(offsets.commit(), [(place(1), Offset(9))]);
        offsets.committed(true);
        assert!(offsets.commit().is_empty() && offsets.is_settled());
    }

    #[test]
    fn a_commit_that_failed_is_repeated() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0)]);
        offsets.written(&until(&offsets, 0, 5));
        let first = offsets.commit();
        offsets.committed(false);
        assert_eq!(offsets.commit(), first);
    }

    #[test]
    fn an_acknowledgement_after_the_partition_has_gone_commits_nothing() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0)]);
        let late = until(&offsets, 0, 5);
        offsets.removed(&[place(0)]);
        offsets.written(&late);
        assert!(offsets.commit().is_empty());
        offsets.assigned(&[place(0)]);
        offsets.written(&late);
        assert!(offsets.commit().is_empty(), "assigned again: another sink may have read on");
    }

    #[test]
    fn a_commit_of_an_earlier_tenure_settles_nothing_of_this_one() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0)]);
        offsets.written(&until(&offsets, 0, 5));
        let _ = offsets.commit();
        offsets.removed(&[place(0)]);
        offsets.assigned(&[place(0)]);
        offsets.written(&until(&offsets, 0, 5));
        offsets.committed(true);
        assert_eq!(offsets.commit(), [(place(0), Offset(5))]);
    }

    #[test]
    fn where_reading_begins_is_known_without_a_commit() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0)]);
        let ends = BTreeMap::from([(place(0), Offset(8))]);
        assert_eq!(offsets.unknown(), [place(0)]);
        assert!(!offsets.has_reached(&ends));
        offsets.begins(place(0), Offset(8));
        assert!(offsets.has_reached(&ends) && offsets.unknown().is_empty());
        assert!(offsets.commit().is_empty());
        offsets.read_through(place(0), Offset(9));
        assert_eq!(offsets.commit(), [(place(0), Offset(9))], "transaction markers are no lag");
    }

    #[test]
    fn what_is_taken_in_is_not_written_yet() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0)]);
        let ends = BTreeMap::from([(place(0), Offset(8))]);
        assert_eq!(offsets.take_in(place(1), Offset(0)), None);
        assert_eq!(offsets.next(place(0)), None);
        assert!(offsets.take_in(place(0), Offset(7)).is_some());
        assert_eq!(offsets.next(place(0)), Some(Offset(8)));
        assert!(offsets.has_taken_in(&ends) && !offsets.has_reached(&ends));
        assert!(offsets.commit().is_empty());
    }

    #[test]
    fn a_beginning_that_is_told_late_makes_nothing_done_that_is_on_its_way() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0)]);
        let _ = offsets.take_in(place(0), Offset(7));
        offsets.begins(place(0), Offset(8));
        assert!(!offsets.has_reached(&BTreeMap::from([(place(0), Offset(8))])));
        offsets.written(&until(&offsets, 0, 8));
        assert_eq!(offsets.commit(), [(place(0), Offset(8))]);
    }

    #[test]
    fn a_log_that_begins_anew_is_committed_from_there_and_what_was_under_way_is_not() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0)]);
        offsets.begins(place(0), Offset(100));
        let before = until(&offsets, 0, 110);
        offsets.begins_anew(place(0), Offset(20));
        offsets.written(&before);
        assert_eq!(offsets.next(place(0)), Some(Offset(20)));
        assert!(offsets.commit().is_empty());
        offsets.written(&until(&offsets, 0, 30));
        assert_eq!(offsets.commit(), [(place(0), Offset(30))]);
        offsets.begins_anew(place(1), Offset(20));
        assert_eq!(offsets.next(place(1)), None, "it isn't held");
    }

    #[test]
    fn an_offset_waits_for_the_dead_letters_below_it() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0)]);
        let epoch = offsets.take_in(place(0), Offset(5)).expect("held");
        offsets.owes(place(0), epoch, Offset(7));
        offsets.owes(place(0), epoch, Offset(8));
        offsets.written(&until(&offsets, 0, 10));
        assert_eq!(offsets.commit(), [(place(0), Offset(7))]);
        offsets.committed(true);
        assert!(offsets.commit().is_empty());
        let ends = BTreeMap::from([(place(0), Offset(10))]);
        assert!(offsets.is_settled() && !offsets.has_reached(&ends));
        offsets.paid(place(0), epoch, Offset(8));
        assert!(offsets.commit().is_empty(), "the first one is still under way");
        offsets.paid(place(0), epoch, Offset(7));
        assert_eq!(offsets.commit(), [(place(0), Offset(10))]);
        assert!(offsets.has_reached(&ends));
    }

    #[test]
    fn no_offset_ever_goes_back() {
        let mut offsets = OffsetTracker::default();
        offsets.assigned(&[place(0)]);
        offsets.written(&until(&offsets, 0, 9));
        offsets.read_through(place(0), Offset(5));
        assert_eq!(offsets.commit(), [(place(0), Offset(9))]);
    }
}
