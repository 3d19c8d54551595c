//! One generator's state, and which records of the log it covers.

use super::effect::{Effect, StateChange};
use super::{Handler, LogIdentity, Outputs, Place, ReadingPosition, StoredState, Verdict, Watch};
use crate::types::{Epoch, GeneratorId, Millis, Now, Offset, PartitionId, TopicId};

/// A generator's state under a handler. A record that the state covers, a repeat after a crash, isn't handled again.
#[derive(Debug)]
pub struct Tracked<H: Handler> {
    /// The handler's own.
    pub state: H::State,
    /// The offset of the last record that the state covers.
    covered: Offset,
    /// The leader epoch of that record, or a newer one seen while it was the last; see [`Tracked::covers`].
    epoch: Epoch,
    /// Whether the state topic knows the generator.
    is_stored: bool,
    /// The first record that changed the state since it was last stored.
    dirty_from: Option<Offset>,
}

/// The time, as the pool knows it.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The current time.
    pub now: Now,
    /// The latest event time in the partition before the record.
    pub watermark: Millis,
}

/// Where and up to when time has passed.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// The partition.
    pub partition: PartitionId,
    /// The time up to which the log is known to hold no unread record.
    pub asked: Now,
    /// The current time.
    pub times: Times,
    /// See [`Watch::quiet`].
    pub quiet: Option<i64>,
}

/// What became of a generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The state covered the record already: nothing happened.
    Repeat,
    /// It is known as before, and what changed is stored.
    Kept,
    /// Its state has changed for the first time since it was stored.
    Dirty,
    /// It is forgotten.
    Gone,
}

impl<H: Handler<State: Clone>> Clone for Tracked<H> {
    fn clone(&self) -> Self {
        Tracked { state: self.state.clone(), ..*self }
    }
}

impl<H: Handler> Tracked<H> {
    /// A generator that no record has touched.
    #[must_use]
    pub fn new(handler: &H, now: Now) -> Tracked<H> {
        Tracked {
            state: handler.create(now),
            covered: Offset(-1),
            epoch: Epoch::UNKNOWN,
            is_stored: false,
            dirty_from: None,
        }
    }

    /// A generator that another owner has stored.
    #[must_use]
    pub fn restore(handler: &H, stored: StoredState<H::Stored>, now: Now) -> Tracked<H> {
        let StoredState { offset, epoch, body, decommissioned, .. } = stored;
        let state = handler.restore(body, now);
        Tracked { state, covered: offset, epoch, is_stored: !decommissioned, dirty_from: None }
    }

    /// Whether the state already covers a record of this offset. A leader `epoch` newer than the state's means that
    /// the offset is used again for another record; `epoch` is called only where that matters. If either epoch is
    /// unknown, the offset alone decides.
    #[inline]
    #[must_use]
    pub fn covers(&self, offset: Offset, epoch: impl Fn() -> Epoch) -> bool {
        offset <= self.covered && (!self.epoch.is_known() || epoch() <= self.epoch)
    }

    /// The offset of the last record that the state covers; -1 if there is none.
    #[must_use]
    pub fn covered(&self) -> Offset {
        self.covered
    }

    /// Whether the state topic knows the generator.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.is_stored
    }

    /// Whether its state has changed since it was stored.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty_from.is_some()
    }

    /// Whether it may be forgotten without a trace.
    #[must_use]
    pub fn may_forget(&self, handler: &H, idle: i64, now: Now) -> bool {
        let untouched = !self.is_stored && self.dirty_from.is_none() && self.covered < Offset(0);
        untouched && handler.may_forget(&self.state, idle, now)
    }

    /// Applies a record, unless the state covers it, and appends its effects: outputs, and behind them the state if it
    /// changed.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    pub fn apply(
        &mut self,
        handler: &H,
        generator: &GeneratorId,
        task: H::Task,
        answer: H::Answer,
        source: ReadingPosition,
        log: &LogIdentity<'_, impl Fn() -> Epoch>,
        times: Times,
        effects: &mut Vec<Effect<H::Output>>,
        counts: &mut [u64],
    ) -> Applied {
        let before = effects.len();
        let Times { now, watermark } = times;
        handler.seen(&mut self.state, now);
        if self.covers(source.offset, &log.epoch) {
            return Applied::Repeat;
        }
        let at = Place { generator, source, now, watermark, is_stored: self.is_stored };
        let verdict = handler.handle(&mut self.state, task, answer, &at, &mut Outputs::new(effects, counts));
        // Outputs without a state could come twice.
        match verdict {
            Verdict::Same if effects.len() == before => Applied::Kept,
            Verdict::Dirty if effects.len() == before => {
                (self.covered, self.epoch) = (source.offset, (log.epoch)());
                if self.dirty_from.is_some() {
                    return Applied::Kept;
                }
                self.dirty_from = Some(source.offset);
                Applied::Dirty
            }
            Verdict::Same | Verdict::Dirty | Verdict::Changed => {
                // `covered` moves with the state record, so that a restored state always matches its offset.
                (self.covered, self.epoch) = (source.offset, (log.epoch)());
                effects.push(self.record(handler, generator, source.partition, log.topic));
                Applied::Kept
            }
            Verdict::Gone => {
                let epoch = (log.epoch)();
                self.forget(handler, generator, source, epoch, log.topic, now, before, effects);
                Applied::Gone
            }
        }
    }

    /// Has the handler act on time that has passed since the generator's last record, at this offset and leader epoch.
    /// Appends its effects; returns whether the generator is forgotten.
    #[allow(clippy::too_many_arguments)]
    pub fn watch(
        &mut self,
        handler: &H,
        generator: &GeneratorId,
        (last, epoch): (Offset, Epoch),
        passed: Passed,
        topic: Option<&TopicId>,
        effects: &mut Vec<Effect<H::Output>>,
        counts: &mut [u64],
    ) -> bool {
        let Passed { partition, asked, times: Times { now, watermark }, quiet } = passed;
        let before = effects.len();
        let (covered, is_stored) = (self.covered, self.is_stored);
        let at = Watch { generator, partition, last, covered, asked, now, watermark, quiet, is_stored };
        match handler.watch(&mut self.state, &at, &mut Outputs::new(effects, counts)) {
            Verdict::Same | Verdict::Dirty if effects.len() == before => false,
            Verdict::Same | Verdict::Dirty | Verdict::Changed => {
                // This came after the last record. Handling that record again after a crash would undo it.
                if !self.covers(last, || epoch) {
                    (self.covered, self.epoch) = (last, epoch);
                }
                effects.push(self.record(handler, generator, partition, topic));
                false
            }
            Verdict::Gone => {
                let at = Millis(now.wall.0.saturating_sub(now.mono.since(asked.mono)));
                let source = ReadingPosition { partition, offset: self.covered, at };
                self.forget(handler, generator, source, self.epoch, topic, now, before, effects);
                true
            }
        }
    }

    /// The record of its current state.
    #[must_use]
    pub fn record(
        &mut self,
        handler: &H,
        generator: &GeneratorId,
        partition: PartitionId,
        topic: Option<&TopicId>,
    ) -> Effect<H::Output> {
        self.is_stored = true;
        let stored = StoredState {
            generator: generator.as_str().to_owned(),
            topic: topic.cloned(),
            offset: self.covered,
            epoch: self.epoch,
            body: handler.store(&self.state),
            decommissioned: false,
        };
        Effect::State(StateChange {
            generator: generator.clone(),
            partition,
            is_decommissioned: false,
            json: Some(stored.to_json()),
            offset: self.covered,
            from: self.dirty_from.take().unwrap_or(self.covered),
        })
    }

    /// Replaces the state by a decommissioned state, if it or an output of it is known to anybody.
    #[allow(clippy::too_many_arguments)]
    fn forget(
        &mut self,
        handler: &H,
        generator: &GeneratorId,
        source: ReadingPosition,
        epoch: Epoch,
        topic: Option<&TopicId>,
        now: Now,
        before: usize,
        effects: &mut Vec<Effect<H::Output>>,
    ) {
        if self.is_stored || effects.len() > before {
            let ReadingPosition { partition, offset, .. } = source;
            let decommissioned = StoredState::<H::Stored>::of_decommissioned(generator, topic, offset, epoch);
            effects.push(Effect::State(StateChange {
                generator: generator.clone(),
                partition,
                is_decommissioned: true,
                json: Some(decommissioned.to_json()),
                offset,
                from: self.dirty_from.unwrap_or(offset),
            }));
        }
        *self = Tracked::new(handler, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::detector::Detector;
    use crate::alarm::rules::Rules;

    #[test]
    fn readings_up_to_a_decommissioning_are_known_and_the_generator_is_not() {
        let detector = Detector::new(Rules::default());
        let stored = StoredState::of_decommissioned(&"g".into(), None, Offset(7), Epoch::UNKNOWN);
        let tracked = Tracked::restore(&detector, stored, Now::default());
        assert_eq!((tracked.covered, tracked.is_stored), (Offset(7), false));
    }

    #[test]
    fn an_offset_that_is_used_again_under_a_newer_leader_is_no_repeat() {
        let mut tracked = Tracked::new(&Detector::new(Rules::default()), Now::default());
        tracked.covered = Offset(7);
        for (known, epoch, covered) in
            [(2, 2, true), (2, 1, true), (2, 3, false), (2, -1, true), (-1, 3, true)]
        {
            tracked.epoch = Epoch(known);
            assert_eq!(tracked.covers(Offset(7), || Epoch(epoch)), covered, "{known} {epoch}");
            assert!(!tracked.covers(Offset(8), || Epoch(epoch)));
        }
    }
}
