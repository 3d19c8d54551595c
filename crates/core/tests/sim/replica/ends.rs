//! The ends of partitions, as a worker learns them (`crates/kafka/src/watermarks.rs`): the leaders look some time
//! after the question, and the answer comes some time after that, or never.

use std::collections::BTreeMap;

use genwatch_core::alarm::event::Reason;
use genwatch_core::handler::effect::Effect;
use genwatch_core::pool::CommitPart;
use genwatch_core::types::{Millis, Mono, Now, Offset, PartitionId};
use genwatch_oracle::Meaning;
use rand::Rng;

use super::{Replica, Surroundings};
use crate::invariants::{Violation, ensure};
use crate::records::Entry;

/// Milliseconds between checks for silence.
const EVERY: i64 = 100;

/// A pending question.
#[derive(Debug)]
pub(super) struct Question {
    /// Virtual time.
    asked: i64,
    /// The worker's wall clock.
    wall: i64,
    partitions: Vec<i32>,
    /// The leaders' answers.
    ends: Option<BTreeMap<i32, i64>>,
}

impl Replica {
    /// Asks, waits, checks for silence.
    pub(super) fn observe(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        if !self.is_connected(around.now) {
            return Ok(());
        }
        let goes_on = around.settling || around.rng.random_bool(0.5);
        match self.question.take() {
            None if around.now - self.observed >= EVERY => {
                self.observed = around.now;
                let partitions = self.ledgers.keys().copied().collect();
                let wall = around.now + self.clock;
                self.question = Some(Question { asked: around.now, wall, partitions, ends: None });
            }
            None => {}
            Some(mut question) if question.ends.is_none() => {
                if goes_on {
                    // Some leaders may not answer.
                    question.partitions.retain(|_| around.settling || around.rng.random_bool(0.9));
                    let end = |id: &i32| (*id, around.cluster.partitions[*id as usize].end);
                    question.ends = Some(question.partitions.iter().map(end).collect());
                }
                self.question = Some(question);
            }
            Some(question) if goes_on => self.look_for_silence(&question, around)?,
            // Sometimes an answer is lost.
            Some(question) => self.question = around.rng.random_bool(0.95).then_some(question),
        }
        Ok(())
    }

    fn look_for_silence(
        &mut self,
        question: &Question,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Violation> {
        for (id, end) in question.ends.iter().flatten() {
            let held = self.engine.pool().bytes();
            let asked = Now { mono: Mono(question.asked), wall: Millis(question.wall) };
            self.engine.end(PartitionId(*id), Offset(*end), asked);
            let has_reached = self.ledgers.get(id).is_none_or(|ledger| ledger.has_reached(*end));
            ensure!(
                has_reached || self.engine.pool().bytes() == held,
                Silence,
                "silence was reported for partition {id}, though its end at {end} was not reached"
            );
            self.note_who_is_silent(*id, *end, question.asked, around);
        }
        Ok(())
    }

    /// Notes the generators that had been silent for long enough when the end was asked: nothing has been appended for
    /// them since. Setting the worker's clock changes nothing. But how old a restored state is, only that clock can say: if
    /// it was ahead then, the silence is noticed that much earlier.
    fn note_who_is_silent(&mut self, id: i32, end: i64, asked: i64, around: &Surroundings<'_>) {
        let Some(after) = around.scenario.silent_for() else { return };
        let log = around.cluster.partitions[id as usize].log.iter();
        let below = log.filter(|entry| entry.offset < end && matches!(entry.meaning, Meaning::Reading(_)));
        let last: BTreeMap<&str, i64> =
            below.map(|entry| (entry.generator.as_str(), entry.appended)).collect();
        let ahead = self.restored_ahead.get(&id).copied().unwrap_or_default();
        for (generator, appended) in last {
            if appended + after <= asked + ahead {
                self.silent.insert((id, generator.to_owned()));
            }
            if around.scenario.forget_after.is_some_and(|after| appended + after <= asked) {
                self.forgettable.insert((id, generator.to_owned()));
            }
        }
    }

    /// Checks that a commit reports only silent generators as silent, and forgets only those that were silent for
    /// long enough. A generator without records in this log, whose state is of a previous log, counts as silent.
    pub(super) fn check_silences(&self, part: &CommitPart, log: &[Entry]) -> Result<(), Violation> {
        for effect in part.effects.iter() {
            let Effect::Output(alert) = effect else { continue };
            let whose = (part.partition.0, alert.generator.as_str().to_owned());
            let is_its =
                |entry: &Entry| entry.generator == whose.1 && matches!(entry.meaning, Meaning::Reading(_));
            let is_unheard = !log.iter().any(is_its);
            let was_silent = match alert.reason {
                Some(Reason::Silent) => self.silent.contains(&whose),
                Some(Reason::Forgotten) => self.forgettable.contains(&whose),
                Some(Reason::Decommissioned) | None => true,
            };
            ensure!(
                was_silent || is_unheard,
                Silence,
                "{alert:?} is reported, though readings of it were in the log when the end was asked"
            );
        }
        Ok(())
    }
}
