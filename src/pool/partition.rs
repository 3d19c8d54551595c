//! One partition, from assignment to release. It lives exactly as long as the replica holds the partition.

use std::sync::Arc;

use super::lanes::Lanes;
use super::reorder::{MAX_TIME_RUNS, ReorderBuffer, Retired};
use super::{Bounds, CommitPart, CommitPolicy, CommittedPart, Ticket};
use crate::alarm::detector::{Detector, Source};
use crate::alarm::state::StoredState;
use crate::effect::Effect;
use crate::log::{GeneratorId, Millis, Offset, PartitionId};
use crate::reading::Parsed;

/// Where a partition stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Takes in and works.
    Working,
    /// Finishes and commits what it has begun, then goes.
    Revoked,
    /// Goes.
    Lost,
}

#[derive(Debug)]
pub(super) struct PartitionWork {
    id: PartitionId,
    /// Which assignment this is: a commit of an earlier one has another.
    assignment: u64,
    /// Which tickets are valid: moves on when running readings are forgotten.
    epoch: u64,
    stage: Stage,
    /// The next offset to take in; one below it is a repeat of the fetcher's.
    next: Offset,
    lanes: Lanes,
    buffer: ReorderBuffer,
    running: usize,
    paused: bool,
    retired: Retired,
    unacknowledged: Unacknowledged,
    committed: Offset,
    records: u64,
}

/// What has been part of a commit that isn't acknowledged: kept, as it must be part of the next one should this fail.
#[derive(Debug, Default)]
struct Unacknowledged {
    effects: Vec<Arc<Vec<Effect>>>,
    bytes: usize,
    records: u64,
    times: Vec<(Millis, u32)>,
}

impl PartitionWork {
    pub(super) fn new(
        id: PartitionId,
        assignment: u64,
        start: Offset,
        states: impl IntoIterator<Item = (GeneratorId, StoredState)>,
        detector: &Detector,
        now: Millis,
    ) -> PartitionWork {
        PartitionWork {
            id,
            assignment,
            epoch: assignment,
            stage: Stage::Working,
            next: start,
            lanes: Lanes::restore(states, detector, now),
            buffer: ReorderBuffer::new(start),
            running: 0,
            paused: false,
            retired: Retired::default(),
            unacknowledged: Unacknowledged::default(),
            committed: start,
            records: 0,
        }
    }

    /// Whether the record at `offset` is to be taken in; if so it counts as taken.
    pub(super) fn accepts(&mut self, offset: Offset) -> bool {
        if self.stage != Stage::Working || offset < self.next {
            return false;
        }
        self.next = offset.next();
        self.records += 1;
        true
    }

    /// Evaluates a record as it arrives. Nothing can be waiting: in this handling every record is done on arrival.
    pub(super) fn evaluate(
        &mut self,
        detector: &Detector,
        parsed: &Parsed<'_>,
        source: Source,
        now: Millis,
        late: &mut [u64],
    ) {
        debug_assert!(self.buffer.is_empty());
        let before = self.retired.effects.len();
        self.lanes.evaluate(detector, parsed, source, now, &mut self.retired.effects, late);
        self.retired.bytes += self.retired.effects[before..].iter().map(Effect::bytes).sum::<usize>();
        self.retired.count(source.at);
        self.buffer.skip_to(source.offset.next());
    }

    /// Queues a record on its generator's lane.
    pub(super) fn enqueue(
        &mut self,
        detector: &Detector,
        parsed: &Parsed<'_>,
        source: Source,
        bytes: usize,
        now: Millis,
    ) {
        let seq = self.buffer.push(source.offset, source.at, bytes);
        self.lanes.enqueue(detector, parsed, source, seq, now);
    }

    /// A record that needs no work.
    pub(super) fn done(&mut self, offset: Offset, at: Millis, effects: Vec<Effect>) {
        self.buffer.pass(offset, at, effects, &mut self.retired);
    }

    pub(super) fn reached(&mut self, position: Offset) {
        if self.stage == Stage::Working && position >= self.next {
            self.next = position;
            self.buffer.skip_to(position);
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

    /// Whether the ticket was one of this assignment's running readings.
    pub(super) fn finish(
        &mut self,
        ticket: Ticket,
        detector: &Detector,
        now: Millis,
        late: &mut [u64],
    ) -> bool {
        if ticket.epoch != self.epoch {
            return false;
        }
        let Some(effects) = self.lanes.finish(ticket.lane, ticket.seq, detector, now, late) else {
            return false;
        };
        self.running -= 1;
        self.buffer.finish(ticket.seq, effects, &mut self.retired);
        true
    }

    pub(super) fn watch_silence(&mut self, end: Offset, detector: &Detector, asked: Millis, now: Millis) {
        if self.stage == Stage::Working && self.next >= end {
            let effects = self.lanes.watch_silence(detector, self.id, asked, now);
            if !effects.is_empty() {
                self.buffer.append(effects, &mut self.retired);
            }
        }
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
        self.retired = Retired::default();
        self.unacknowledged = Unacknowledged::default();
    }

    /// Forgets what runs, under a new epoch so that its tickets are void; gives how many there were.
    pub(super) fn forget_running(&mut self, epoch: &mut u64) -> usize {
        *epoch += 1;
        self.epoch = *epoch;
        std::mem::take(&mut self.running)
    }

    /// Whether nothing runs and all that has retired is committed.
    pub(super) fn is_drained(&self) -> bool {
        self.running == 0 && !self.has_uncommitted()
    }

    fn has_uncommitted(&self) -> bool {
        self.has_effects() || self.buffer.position() > self.committed
    }

    fn has_effects(&self) -> bool {
        !self.retired.effects.is_empty() || !self.unacknowledged.effects.is_empty()
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

    pub(super) fn take_part(&mut self) -> Option<CommitPart> {
        if self.stage == Stage::Lost || !self.has_uncommitted() {
            return None;
        }
        let retired = std::mem::take(&mut self.retired);
        let pending = &mut self.unacknowledged;
        if !retired.effects.is_empty() {
            pending.effects.push(Arc::new(retired.effects));
            pending.bytes += retired.bytes;
        }
        pending.records += retired.records;
        if pending.times.len() < MAX_TIME_RUNS {
            pending.times.extend(retired.times);
        }
        Some(CommitPart {
            partition: self.id,
            offset: self.buffer.position(),
            effects: pending.effects.clone(),
        })
    }

    pub(super) fn acknowledge(&mut self, offset: Offset) -> CommittedPart {
        self.committed = self.committed.max(offset);
        let Unacknowledged { effects, records, times, .. } = std::mem::take(&mut self.unacknowledged);
        CommittedPart { partition: self.id, offset, records, times, effects }
    }

    pub(super) fn pause_if_full(&mut self, share: Bounds) -> bool {
        let full = self.buffer.len() >= share.records || self.bytes() >= share.bytes;
        let pause = full && !self.paused && self.stage == Stage::Working;
        self.paused |= pause;
        pause
    }

    pub(super) fn resume_if_drained(&mut self, share: Bounds) -> bool {
        // Half of the share, so that pausing isn't flapping: each pause makes librdkafka fetch anew.
        let drained = self.buffer.len() <= share.records / 2 && self.bytes() <= share.bytes / 2;
        let resume = drained && self.paused && self.stage == Stage::Working;
        self.paused &= !resume;
        resume
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
        self.buffer.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.buffer.bytes() + self.retired.bytes + self.unacknowledged.bytes
    }

    pub(super) fn take_record_count(&mut self) -> u64 {
        std::mem::take(&mut self.records)
    }
}
