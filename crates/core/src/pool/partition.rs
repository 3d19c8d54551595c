//! One partition, from assignment to release. It lives exactly as long as the worker holds the partition.

use std::collections::VecDeque;

use super::lanes::{Lanes, Started};
use super::outbox::{Outbox, Sealed};
use super::watermark::{Passed, Watermark};
use super::{Beginning, CommitPart, CommitPolicy, CommittedPart, Share, Ticket};
use crate::handler::effect::DeadLetter;
use crate::handler::tracked::{self, Times};
use crate::handler::{Handler, LogIdentity, ReadingPosition};
use crate::types::{Epoch, GeneratorId, Millis, Mono, Now, Offset, PartitionId, TopicId};

/// The stage of a partition's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Takes in and processes.
    Working,
    /// Finishes and commits what has begun, then is released.
    Revoked,
    /// Is released.
    Lost,
}

#[derive(Debug)]
pub(super) struct PartitionWork<H: Handler> {
    id: PartitionId,
    /// The partition's topic.
    topic: Option<TopicId>,
    /// The number of this assignment: a commit of an earlier one has another.
    assignment: u64,
    /// Which tickets are valid: changes when running readings are forgotten.
    epoch: u64,
    stage: Stage,
    /// The next offset to take in; a lower one is a repeat of the fetcher's.
    next: Offset,
    lanes: Lanes<H>,
    watermark: Watermark,
    outbox: Outbox<H::Output>,
    /// The latest event time taken in; see [`Handler::EVENT_TIME`].
    event_time: Millis,
    /// Offsets from the committed one on, each with the latest event time before it: those that may be committed.
    checkpoints: VecDeque<(Offset, Millis)>,
    /// When a record was last taken in.
    taken_at: Mono,
    /// When states that have changed were last stored.
    stored_at: Option<Mono>,
    /// See [`super::Pool::finish_at`].
    finish_at: Option<Offset>,
    running: usize,
    /// Bytes of unfinished records.
    unfinished_bytes: usize,
    paused: bool,
    /// Records that the watermark has passed and no commit covers.
    passed: Passed,
    /// Records that a commit covers and that aren't acknowledged.
    covered: Passed,
    committed: Offset,
    /// The group's offset isn't one of this log: ours must replace it even if no record is finished.
    owes_offset: bool,
    records: u64,
    /// What the handler has counted, by counter.
    counts: Vec<u64>,
}

impl<H: Handler> PartitionWork<H> {
    pub(super) fn new(
        id: PartitionId,
        assignment: u64,
        beginning: Beginning<H::Stored>,
        handler: &H,
        now: Now,
    ) -> PartitionWork<H> {
        let Beginning { start, topic, states, renewals, owes_offset, event_time } = beginning;
        let mut outbox = Outbox::new(id);
        outbox.renew(renewals, start);
        // A decommissioned state that the log has passed covers nothing any more: it needs no lane.
        let states = states.into_iter().filter(|(generator, stored)| {
            !stored.decommissioned || outbox.restore_decommissioned(generator, stored.offset, start)
        });
        let lanes = Lanes::restore(states, handler, now);
        PartitionWork {
            id,
            topic,
            assignment,
            epoch: assignment,
            stage: Stage::Working,
            next: start,
            lanes,
            watermark: Watermark::new(start),
            outbox,
            event_time,
            checkpoints: VecDeque::from([(start, event_time)]),
            taken_at: now.mono,
            stored_at: None,
            finish_at: None,
            running: 0,
            unfinished_bytes: 0,
            paused: false,
            passed: Passed::default(),
            covered: Passed::default(),
            committed: start,
            owes_offset,
            records: 0,
            counts: vec![0; handler.counters()],
        }
    }

    /// Whether to take in the record at `offset`; if so, counts it as taken.
    pub(super) fn accepts(&mut self, offset: Offset) -> bool {
        if self.stage != Stage::Working || offset < self.next {
            return false;
        }
        self.next = offset.next();
        self.records += 1;
        true
    }

    /// Handles a record on arrival. Nothing can be waiting: with this handling every record is finished on arrival.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    pub(super) fn evaluate(
        &mut self,
        handler: &H,
        generator: &str,
        task: H::Task,
        source: ReadingPosition,
        epoch: impl Fn() -> Epoch,
        now: Now,
    ) {
        debug_assert!(self.watermark.unfinished() == 0);
        self.taken_at = now.mono;
        let (lanes, counts, watermark) = (&mut self.lanes, &mut self.counts, self.event_time);
        let log = LogIdentity { topic: self.topic.as_ref(), epoch };
        let event_time = if H::EVENT_TIME { handler.event_time(&task, source.at) } else { None };
        let was_clean = H::EVENT_TIME && lanes.dirty_from().is_none();
        let times = Times { now, watermark };
        self.outbox.publish(|effects| {
            lanes.evaluate(handler, generator, task, source, &log, times, effects, counts);
        });
        if H::EVENT_TIME {
            if was_clean && lanes.dirty_from().is_some() {
                self.checkpoints.push_back((source.offset, watermark));
            }
            self.event_time = event_time.map_or(watermark, |at| at.max(watermark));
            if self.event_time >= self.lanes.deadline() {
                self.pass_time(handler, now, None, now);
            }
        }
        self.watermark.pass(source.offset, source.at, &mut self.passed);
    }

    /// Queues a record on its generator's lane.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn enqueue(
        &mut self,
        handler: &H,
        generator: &str,
        task: H::Task,
        source: ReadingPosition,
        epoch: Epoch,
        bytes: usize,
        now: Now,
    ) {
        self.taken_at = now.mono;
        let seq = self.watermark.begin(source.offset, source.at);
        self.unfinished_bytes += bytes;
        self.lanes.enqueue(handler, generator, task, source, epoch, seq, bytes, now);
    }

    /// Finishes a bad record: it needs no processing.
    pub(super) fn bad(&mut self, letter: DeadLetter) {
        self.watermark.pass(letter.offset, letter.timestamp, &mut self.passed);
        self.outbox.post(letter);
    }

    /// Finishes a record that is left out.
    pub(super) fn skip(&mut self, offset: Offset, at: Millis) {
        self.watermark.pass(offset, at, &mut self.passed);
    }

    pub(super) fn reached(&mut self, position: Offset) {
        if self.stage == Stage::Working && position >= self.next {
            self.next = position;
            self.watermark.skip_to(position);
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        self.lanes.has_ready()
    }

    pub(super) fn start_next(&mut self) -> Option<(Ticket, GeneratorId, Offset, H::Task)> {
        let Started { seq, lane, generator, offset, task } = self.lanes.start_next()?;
        self.running += 1;
        Some((Ticket { partition: self.id, epoch: self.epoch, lane, seq }, generator, offset, task))
    }

    /// Finishes a reading. Returns whether the ticket was one of this assignment's running readings.
    pub(super) fn finish(&mut self, ticket: Ticket, answer: H::Answer, handler: &H, now: Now) -> bool {
        if ticket.epoch != self.epoch {
            return false;
        }
        let (lanes, counts) = (&mut self.lanes, &mut self.counts);
        let (lane, seq, topic) = (ticket.lane, ticket.seq, self.topic.as_ref());
        let times = Times { now, watermark: self.event_time };
        let finished = self
            .outbox
            .publish(|effects| lanes.finish(lane, seq, answer, handler, topic, times, effects, counts));
        let Some(bytes) = finished else {
            return false;
        };
        self.running -= 1;
        self.unfinished_bytes -= bytes;
        self.watermark.finish(seq, &mut self.passed);
        true
    }

    pub(super) fn watch(&mut self, end: Offset, handler: &H, asked: Now, now: Now) {
        if self.stage == Stage::Working && self.next >= end {
            let quiet = Some(asked.mono.since(self.taken_at));
            self.pass_time(handler, asked, quiet, now);
        }
    }

    /// Has the handler act on time that has passed up to `asked`.
    fn pass_time(&mut self, handler: &H, asked: Now, quiet: Option<i64>, now: Now) {
        let times = Times { now, watermark: self.event_time };
        let passed = tracked::Passed { partition: self.id, asked, times, quiet };
        let (lanes, counts, topic) = (&mut self.lanes, &mut self.counts, self.topic.as_ref());
        // An idle generator has no reading in process, so this comes after all of its readings.
        self.outbox.publish(|effects| lanes.watch(handler, passed, topic, effects, counts));
    }

    pub(super) fn forget_idle(&mut self, handler: &H, idle: i64, now: Now) {
        self.lanes.forget_idle(handler, idle, now);
    }

    pub(super) fn store_states(&mut self, handler: &H) -> usize {
        if self.stage == Stage::Lost {
            return 0;
        }
        let (lanes, topic, id) = (&mut self.lanes, self.topic.as_ref(), self.id);
        self.outbox.publish(|effects| lanes.store_states(handler, id, topic, effects))
    }

    pub(super) fn generators(&self) -> usize {
        self.lanes.generators()
    }

    pub(super) fn revoke(&mut self) {
        if self.stage == Stage::Working {
            self.stage = Stage::Revoked;
            self.lanes.stop();
        }
    }

    pub(super) fn lose(&mut self) {
        self.stage = Stage::Lost;
        self.lanes.stop();
        self.outbox = Outbox::new(self.id);
        (self.passed, self.covered) = (Passed::default(), Passed::default());
    }

    /// Forgets running readings, under a new epoch that voids their tickets. Returns how many there were.
    pub(super) fn forget_running(&mut self, epoch: &mut u64) -> usize {
        *epoch += 1;
        self.epoch = *epoch;
        std::mem::take(&mut self.running)
    }

    /// Whether nothing runs and all that is finished is committed.
    pub(super) fn is_drained(&self) -> bool {
        self.running == 0 && !self.has_uncommitted()
    }

    fn has_uncommitted(&self) -> bool {
        self.has_effects() || self.owes_offset || self.watermark.offset() > self.committed
    }

    fn has_effects(&self) -> bool {
        self.outbox.is_ready(self.ready_offset())
    }

    /// The offset behind all records that are finished and whose states are stored, or in the outbox.
    fn ready_offset(&self) -> Offset {
        let watermark = self.watermark.offset();
        self.lanes.dirty_from().map_or(watermark, |from| from.min(watermark)).max(self.committed)
    }

    pub(super) fn finish_at(&mut self, end: Offset) {
        self.finish_at = Some(end);
    }

    fn is_finished(&self) -> bool {
        self.finish_at.is_some_and(|end| self.watermark.offset() >= end)
    }

    /// Whether to store the states that have changed, so that the offset can move on.
    fn stores_states(&self, policy: CommitPolicy, now: Now) -> bool {
        let is_due = self.stage == Stage::Revoked
            || self.is_finished()
            || self.stored_at.is_none_or(|stored_at| now.mono.since(stored_at) >= policy.interval);
        is_due && self.lanes.dirty_from().is_some_and(|from| from < self.watermark.offset())
    }

    /// How long after the last commit this partition wants the next one, in milliseconds.
    pub(super) fn commit_wait(&self, policy: CommitPolicy) -> Option<i64> {
        match self.stage {
            Stage::Lost => None,
            Stage::Revoked if self.has_uncommitted() => Some(0),
            Stage::Working if self.is_finished() && self.has_uncommitted() => {
                Some(policy.linger.min(policy.interval))
            }
            Stage::Working if self.has_effects() => Some(policy.linger.min(policy.interval)),
            Stage::Working if self.has_uncommitted() => Some(policy.interval),
            Stage::Working | Stage::Revoked => None,
        }
    }

    /// Whether a commit would have a part for it.
    pub(super) fn wants_commit(&self, policy: CommitPolicy, now: Now) -> bool {
        let moves = self.owes_offset || self.has_effects() || self.ready_offset() > self.committed;
        self.stage != Stage::Lost && (moves || self.stores_states(policy, now))
    }

    /// Takes its part of a commit, with at most `budget` bytes of effects, give or take one group.
    pub(super) fn take_part(
        &mut self,
        budget: usize,
        handler: &H,
        policy: CommitPolicy,
        now: Now,
    ) -> CommitPart<H::Output> {
        if self.stores_states(policy, now) {
            self.stored_at = Some(now.mono);
            let (lanes, topic, id) = (&mut self.lanes, self.topic.as_ref(), self.id);
            self.outbox.publish(|effects| lanes.store_dirty(handler, id, topic, effects));
        }
        let watermark = self.watermark.offset();
        let Sealed { offset, effects } = self.outbox.seal(self.ready_offset(), self.committed, budget);
        let (offset, event_time) = if H::EVENT_TIME { self.checkpoint(offset) } else { (offset, None) };
        if offset == watermark {
            self.covered.add(std::mem::take(&mut self.passed));
        }
        CommitPart { partition: self.id, topic: self.topic.clone(), offset, event_time, effects }
    }

    /// The highest offset up to this one of which the event time is known, and that time.
    fn checkpoint(&mut self, offset: Offset) -> (Offset, Option<Millis>) {
        let is_known = self.checkpoints.back().is_some_and(|(last, _)| *last == offset);
        if offset == self.watermark.offset() && !is_known {
            self.checkpoints.push_back((offset, self.event_time));
        }
        let behind = self.checkpoints.partition_point(|(known, _)| *known <= offset);
        let found = behind.checked_sub(1).and_then(|index| self.checkpoints.get(index));
        found.map_or((self.committed, None), |(offset, event_time)| (*offset, Some(*event_time)))
    }

    pub(super) fn acknowledge(&mut self, offset: Offset) -> CommittedPart<H::Output> {
        self.committed = self.committed.max(offset);
        self.owes_offset = false;
        while self.checkpoints.get(1).is_some_and(|(next, _)| *next <= self.committed) {
            self.checkpoints.pop_front();
        }
        let Passed { records, times } = std::mem::take(&mut self.covered);
        let effects = self.outbox.acknowledge(offset);
        CommittedPart { partition: self.id, offset, records, times, effects }
    }

    /// Bytes of its effects in the commit under way.
    pub(super) fn committing_bytes(&self) -> usize {
        self.outbox.sealed_bytes()
    }

    /// The commit was refused. `published`: its effects are durable all the same.
    pub(super) fn refused(&mut self, published: bool) {
        let passed = std::mem::take(&mut self.passed);
        self.passed = std::mem::take(&mut self.covered);
        self.passed.add(passed);
        if published {
            self.outbox.published();
        } else {
            self.outbox.reopen();
        }
    }

    pub(super) fn pause_if_full(&mut self, share: Share) -> bool {
        let full = self.watermark.unfinished() >= share.records
            || self.watermark.finished() >= share.finished
            || self.bytes() >= share.bytes;
        let pause = full && !self.paused && self.stage == Stage::Working;
        self.paused |= pause;
        pause
    }

    pub(super) fn resume_if_drained(&mut self, share: Share) -> bool {
        // Half of the share, so that pauses don't flap: each pause makes librdkafka fetch again.
        let drained = self.watermark.unfinished() <= share.records / 2
            && self.watermark.finished() <= share.finished / 2
            && self.bytes() <= share.bytes / 2;
        let resume = drained && self.paused && self.stage == Stage::Working;
        self.paused &= !resume;
        resume
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn assignment(&self) -> u64 {
        self.assignment
    }

    pub(super) fn next(&self) -> Offset {
        self.next
    }

    pub(super) fn committed(&self) -> Offset {
        self.committed
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn in_flight(&self) -> usize {
        self.watermark.unfinished()
    }

    pub(super) fn bytes(&self) -> usize {
        self.unfinished_bytes + self.outbox.bytes()
    }

    pub(super) fn take_record_count(&mut self) -> u64 {
        std::mem::take(&mut self.records)
    }

    pub(super) fn take_counts(&mut self) -> Vec<u64> {
        let fresh = vec![0; self.counts.len()];
        std::mem::replace(&mut self.counts, fresh)
    }
}
