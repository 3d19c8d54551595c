//! Which partitions are held, how far each is written, and what of that is to be committed.
//!
//! Invariants: what is to be committed is never ahead of what InfluxDB has acknowledged; of a partition that isn't held, or
//! was given back and taken again since the records were taken in, nothing is.

use std::collections::BTreeMap;

use super::batch::{Tenure, Until};
use crate::log::{Offset, Place};

/// The sink's only knowledge of offsets. Owned by its loop.
#[derive(Debug, Default)]
pub struct Ledger {
    held: BTreeMap<Place, Held>,
    tenures: u64,
    /// Asked for and not answered yet: one at a time, so that an older answer can't be taken for a newer one's.
    committing: Vec<(Place, Until)>,
}

#[derive(Debug)]
struct Held {
    tenure: Tenure,
    /// Everything below is written, or makes no point; `None` until something is known.
    done: Option<Offset>,
    committed: Option<Offset>,
    /// Whether `done` stems from this tenure: where the group has begun needs no commit.
    moved: bool,
}

impl Ledger {
    /// Partitions have come.
    pub fn assigned(&mut self, places: &[Place]) {
        for place in places {
            self.tenures += 1;
            let tenure = Tenure(self.tenures);
            self.held.insert(*place, Held { tenure, done: None, committed: None, moved: false });
        }
    }

    /// Partitions have gone.
    pub fn removed(&mut self, places: &[Place]) {
        for place in places {
            self.held.remove(place);
        }
    }

    /// The present tenure of a partition; `None` if it isn't held.
    #[must_use]
    pub fn tenure(&self, place: Place) -> Option<Tenure> {
        self.held.get(&place).map(|held| held.tenure)
    }

    /// What is held.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.held.keys().copied()
    }

    /// Partitions of which nothing is known yet.
    #[must_use]
    pub fn unknown(&self) -> Vec<Place> {
        self.held.iter().filter(|(_, held)| held.done.is_none()).map(|(place, _)| *place).collect()
    }

    /// Reading begins here: everything below was done before.
    pub fn begins(&mut self, place: Place, at: Offset) {
        if let Some(held) = self.held.get_mut(&place) {
            held.done.get_or_insert(at);
        }
    }

    /// A batch is written.
    pub fn written(&mut self, until: &BTreeMap<Place, Until>) {
        for (place, until) in until {
            if let Some(held) = self.held.get_mut(place).filter(|held| held.tenure == until.tenure) {
                held.advance(until.next);
            }
        }
    }

    /// The log was read up to here, and nothing of the partition is on its way: there are only markers of transactions
    /// behind what is written.
    pub fn read_through(&mut self, place: Place, position: Offset) {
        if let Some(held) = self.held.get_mut(&place) {
            held.advance(position);
        }
    }

    /// What is to be committed now; empty while a commit is under way. To be answered by [`Ledger::committed`].
    #[must_use]
    pub fn commit(&mut self) -> Vec<(Place, Offset)> {
        if !self.committing.is_empty() {
            return Vec::new();
        }
        for (place, held) in self.held.iter().filter(|(_, held)| held.moved && held.done != held.committed) {
            if let Some(next) = held.done {
                self.committing.push((*place, Until { tenure: held.tenure, next }));
            }
        }
        self.committing.iter().map(|(place, until)| (*place, until.next)).collect()
    }

    /// The answer to a commit. What was refused is part of the next one.
    pub fn committed(&mut self, success: bool) {
        for (place, until) in std::mem::take(&mut self.committing) {
            let held = self.held.get_mut(&place).filter(|held| held.tenure == until.tenure);
            if let Some(held) = held.filter(|_| success) {
                held.committed = Some(until.next);
            }
        }
    }

    /// Whether everything written is committed.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.committing.is_empty()
            && self.held.values().all(|held| !held.moved || held.done == held.committed)
    }

    /// Whether every partition is written up to these ends.
    #[must_use]
    pub fn has_reached(&self, ends: &BTreeMap<Place, Offset>) -> bool {
        self.held.iter().all(|(place, held)| held.done >= Some(ends.get(place).copied().unwrap_or(Offset(0))))
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl Held {
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
    use crate::log::PartitionId;

    fn place(partition: i32) -> Place {
        Place { topic: 0, partition: PartitionId(partition) }
    }

    fn until(ledger: &Ledger, partition: i32, next: i64) -> BTreeMap<Place, Until> {
        let tenure = ledger.tenure(place(partition)).expect("held");
        BTreeMap::from([(place(partition), Until { tenure, next: Offset(next) })])
    }

    #[test]
    fn only_what_is_written_is_committed_and_once() {
        let mut ledger = Ledger::default();
        ledger.assigned(&[place(0), place(1)]);
        assert!(ledger.commit().is_empty());
        ledger.written(&until(&ledger, 1, 5));
        assert_eq!(ledger.commit(), [(place(1), Offset(5))]);
        ledger.written(&until(&ledger, 1, 9));
        assert!(ledger.commit().is_empty(), "one commit at a time");
        assert!(!ledger.is_settled());
        ledger.committed(true);
        assert_eq!(ledger.commit(), [(place(1), Offset(9))]);
        ledger.committed(true);
        assert!(ledger.commit().is_empty() && ledger.is_settled());
    }

    #[test]
    fn a_commit_that_failed_is_repeated() {
        let mut ledger = Ledger::default();
        ledger.assigned(&[place(0)]);
        ledger.written(&until(&ledger, 0, 5));
        let first = ledger.commit();
        ledger.committed(false);
        assert_eq!(ledger.commit(), first);
    }

    #[test]
    fn an_acknowledgement_after_the_partition_has_gone_commits_nothing() {
        let mut ledger = Ledger::default();
        ledger.assigned(&[place(0)]);
        let late = until(&ledger, 0, 5);
        ledger.removed(&[place(0)]);
        ledger.written(&late);
        assert!(ledger.commit().is_empty());
        ledger.assigned(&[place(0)]);
        ledger.written(&late);
        assert!(ledger.commit().is_empty(), "it came again, and another may have gone on meanwhile");
    }

    #[test]
    fn a_commit_of_an_earlier_tenure_settles_nothing_of_this_one() {
        let mut ledger = Ledger::default();
        ledger.assigned(&[place(0)]);
        ledger.written(&until(&ledger, 0, 5));
        let _ = ledger.commit();
        ledger.removed(&[place(0)]);
        ledger.assigned(&[place(0)]);
        ledger.written(&until(&ledger, 0, 5));
        ledger.committed(true);
        assert_eq!(ledger.commit(), [(place(0), Offset(5))]);
    }

    #[test]
    fn where_reading_begins_is_known_without_a_commit() {
        let mut ledger = Ledger::default();
        ledger.assigned(&[place(0)]);
        let ends = BTreeMap::from([(place(0), Offset(8))]);
        assert_eq!(ledger.unknown(), [place(0)]);
        assert!(!ledger.has_reached(&ends));
        ledger.begins(place(0), Offset(8));
        assert!(ledger.has_reached(&ends) && ledger.unknown().is_empty());
        assert!(ledger.commit().is_empty());
        ledger.read_through(place(0), Offset(9));
        assert_eq!(ledger.commit(), [(place(0), Offset(9))], "markers of transactions are no lag");
    }

    #[test]
    fn no_offset_ever_goes_back() {
        let mut ledger = Ledger::default();
        ledger.assigned(&[place(0)]);
        ledger.written(&until(&ledger, 0, 9));
        ledger.read_through(place(0), Offset(5));
        assert_eq!(ledger.commit(), [(place(0), Offset(9))]);
    }
}
