//! The outbox of one partition: effects on their way into a commit.
//!
//! Effects come in *groups*: all that one reading, one silence or one decommissioning calls for. A group ends with the
//! state record of its generator, and that record names the reading. So a group may become durable ahead of the committed
//! offset: who evaluates the reading again after a crash finds it covered by the state, and skips it. Groups are kept in
//! the order in which they were finished, which is the order of the log for each generator; none is ever split.
//!
//! Two things wait for the offset. *Dead letters*, as no state tells that they were written. And the *deletion* of a
//! decommissioned generator's state: were it gone while the offset is below the decommissioning, earlier readings of the
//! generator would be evaluated again after a crash. Until then a farewell stands in its place, which names the reading as
//! any state does. It is deleted by a commit that comes after the one whose offset passed it, whatever the delivery.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::alarm::state::StoredState;
use crate::effect::{DeadLetter, Effect, StateChange};
use crate::log::{GeneratorId, Offset, PartitionId};

/// Holds effects until a commit of them is durable.
#[derive(Debug)]
pub struct Outbox {
    partition: PartitionId,
    /// Groups that no commit holds yet, one behind the other.
    open: Vec<Effect>,
    /// What some commit has held and isn't durable yet, oldest first. Always a prefix of what is to come.
    sealed: Vec<Arc<Vec<Effect>>>,
    /// Dead letters that no commit holds yet, by offset.
    letters: VecDeque<Box<DeadLetter>>,
    /// Of all this.
    bytes: usize,
    open_bytes: usize,
    sealed_bytes: usize,
    farewells: Farewells,
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new(partition: PartitionId) -> Outbox {
        Outbox {
            partition,
            open: Vec::new(),
            sealed: Vec::new(),
            letters: VecDeque::new(),
            bytes: 0,
            open_bytes: 0,
            sealed_bytes: 0,
            farewells: Farewells::default(),
        }
    }

    /// Takes whole groups, which `make` appends.
    #[inline]
    pub fn publish<R>(&mut self, make: impl FnOnce(&mut Vec<Effect>) -> R) -> R {
        let before = self.open.len();
        let result = make(&mut self.open);
        if self.open.len() > before {
            self.take_over(before);
        }
        result
    }

    /// A bad record's dead letter; those of one partition come in the order of the log.
    pub fn post(&mut self, letter: DeadLetter) {
        let letter = Effect::DeadLetter(Box::new(letter));
        self.bytes += letter.bytes();
        if let Effect::DeadLetter(letter) = letter {
            self.letters.push_back(letter);
        }
    }

    /// A farewell that an earlier owner has left, to be deleted by us. Whether readings that it covers are still to come,
    /// as the partition is worked from `start` on.
    pub fn restore_farewell(&mut self, generator: &GeneratorId, offset: Offset, start: Offset) -> bool {
        if offset < start {
            self.delete(generator.clone(), offset);
            return false;
        }
        self.farewells.add(generator.clone(), offset);
        true
    }

    /// Whether a commit with this offset would hold effects.
    #[must_use]
    pub fn is_ready(&self, offset: Offset) -> bool {
        !self.open.is_empty() || !self.sealed.is_empty() || self.has_letter_below(offset)
    }

    /// The effects for a commit with this offset: all groups there are, and the dead letters below it.
    pub fn seal(&mut self, offset: Offset) -> Vec<Arc<Vec<Effect>>> {
        while self.has_letter_below(offset) {
            let letter = self.letters.pop_front().map(Effect::DeadLetter);
            self.open_bytes += letter.as_ref().map_or(0, Effect::bytes);
            self.open.extend(letter);
        }
        self.sealed_bytes += std::mem::take(&mut self.open_bytes);
        if !self.open.is_empty() {
            self.sealed.push(Arc::new(std::mem::take(&mut self.open)));
        }
        self.sealed.clone()
    }

    /// What the last commit held is durable, and so is its offset.
    pub fn acknowledge(&mut self, offset: Offset) -> Vec<Arc<Vec<Effect>>> {
        let done = std::mem::take(&mut self.sealed);
        self.bytes -= std::mem::take(&mut self.sealed_bytes);
        while let Some((generator, offset)) = self.farewells.take_below(offset) {
            self.delete(generator, offset);
        }
        done
    }

    /// Bytes of all effects held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn has_letter_below(&self, offset: Offset) -> bool {
        self.letters.front().is_some_and(|letter| letter.offset < offset)
    }

    fn take_over(&mut self, before: usize) {
        debug_assert!(
            self.open.last().is_some_and(|last| last.as_state().is_some()),
            "a group without a state"
        );
        for effect in &mut self.open[before..] {
            if let Effect::State(change) = effect {
                if change.json.is_none() {
                    let farewell = StoredState::farewell(&change.generator, change.offset);
                    change.json = Some(farewell.to_json());
                    self.farewells.add(change.generator.clone(), change.offset);
                } else {
                    self.farewells.cancel(&change.generator);
                }
            }
            let bytes = effect.bytes();
            self.bytes += bytes;
            self.open_bytes += bytes;
        }
    }

    fn delete(&mut self, generator: GeneratorId, offset: Offset) {
        let deletion =
            Effect::State(StateChange { generator, partition: self.partition, json: None, offset });
        self.bytes += deletion.bytes();
        self.open_bytes += deletion.bytes();
        self.open.push(deletion);
    }
}

/// Farewells that are to be deleted when the committed offset has passed them.
#[derive(Debug, Default)]
struct Farewells {
    by_offset: BTreeMap<Offset, GeneratorId>,
    by_generator: HashMap<GeneratorId, Offset, foldhash::fast::RandomState>,
}

impl Farewells {
    fn add(&mut self, generator: GeneratorId, offset: Offset) {
        self.cancel(&generator);
        self.by_offset.insert(offset, generator.clone());
        self.by_generator.insert(generator, offset);
    }

    /// The generator has come back: its new state stands in the farewell's place.
    fn cancel(&mut self, generator: &GeneratorId) {
        // Nearly always: it isn't even worth a hash.
        if self.by_generator.is_empty() {
            return;
        }
        if let Some(offset) = self.by_generator.remove(generator) {
            self.by_offset.remove(&offset);
        }
    }

    fn take_below(&mut self, offset: Offset) -> Option<(GeneratorId, Offset)> {
        let first = self.by_offset.first_entry().filter(|first| *first.key() < offset)?;
        let (at, generator) = first.remove_entry();
        self.by_generator.remove(&generator);
        Some((generator, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(generator: &str, offset: i64, json: Option<&str>) -> Effect {
        Effect::State(StateChange {
            generator: GeneratorId::from(generator),
            partition: PartitionId(0),
            json: json.map(|text| text.as_bytes().to_vec()),
            offset: Offset(offset),
        })
    }

    fn publish(outbox: &mut Outbox, effect: Effect) {
        outbox.publish(|effects| effects.push(effect));
    }

    /// Generator and offset of each state record, and what it is.
    fn states(chunks: &[Arc<Vec<Effect>>]) -> Vec<(String, i64, &'static str)> {
        let told = |change: &StateChange| {
            let kind = match &change.json {
                None => "deleted",
                Some(json) if json.ends_with(b"\"decommissioned\":true}") => "farewell",
                Some(_) => "state",
            };
            (change.generator.to_string(), change.offset.0, kind)
        };
        chunks.iter().flat_map(|chunk| chunk.iter()).filter_map(Effect::as_state).map(told).collect()
    }

    fn known(generator: &str, offset: i64, kind: &'static str) -> (String, i64, &'static str) {
        (generator.to_owned(), offset, kind)
    }

    #[test]
    fn what_was_refused_stays_in_front_and_only_what_was_held_is_done() {
        let mut outbox = Outbox::new(PartitionId(0));
        publish(&mut outbox, change("g", 1, Some("{}")));
        outbox.seal(Offset(0));
        publish(&mut outbox, change("g", 2, Some("{}")));
        let both = outbox.seal(Offset(0));
        assert_eq!(states(&both), [known("g", 1, "state"), known("g", 2, "state")]);
        publish(&mut outbox, change("g", 3, Some("{}")));
        assert_eq!(states(&outbox.acknowledge(Offset(0))).len(), 2);
        assert_eq!(states(&outbox.seal(Offset(0))), [known("g", 3, "state")]);
        outbox.acknowledge(Offset(0));
        assert_eq!((outbox.bytes(), outbox.is_ready(Offset(9))), (0, false));
    }

    #[test]
    fn a_state_is_deleted_when_the_committed_offset_has_passed_the_decommissioning() {
        let mut outbox = Outbox::new(PartitionId(0));
        publish(&mut outbox, change("g", 5, None));
        assert_eq!(states(&outbox.seal(Offset(3))), [known("g", 5, "farewell")]);
        outbox.acknowledge(Offset(3));
        assert!(!outbox.is_ready(Offset(9)), "the offset hasn't passed it");
        outbox.seal(Offset(6));
        outbox.acknowledge(Offset(6));
        assert_eq!(states(&outbox.seal(Offset(6))), [known("g", 5, "deleted")]);
        outbox.acknowledge(Offset(6));
        assert!(!outbox.is_ready(Offset(9)));
    }

    #[test]
    fn a_generator_that_has_come_back_keeps_its_state() {
        let mut outbox = Outbox::new(PartitionId(0));
        publish(&mut outbox, change("g", 5, None));
        publish(&mut outbox, change("g", 8, Some("{}")));
        outbox.seal(Offset(9));
        outbox.acknowledge(Offset(9));
        assert!(!outbox.is_ready(Offset(9)));
    }

    #[test]
    fn a_farewell_that_was_left_behind_is_deleted_by_the_next_owner() {
        let mut outbox = Outbox::new(PartitionId(0));
        assert!(!outbox.restore_farewell(&GeneratorId::from("old"), Offset(4), Offset(5)));
        assert!(outbox.restore_farewell(&GeneratorId::from("ahead"), Offset(5), Offset(5)));
        assert_eq!(states(&outbox.seal(Offset(6))), [known("old", 4, "deleted")]);
        outbox.acknowledge(Offset(6));
        assert_eq!(states(&outbox.seal(Offset(6))), [known("ahead", 5, "deleted")]);
    }
}
