//! The outbox of one partition: effects on their way into a commit.
//!
//! Effects come in *groups*: all effects of one reading, one silence or one decommissioning. A group ends with its
//! generator's state record, which names the reading. So a group may become durable ahead of the committed offset:
//! after a crash the next owner finds the reading covered by the state, and skips it. Groups keep the order in which
//! they were finished, which for each generator is the order of the log; none is ever split.
//!
//! Two things wait for the offset. *Dead letters*, because no state shows that they were written. And the *deletion*
//! of a decommissioned generator's state: without that state, a crash before the offset has passed the
//! decommissioning would repeat earlier readings of the generator. Until then a decommissioned state replaces it,
//! which names the reading as any state does. A commit after the one whose offset passed it deletes it, under either
//! delivery.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::alarm::event::AlertEvent;
use crate::handler::effect::{DeadLetter, Effect, Output, StateChange};
use crate::handler::{Stored, StoredState};
use crate::types::{GeneratorId, Offset, PartitionId};

/// Holds effects until a commit of them is durable.
#[derive(Debug)]
pub struct Outbox<O = Box<AlertEvent>> {
    partition: PartitionId,
    /// Groups that no commit holds, in order.
    open: Vec<Effect<O>>,
    /// The effects in the commit under way.
    sealed: Option<Arc<Vec<Effect<O>>>>,
    /// Effects that are durable, but whose commit's offset was refused.
    published: Vec<Arc<Vec<Effect<O>>>>,
    /// Dead letters that no commit holds, by offset.
    letters: VecDeque<(Offset, Effect<O>)>,
    /// The size of all effects that aren't durable.
    bytes: usize,
    open_bytes: usize,
    sealed_bytes: usize,
    decommissioned: DecommissionedStates,
}

/// A partition's effects and offset for a commit.
#[derive(Debug)]
pub struct Sealed<O = Box<AlertEvent>> {
    /// The offset to commit with them.
    pub offset: Offset,
    /// Whole groups and dead letters.
    pub effects: Arc<Vec<Effect<O>>>,
}

impl<O: Output> Outbox<O> {
    /// An empty outbox.
    #[must_use]
    pub fn new(partition: PartitionId) -> Outbox<O> {
        Outbox {
            partition,
            open: Vec::new(),
            sealed: None,
            published: Vec::new(),
            letters: VecDeque::new(),
            bytes: 0,
            open_bytes: 0,
            sealed_bytes: 0,
            decommissioned: DecommissionedStates::default(),
        }
    }

    /// Takes the whole groups that `make` appends.
    #[inline]
    pub fn publish<R>(&mut self, make: impl FnOnce(&mut Vec<Effect<O>>) -> R) -> R {
        let before = self.open.len();
        let result = make(&mut self.open);
        if self.open.len() > before {
            self.take_over(before);
        }
        result
    }

    /// Takes a bad record's dead letter; those of one partition come in the order of the log.
    pub fn post(&mut self, letter: DeadLetter) {
        let offset = letter.offset;
        let letter = Effect::DeadLetter(Box::new(letter));
        self.bytes += letter.bytes();
        self.letters.push_back((offset, letter));
    }

    /// Takes states to write again, or to delete (`None`), before an offset after `start` is committed. They precede
    /// all that is published. Until all of them are out the offset stays at `start`, so that the next owner finds the
    /// rest.
    pub fn renew<B: Stored>(&mut self, states: Vec<(GeneratorId, Option<StoredState<B>>)>, start: Offset) {
        debug_assert!(self.open.is_empty(), "something was published before");
        for (generator, state) in states {
            self.push(generator, state.map(|state| state.to_json()), start);
        }
    }

    /// Takes a decommissioned state of an earlier owner, to be deleted by us. Returns whether readings that it covers
    /// may still come, given that the partition is processed from `start` on.
    pub fn restore_decommissioned(&mut self, generator: &GeneratorId, offset: Offset, start: Offset) -> bool {
        if offset < start {
            self.push(generator.clone(), None, offset);
            return false;
        }
        self.decommissioned.add(generator.clone(), offset);
        true
    }

    /// Whether a commit with this offset would have anything new.
    #[must_use]
    pub fn is_ready(&self, offset: Offset) -> bool {
        !self.open.is_empty()
            || self.sealed.is_some()
            || !self.published.is_empty()
            || self.has_letter_below(offset)
    }

    /// Takes the effects for a commit: the oldest groups, and the dead letters below its offset; as many as fit into
    /// `budget` bytes, but at least one. The offset is at most `watermark`, and below all that stays behind, so that
    /// the next owner makes that again; it's never below `committed`.
    pub fn seal(&mut self, watermark: Offset, committed: Offset, budget: usize) -> Sealed<O> {
        let (mut effects, mut bytes) = self.take_groups(budget);
        let left = self.open.iter().filter_map(Effect::as_state).map(|change| change.from).min();
        let mut offset = left.map_or(watermark, |left| left.min(watermark)).max(committed);
        while let Some((at, letter)) = self.letters.front().filter(|(at, _)| *at < offset) {
            if !effects.is_empty() && bytes + letter.bytes() > budget {
                offset = (*at).max(committed);
                break;
            }
            bytes += letter.bytes();
            effects.extend(self.letters.pop_front().map(|(_, letter)| letter));
        }
        self.sealed_bytes = bytes;
        let effects = Arc::new(effects);
        self.sealed = Some(Arc::clone(&effects));
        Sealed { offset, effects }
    }

    /// The last commit's effects and offset are durable. Returns all effects that became durable since the last call.
    pub fn acknowledge(&mut self, offset: Offset) -> Vec<Arc<Vec<Effect<O>>>> {
        self.published();
        while let Some((generator, offset)) = self.decommissioned.take_below(offset) {
            self.push(generator, None, offset);
        }
        std::mem::take(&mut self.published)
    }

    /// The last commit's effects are durable, but its offset isn't.
    pub fn published(&mut self) {
        self.published.extend(self.sealed.take().filter(|sealed| !sealed.is_empty()));
        self.bytes -= std::mem::take(&mut self.sealed_bytes);
    }

    /// The last commit's effects aren't durable: they go before all that has come since.
    pub fn reopen(&mut self) {
        let Some(sealed) = self.sealed.take() else { return };
        self.open_bytes += std::mem::take(&mut self.sealed_bytes);
        let newer = std::mem::take(&mut self.open);
        let mut letters = VecDeque::new();
        for effect in Arc::unwrap_or_clone(sealed) {
            match &effect {
                Effect::DeadLetter(letter) => {
                    self.open_bytes -= effect.bytes();
                    letters.push_back((letter.offset, effect));
                }
                Effect::Output(_) | Effect::State(_) => self.open.push(effect),
            }
        }
        self.open.extend(newer);
        letters.append(&mut self.letters);
        self.letters = letters;
    }

    /// Bytes of all effects held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the effects in the commit under way.
    #[must_use]
    pub fn sealed_bytes(&self) -> usize {
        self.sealed_bytes
    }

    /// The oldest groups, and their bytes.
    fn take_groups(&mut self, budget: usize) -> (Vec<Effect<O>>, usize) {
        if self.open_bytes <= budget {
            return (std::mem::take(&mut self.open), std::mem::take(&mut self.open_bytes));
        }
        let (mut taken, mut bytes, mut group) = (0, 0, 0);
        for (index, effect) in self.open.iter().enumerate() {
            group += effect.bytes();
            if effect.as_state().is_none() {
                continue;
            }
            if taken > 0 && bytes + group > budget {
                break;
            }
            (taken, bytes, group) = (index + 1, bytes + group, 0);
        }
        let rest = self.open.split_off(taken);
        self.open_bytes -= bytes;
        (std::mem::replace(&mut self.open, rest), bytes)
    }

    fn has_letter_below(&self, offset: Offset) -> bool {
        self.letters.front().is_some_and(|(at, _)| *at < offset)
    }

    fn take_over(&mut self, before: usize) {
        debug_assert!(
            self.open.last().is_some_and(|last| last.as_state().is_some()),
            "a group without a state"
        );
        for effect in &self.open[before..] {
            if let Effect::State(change) = effect {
                if change.is_decommissioned {
                    self.decommissioned.add(change.generator.clone(), change.offset);
                } else {
                    self.decommissioned.cancel(&change.generator);
                }
            }
            let bytes = effect.bytes();
            self.bytes += bytes;
            self.open_bytes += bytes;
        }
    }

    /// Appends a group of one state, or its deletion.
    fn push(&mut self, generator: GeneratorId, json: Option<Vec<u8>>, offset: Offset) {
        let partition = self.partition;
        let from = offset;
        let change =
            Effect::State(StateChange { generator, partition, is_decommissioned: false, json, offset, from });
        self.bytes += change.bytes();
        self.open_bytes += change.bytes();
        self.open.push(change);
    }
}

/// Decommissioned states to delete when the committed offset has passed them.
#[derive(Debug, Default)]
struct DecommissionedStates {
    /// Several may have one offset: -1, for states kept from another log.
    by_offset: BTreeSet<(Offset, GeneratorId)>,
    by_generator: HashMap<GeneratorId, Offset, foldhash::fast::RandomState>,
}

impl DecommissionedStates {
    fn add(&mut self, generator: GeneratorId, offset: Offset) {
        self.cancel(&generator);
        self.by_offset.insert((offset, generator.clone()));
        self.by_generator.insert(generator, offset);
    }

    /// The generator has come back: its new state replaces the decommissioned state.
    fn cancel(&mut self, generator: &GeneratorId) {
        // Nearly always empty: saves a hash.
        if self.by_generator.is_empty() {
            return;
        }
        if let Some(offset) = self.by_generator.remove(generator) {
            self.by_offset.remove(&(offset, generator.clone()));
        }
    }

    fn take_below(&mut self, offset: Offset) -> Option<(GeneratorId, Offset)> {
        self.by_offset.first().filter(|(first, _)| *first < offset)?;
        let (at, generator) = self.by_offset.pop_first()?;
        self.by_generator.remove(&generator);
        Some((generator, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::state::StoredAlarms;
    use crate::reading::{BadRecord, ErrorCode};
    use crate::types::Millis;

    const FAREWELL: &str = r#"{"decommissioned":true}"#;

    /// With no text: a decommissioned state.
    fn change(generator: &str, offset: i64, json: Option<&str>) -> Effect {
        Effect::State(StateChange {
            generator: GeneratorId::from(generator),
            partition: PartitionId(0),
            is_decommissioned: json.is_none(),
            json: Some(json.unwrap_or(FAREWELL).as_bytes().to_vec()),
            offset: Offset(offset),
            from: Offset(offset),
        })
    }

    fn publish(outbox: &mut Outbox, effect: Effect) {
        outbox.publish(|effects| effects.push(effect));
    }

    fn seal(outbox: &mut Outbox, offset: i64) -> Arc<Vec<Effect>> {
        let sealed = outbox.seal(Offset(offset), Offset(0), usize::MAX);
        assert_eq!(sealed.offset, Offset(offset));
        sealed.effects
    }

    /// Generator and offset of each state record, and its kind.
    fn states(chunks: &[Arc<Vec<Effect>>]) -> Vec<(String, i64, &'static str)> {
        let told = |change: &StateChange| {
            let kind = match &change.json {
                None => "deleted",
                Some(_) if change.is_decommissioned => "decommissioned",
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
        seal(&mut outbox, 0);
        publish(&mut outbox, change("g", 2, Some("{}")));
        outbox.reopen();
        let both = seal(&mut outbox, 0);
        assert_eq!(states(&[both]), [known("g", 1, "state"), known("g", 2, "state")]);
        publish(&mut outbox, change("g", 3, Some("{}")));
        assert_eq!(states(&outbox.acknowledge(Offset(0))).len(), 2);
        assert_eq!(states(&[seal(&mut outbox, 0)]), [known("g", 3, "state")]);
        outbox.acknowledge(Offset(0));
        assert_eq!((outbox.bytes(), outbox.is_ready(Offset(9))), (0, false));
    }

    #[test]
    fn what_is_durable_is_not_sent_again_though_its_offset_was_refused() {
        let mut outbox = Outbox::new(PartitionId(0));
        publish(&mut outbox, change("g", 1, Some("{}")));
        seal(&mut outbox, 2);
        outbox.published();
        assert_eq!((outbox.bytes(), outbox.is_ready(Offset(2))), (0, true), "an offset is owed");
        assert_eq!(states(&[seal(&mut outbox, 2)]), []);
        assert_eq!(states(&outbox.acknowledge(Offset(2))), [known("g", 1, "state")]);
        assert!(!outbox.is_ready(Offset(2)));
    }

    fn letter(offset: i64) -> DeadLetter {
        DeadLetter {
            partition: PartitionId(0),
            offset: Offset(offset),
            timestamp: Millis(0),
            key: None,
            value: Some(vec![0; 100]),
            headers: Vec::new(),
            error: BadRecord { code: ErrorCode::NotJson, message: String::new() },
        }
    }

    fn offsets(effects: &[Effect]) -> Vec<i64> {
        let offset = |effect: &Effect| match effect {
            Effect::State(change) => change.offset.0,
            Effect::DeadLetter(letter) => letter.offset.0,
            Effect::Output(alert) => alert.offset.0,
        };
        effects.iter().map(offset).collect()
    }

    #[test]
    fn what_does_not_fit_stays_behind_and_holds_the_offset_back() {
        let mut outbox = Outbox::new(PartitionId(0));
        // In the order in which they were finished.
        for offset in [7, 2, 5] {
            publish(&mut outbox, change("g", offset, Some("{}")));
        }
        for offset in [3, 4, 8] {
            outbox.post(letter(offset));
        }
        let one = change("g", 7, Some("{}")).bytes();
        let mut committed = Offset(0);
        let mut told = Vec::new();
        // At least one at a time, otherwise as many as fit.
        for budget in [1, 2 * one, 1, 1, 1] {
            let sealed = outbox.seal(Offset(9), committed, budget);
            outbox.acknowledge(sealed.offset);
            committed = sealed.offset;
            told.push((offsets(&sealed.effects), sealed.offset.0));
        }
        assert_eq!(
            told,
            [(vec![7], 2), (vec![2, 5], 3), (vec![3], 4), (vec![4], 8), (vec![8], 9)],
            "effects and offset of each commit"
        );
        assert_eq!((outbox.bytes(), outbox.is_ready(Offset(9))), (0, false));
    }

    #[test]
    fn dead_letters_of_a_refused_commit_wait_for_the_offset_again() {
        let mut outbox = Outbox::new(PartitionId(0));
        outbox.post(letter(1));
        publish(&mut outbox, change("g", 2, Some("{}")));
        outbox.post(letter(3));
        assert_eq!(offsets(&outbox.seal(Offset(3), Offset(0), usize::MAX).effects), [2, 1]);
        outbox.reopen();
        let sealed = outbox.seal(Offset(4), Offset(0), 1);
        assert_eq!((offsets(&sealed.effects), sealed.offset), (vec![2], Offset(1)));
        outbox.acknowledge(sealed.offset);
        assert_eq!(offsets(&outbox.seal(Offset(4), Offset(1), usize::MAX).effects), [1, 3]);
        outbox.acknowledge(Offset(4));
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_state_is_deleted_when_the_committed_offset_has_passed_the_decommissioning() {
        let mut outbox = Outbox::new(PartitionId(0));
        publish(&mut outbox, change("g", 5, None));
        assert_eq!(states(&[seal(&mut outbox, 3)]), [known("g", 5, "decommissioned")]);
        outbox.acknowledge(Offset(3));
        assert!(!outbox.is_ready(Offset(9)), "the offset hasn't passed it");
        seal(&mut outbox, 6);
        outbox.acknowledge(Offset(6));
        assert_eq!(states(&[seal(&mut outbox, 6)]), [known("g", 5, "deleted")]);
        outbox.acknowledge(Offset(6));
        assert!(!outbox.is_ready(Offset(9)));
    }

    #[test]
    fn a_generator_that_has_come_back_keeps_its_state() {
        let mut outbox = Outbox::new(PartitionId(0));
        publish(&mut outbox, change("g", 5, None));
        publish(&mut outbox, change("g", 8, Some("{}")));
        seal(&mut outbox, 9);
        outbox.acknowledge(Offset(9));
        assert!(!outbox.is_ready(Offset(9)));
    }

    #[test]
    fn the_offset_stays_at_the_start_until_all_that_was_to_be_renewed_is_out() {
        let mut outbox = Outbox::new(PartitionId(0));
        let kept = StoredState::<StoredAlarms>::of_decommissioned(
            &GeneratorId::from("a"),
            None,
            Offset(4),
            crate::types::Epoch::UNKNOWN,
        );
        let renewals = vec![(GeneratorId::from("a"), Some(kept)), (GeneratorId::from("b"), None)];
        outbox.renew(renewals, Offset(5));
        publish(&mut outbox, change("a", 7, Some("{}")));
        assert!(outbox.is_ready(Offset(5)), "before anything is finished");

        let first = outbox.seal(Offset(9), Offset(5), 1);
        assert_eq!((states(&[first.effects]), first.offset), (vec![known("a", 5, "state")], Offset(5)));
        outbox.reopen();
        let first = outbox.seal(Offset(9), Offset(5), 1);
        assert_eq!((first.effects.len(), first.offset), (1, Offset(5)));
        outbox.acknowledge(Offset(5));
        let rest = outbox.seal(Offset(9), Offset(5), usize::MAX);
        let wanted = vec![known("b", 5, "deleted"), known("a", 7, "state")];
        assert_eq!((states(&[rest.effects]), rest.offset), (wanted, Offset(9)));
        outbox.acknowledge(Offset(9));
        assert_eq!((outbox.bytes(), outbox.is_ready(Offset(9))), (0, false));
    }

    #[test]
    fn decommissioned_states_of_one_offset_are_all_deleted() {
        let mut outbox = Outbox::new(PartitionId(0));
        for generator in ["a", "b"] {
            publish(&mut outbox, change(generator, 4, None));
        }
        seal(&mut outbox, 5);
        outbox.acknowledge(Offset(5));
        assert_eq!(states(&[seal(&mut outbox, 5)]), [known("a", 4, "deleted"), known("b", 4, "deleted")]);
    }

    #[test]
    fn a_decommissioned_state_that_was_left_behind_is_deleted_by_the_next_owner() {
        let mut outbox = Outbox::new(PartitionId(0));
        assert!(!outbox.restore_decommissioned(&GeneratorId::from("old"), Offset(4), Offset(5)));
        assert!(outbox.restore_decommissioned(&GeneratorId::from("ahead"), Offset(5), Offset(5)));
        assert_eq!(states(&[seal(&mut outbox, 6)]), [known("old", 4, "deleted")]);
        outbox.acknowledge(Offset(6));
        assert_eq!(states(&[seal(&mut outbox, 6)]), [known("ahead", 5, "deleted")]);
    }
}
