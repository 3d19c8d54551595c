//! One partition, from assignment to release. It lives exactly as long as the worker holds the partition.

use super::lanes::Lanes;
use super::outbox::{Outbox, Sealed};
use super::watermark::{Passed, Watermark};
use super::{Beginning, CommitPart, CommitPolicy, CommittedPart, Share, Ticket};
use crate::alarm::detector::{Detector, LogIdentity, ReadingPosition};
use crate::alarm::effect::DeadLetter;
use crate::reading::Parsed;
use crate::types::{Epoch, GeneratorId, Now, Offset, PartitionId, TopicId};

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
pub(super) struct PartitionWork {
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
    lanes: Lanes,
    watermark: Watermark,
    outbox: Outbox,
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
}

impl PartitionWork {
    pub(super) fn new(
        id: PartitionId,
        assignment: u64,
        beginning: Beginning,
        detector: &Detector,
        now: Now,
    ) -> PartitionWork {
        let Beginning { start, topic, states, renewals, owes_offset } = beginning;
        let mut outbox = Outbox::new(id);
        outbox.renew(renewals, start);
        // A decommissioned state that the log has passed covers nothing any more: it needs no lane.
        let states = states.into_iter().filter(|(generator, stored)| {
            !stored.decommissioned || outbox.restore_decommissioned(generator, stored.offset, start)
        });
        let lanes = Lanes::restore(states, detector, now);
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
            running: 0,
            unfinished_bytes: 0,
            paused: false,
            passed: Passed::default(),
            covered: Passed::default(),
            committed: start,
            owes_offset,
            records: 0,
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

    /// Evaluates a record on arrival. Nothing can be waiting: with this handling every record is finished on arrival.
    pub(super) fn evaluate(
        &mut self,
        detector: &Detector,
        parsed: &Parsed<'_>,
        source: ReadingPosition,
        epoch: impl Fn() -> Epoch,
        now: Now,
        late: &mut [u64],
    ) {
        debug_assert!(self.watermark.unfinished() == 0);
        let lanes = &mut self.lanes;
        let log = LogIdentity { topic: self.topic.as_ref(), epoch };
        self.outbox.publish(|effects| lanes.evaluate(detector, parsed, source, log, now, effects, late));
        self.watermark.pass(source.offset, source.at, &mut self.passed);
    }

    /// Queues a record on its generator's lane.
    pub(super) fn enqueue(
        &mut self,
        detector: &Detector,
        parsed: &Parsed<'_>,
        source: ReadingPosition,
        epoch: Epoch,
        bytes: usize,
        now: Now,
    ) {
        let seq = self.watermark.begin(source.offset, source.at);
        self.unfinished_bytes += bytes;
        self.lanes.enqueue(detector, parsed, source, epoch, seq, bytes, now);
    }

    /// Finishes a bad record: it needs no processing.
    pub(super) fn bad(&mut self, letter: DeadLetter) {
        self.watermark.pass(letter.offset, letter.timestamp, &mut self.passed);
        self.outbox.post(letter);
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

    pub(super) fn start_next(&mut self) -> Option<(Ticket, GeneratorId, Offset)> {
        let (seq, lane, generator, offset) = self.lanes.start_next()?;
        self.running += 1;
        Some((Ticket { partition: self.id, epoch: self.epoch, lane, seq }, generator, offset))
    }

    /// Finishes a reading. Returns whether the ticket was one of this assignment's running readings.
    pub(super) fn finish(&mut self, ticket: Ticket, detector: &Detector, now: Now, late: &mut [u64]) -> bool {
        if ticket.epoch != self.epoch {
            return false;
        }
        let lanes = &mut self.lanes;
        let (lane, seq, topic) = (ticket.lane, ticket.seq, self.topic.as_ref());
        let finished =
            self.outbox.publish(|effects| lanes.finish(lane, seq, detector, topic, now, effects, late));
        let Some(bytes) = finished else {
            return false;
        };
        self.running -= 1;
        self.unfinished_bytes -= bytes;
        self.watermark.finish(seq, &mut self.passed);
        true
    }

    pub(super) fn watch_silence(&mut self, end: Offset, detector: &Detector, asked: Now, now: Now) {
        if self.stage == Stage::Working && self.next >= end {
            let (lanes, topic) = (&mut self.lanes, self.topic.as_ref());
            // A silent generator has no reading in process, so its silence comes after all of its readings.
            self.outbox.publish(|effects| lanes.watch_silence(detector, self.id, topic, asked, now, effects));
        }
    }

    pub(super) fn forget_idle(&mut self, idle: i64, now: Now) {
        self.lanes.forget_idle(idle, now);
    }

    pub(super) fn store_states(&mut self, detector: &Detector) -> usize {
        if self.stage == Stage::Lost {
            return 0;
        }
        let (lanes, topic) = (&self.lanes, self.topic.as_ref());
        self.outbox.publish(|effects| lanes.store_states(detector, self.id, topic, effects))
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
        self.outbox.is_ready(self.watermark.offset())
    }

    /// How long after the last commit this partition wants the next one, in milliseconds.
    pub(super) fn commit_wait(&self, policy: CommitPolicy) -> Option<i64> {
        match self.stage {
            Stage::Lost => None,
            Stage::Revoked if self.has_uncommitted() => Some(0),
            Stage::Working if self.has_effects() => Some(policy.linger.min(policy.interval)),
            Stage::Working if self.has_uncommitted() => Some(policy.interval),
            Stage::Working | Stage::Revoked => None,
        }
    }

    /// Whether a commit would have a part for it.
    pub(super) fn wants_commit(&self) -> bool {
        self.stage != Stage::Lost && self.has_uncommitted()
    }

    /// Takes its part of a commit, with at most `budget` bytes of effects, give or take one group.
    pub(super) fn take_part(&mut self, budget: usize) -> CommitPart {
        let watermark = self.watermark.offset();
        let Sealed { offset, effects } = self.outbox.seal(watermark, self.committed, budget);
        if offset == watermark {
            self.covered.add(std::mem::take(&mut self.passed));
        }
        CommitPart { partition: self.id, topic: self.topic.clone(), offset, effects }
    }

    pub(super) fn acknowledge(&mut self, offset: Offset) -> CommittedPart {
        self.committed = self.committed.max(offset);
        self.owes_offset = false;
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
}
