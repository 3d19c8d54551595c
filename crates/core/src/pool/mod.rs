//! The pool: processes readings of many generators side by side; their effects leave as soon as they exist.
//!
//! ```text
//! records ─► lanes (one at a time per generator, ─┬─► outbox (effects, as they are finished) ─────┬─► commits
//!            many generators side by side)        └─► watermark (all before it is finished) ──────┘
//! ```
//!
//! A commit holds the waiting effects, and the watermark as its offset. Effects may be ahead of it: the state record
//! among them names the reading that it covers, and after a crash the next owner skips that reading. So no generator
//! waits for another, and no effect is repeated.
//!
//! * [`lanes`]: the generators of one partition; each has its alarm state and a queue of waiting readings.
//! * [`watermark`]: how far the log is finished without a gap.
//! * [`outbox`]: effects on their way into a commit.
//! * `budget`: how much one commit may hold.
//! * [`intake`]: where the records of one partition are taken in, on whatever thread.
//! * `partition`: one partition, from assignment to release: it has lanes, a watermark and an outbox.
//! * this file: all partitions of a worker; shares the concurrency and the bounds among them, makes the commits.
//!
//! The pool is a state machine without Kafka, clock, thread or randomness: calls report what happened,
//! [`PoolAction`]s and [`Commit`]s say what to do. The worker drives it with a real broker, tests with a log in
//! memory.
//!
//! Invariants (numbered in `docs/guarantees.md`):
//! 1. At most one reading of a generator is in process at a time, the one with the lowest offset first.
//! 2. A commit of a partition holds all effects of finished records that no earlier acknowledged commit holds; dead
//!    letters only if they are below its offset. Each generator's effects are in the order of the log. Everything below
//!    the offset is finished.
//! 3. Nothing of a partition is committed after it was lost, nor taken in or started after it was revoked.
//! 4. Records and bytes held are bounded by [`Bounds`], give or take the batch that was under way.
//! 5. A partition is released only when no commit that holds it is under way.

mod budget;
pub mod intake;
pub mod lanes;
pub mod outbox;
mod partition;
pub mod watermark;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::alarm::detector::{Detector, Job};
use crate::alarm::event::AlertEvent;
use crate::alarm::state::StoredAlarms;
use crate::handler::effect::Effect;
use crate::handler::{Handler, StoredState};
use crate::types::{GeneratorId, Millis, Mono, Now, Offset, PartitionId, TopicId};
use budget::Budget;
use intake::Intake;
use partition::{PartitionWork, Stage};

/// How a reading is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Evaluated on arrival: there's nothing to wait for, so lanes would only cost.
    Inline,
    /// [`PoolAction::Run`] first hands out each reading; [`Pool::finished`] reports that its work is done, and
    /// evaluates it.
    Lanes {
        /// How many generators are processed at once. 1 is strictly serial, in the order of the log.
        concurrency: usize,
    },
}

/// What the pool may hold, over all partitions; each held partition has an equal share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Records taken in and not finished. Finished ones after an unfinished one cost 16 bytes each; [`MAX_FINISHED`]
    /// bounds them.
    pub records: usize,
    /// Bytes of unfinished records, and of effects that wait for a commit.
    pub bytes: usize,
}

/// Finished records that the watermark hasn't passed, over all partitions: after a crash the next owner processes
/// them again.
pub const MAX_FINISHED: usize = 1_000_000;

/// What one partition may hold.
#[derive(Clone, Copy, Debug)]
struct Share {
    records: usize,
    finished: usize,
    bytes: usize,
}

impl Share {
    fn of(bounds: Bounds, partitions: usize) -> Share {
        let partitions = partitions.max(1);
        Share {
            records: (bounds.records / partitions).max(1),
            finished: (MAX_FINISHED / partitions).max(1),
            bytes: (bounds.bytes / partitions).max(1),
        }
    }
}

/// When commits are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPolicy {
    /// Milliseconds between commits while only offsets move.
    pub interval: i64,
    /// Milliseconds after the last commit at which waiting effects are committed; an alert shouldn't wait for the
    /// interval.
    pub linger: i64,
    /// Bytes of effects in a commit, approximately; fewer if the brokers don't take as many in time.
    pub bytes: usize,
}

/// What a partition starts with.
#[derive(Debug)]
pub struct Beginning<B = StoredAlarms> {
    /// The first offset to take in.
    pub start: Offset,
    /// The partition's topic; state records name it.
    pub topic: Option<TopicId>,
    /// The states of its generators.
    pub states: Vec<(GeneratorId, StoredState<B>)>,
    /// States to write again, or to delete (`None`), before an offset after `start` is committed.
    pub renewals: Vec<(GeneratorId, Option<StoredState<B>>)>,
    /// The group's offset isn't one of this log: another must replace it even if no record is finished.
    pub owes_offset: bool,
    /// The latest event time before the start; see [`Handler::EVENT_TIME`].
    pub event_time: Millis,
}

impl<B> Default for Beginning<B> {
    fn default() -> Self {
        Beginning {
            start: Offset::default(),
            topic: None,
            states: Vec::new(),
            renewals: Vec::new(),
            owes_offset: false,
            event_time: NO_EVENT_TIME,
        }
    }
}

/// The latest event time where there was no record.
pub const NO_EVENT_TIME: Millis = Millis(i64::MIN);

/// One reading handed out for processing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// The reading's partition.
    pub partition: PartitionId,
    epoch: u64,
    lane: u32,
    seq: u64,
}

/// What the pool asks of its executor.
#[derive(Clone, Debug, PartialEq)]
pub enum PoolAction<T = Job> {
    /// Do the work of this reading, then call [`Pool::finished`].
    Run {
        /// To pass back.
        ticket: Ticket,
        /// The reading's generator.
        generator: GeneratorId,
        /// Its offset.
        offset: Offset,
        /// What it asks for.
        task: T,
    },
    /// Stop taking in this partition: its share of the bounds is used up.
    Pause(PartitionId),
    /// Take it in again.
    Resume(PartitionId),
    /// Give back a revoked or lost partition: nothing of it is left to do.
    Release(PartitionId),
}

/// Identifies one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// Effects and offsets that become durable together, or not at all.
#[derive(Clone, Debug)]
pub struct Commit<O = Box<AlertEvent>> {
    /// To pass back.
    pub id: CommitId,
    /// One part per partition.
    pub parts: Vec<CommitPart<O>>,
}

/// A partition's part of a commit.
#[derive(Clone, Debug)]
pub struct CommitPart<O = Box<AlertEvent>> {
    /// The partition.
    pub partition: PartitionId,
    /// The partition's topic: it tells the offset from one in another topic's log.
    pub topic: Option<TopicId>,
    /// The offset to commit: everything before it is finished.
    pub offset: Offset,
    /// The latest event time before the offset, for the next owner; see [`Handler::EVENT_TIME`].
    pub event_time: Option<Millis>,
    /// The effects of finished records that aren't acknowledged yet: each generator's in the order of the log, and
    /// all effects of a reading or none.
    pub effects: Arc<Vec<Effect<O>>>,
}

/// What an acknowledged commit has made durable, for the metrics.
#[derive(Debug)]
pub struct Committed<O = Box<AlertEvent>> {
    /// One part per partition.
    pub parts: Vec<CommittedPart<O>>,
}

/// A partition's part of [`Committed`].
#[derive(Debug)]
pub struct CommittedPart<O = Box<AlertEvent>> {
    /// The partition.
    pub partition: PartitionId,
    /// The offset committed.
    pub offset: Offset,
    /// How many records it covers.
    pub records: u64,
    /// Record timestamps, each with its number of records.
    pub times: Vec<(Millis, u32)>,
    /// The effects that are durable now.
    pub effects: Vec<Arc<Vec<Effect<O>>>>,
}

/// All partitions of a worker. Owned by the one thread that drives it; nothing in it is shared.
#[derive(Debug)]
pub struct Pool<H: Handler = Detector> {
    handler: H,
    handling: Handling,
    bounds: Bounds,
    policy: CommitPolicy,
    /// What each partition may hold.
    share: Share,
    partitions: BTreeMap<PartitionId, PartitionWork<H>>,
    /// The partition that last got a free place; the next one goes to another.
    turn: PartitionId,
    running: usize,
    /// How many partitions are paused.
    paused: usize,
    now: Now,
    epoch: u64,
    commit: Option<CommitUnderWay>,
    last_commit: (CommitId, Mono),
    budget: Budget,
    /// Records taken in of released partitions, not yet reported.
    left: BTreeMap<PartitionId, u64>,
    actions: Vec<PoolAction<H::Task>>,
    /// What the handler has counted in released partitions, not yet reported.
    counts: Vec<u64>,
}

#[derive(Debug)]
struct CommitUnderWay {
    id: CommitId,
    /// The size of its effects.
    bytes: usize,
    /// Partition, its assignment, the commit's offset.
    parts: Vec<(PartitionId, u64, Offset)>,
}

impl<H: Handler> Pool<H> {
    /// A pool that holds no partition yet. A handler that goes by event time handles records as they arrive.
    #[must_use]
    pub fn new(handler: H, handling: Handling, bounds: Bounds, policy: CommitPolicy) -> Pool<H> {
        let handling = if H::EVENT_TIME { Handling::Inline } else { handling };
        Pool {
            handler,
            handling,
            bounds,
            policy,
            share: Share::of(bounds, 0),
            partitions: BTreeMap::new(),
            turn: PartitionId(-1),
            running: 0,
            paused: 0,
            now: Now::default(),
            epoch: 0,
            commit: None,
            last_commit: (CommitId(0), Mono(i64::MIN)),
            budget: Budget::new(policy.bytes),
            actions: Vec::new(),
            left: BTreeMap::new(),
            counts: Vec::new(),
        }
    }

    /// Sets the time.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// Takes over a partition that was assigned and whose state is restored: from now on it takes in readings from
    /// its start.
    pub fn assign(&mut self, id: PartitionId, beginning: Beginning<H::Stored>) {
        self.epoch += 1;
        let work = PartitionWork::new(id, self.epoch, beginning, &self.handler, self.now);
        if let Some(old) = self.partitions.insert(id, work) {
            self.running -= old.running();
            self.paused -= usize::from(old.is_paused());
            self.keep_counts(id, old);
        }
        self.deal();
    }

    /// Where the records of a partition are taken in, if it is held. Call [`Pool::schedule`] when some were.
    pub fn intake(&mut self, id: PartitionId) -> Option<Intake<'_, H>> {
        let (handler, handling, now) = (&self.handler, self.handling, self.now);
        let work = self.partitions.get_mut(&id)?;
        Some(Intake { partition: id, work, handler, handling, now })
    }

    /// The same for each partition held. They are independent of each other.
    pub fn intakes(&mut self) -> impl Iterator<Item = Intake<'_, H>> {
        let (handler, handling, now) = (&self.handler, self.handling, self.now);
        let partitions = self.partitions.iter_mut();
        partitions.map(move |(id, work)| Intake { partition: *id, work, handler, handling, now })
    }

    /// Takes the intake's position: between the last record and `position` (transaction markers, compacted records)
    /// there is nothing to process.
    pub fn reached(&mut self, id: PartitionId, position: Offset) {
        if let Some(work) = self.partitions.get_mut(&id) {
            work.reached(position);
        }
    }

    /// Pauses partitions that are full, and starts readings while there is concurrency left. Call it after taking in and
    /// finishing.
    pub fn schedule(&mut self) {
        for (id, work) in &mut self.partitions {
            if work.pause_if_full(self.share) {
                self.paused += 1;
                self.actions.push(PoolAction::Pause(*id));
            }
        }
        let Handling::Lanes { concurrency } = self.handling else {
            return;
        };
        while self.running < concurrency {
            let Some(id) = self.next_with_ready() else { return };
            let Some(work) = self.partitions.get_mut(&id) else {
                return;
            };
            let Some((ticket, generator, offset, task)) = work.start_next() else {
                return;
            };
            self.turn = id;
            self.running += 1;
            self.actions.push(PoolAction::Run { ticket, generator, offset, task });
        }
    }

    /// Handles a reading whose work is done, with what the work found. Ignores a ticket of a released partition.
    pub fn finished(&mut self, ticket: Ticket, answer: H::Answer) {
        let Some(work) = self.partitions.get_mut(&ticket.partition) else {
            return;
        };
        if work.finish(ticket, answer, &self.handler, self.now) {
            self.running -= 1;
            self.resume_if_drained(ticket.partition);
            self.release_if_done(ticket.partition);
        }
    }

    /// Gives up the partition: takes in and starts no more, finishes what runs, commits, then asks for release.
    pub fn revoke(&mut self, id: PartitionId) {
        if let Some(work) = self.partitions.get_mut(&id) {
            work.revoke();
            self.release_if_done(id);
        }
    }

    /// Forgets what still runs of a revoked partition whose drain has taken too long (the next owner processes it
    /// again); commits what is finished.
    pub fn abandon(&mut self, id: PartitionId) {
        if let Some(work) = self.partitions.get_mut(&id) {
            self.running -= work.forget_running(&mut self.epoch);
            self.release_if_done(id);
        }
    }

    /// Has a partition commit everything, changed states included, as soon as all records before `end` are finished:
    /// somebody waits for that commit.
    pub fn finish_at(&mut self, id: PartitionId, end: Offset) {
        if let Some(work) = self.partitions.get_mut(&id) {
            work.finish_at(end);
        }
    }

    /// Drops everything of a partition that already belongs to others; commits nothing of it.
    pub fn lose(&mut self, id: PartitionId) {
        if let Some(work) = self.partitions.get_mut(&id) {
            self.running -= work.forget_running(&mut self.epoch);
            work.lose();
            self.release_if_done(id);
        }
    }

    /// The next commit, if one is due and none is under way.
    pub fn take_commit(&mut self) -> Option<Commit<H::Output>> {
        if self.commit.is_some() || !self.commit_is_due() {
            return None;
        }
        let (policy, now, handler) = (self.policy, self.now, &self.handler);
        let mut wanting: Vec<&mut PartitionWork<H>> =
            self.partitions.values_mut().filter(|work| work.wants_commit(policy, now)).collect();
        let share = self.budget.bytes() / wanting.len().max(1);
        let parts: Vec<CommitPart<H::Output>> =
            wanting.iter_mut().map(|work| work.take_part(share, handler, policy, now)).collect();
        let bytes = wanting.iter().map(|work| work.committing_bytes()).sum();
        if parts.is_empty() {
            return None;
        }
        let id = CommitId(self.last_commit.0.0 + 1);
        self.last_commit = (id, self.now.mono);
        let assignment = |part: &CommitPart<H::Output>| self.partitions[&part.partition].assignment();
        let under_way = parts.iter().map(|part| (part.partition, assignment(part), part.offset));
        self.commit = Some(CommitUnderWay { id, bytes, parts: under_way.collect() });
        Some(Commit { id, parts })
    }

    /// When to call [`Pool::take_commit`] next; `None` while there's nothing to commit, or a commit is under way.
    #[must_use]
    pub fn next_commit(&self) -> Option<Mono> {
        if self.commit.is_some() {
            return None;
        }
        let wait = self.partitions.values().filter_map(|work| work.commit_wait(self.policy)).min()?;
        Some(self.last_commit.1.after(wait))
    }

    /// Takes note that the commit is durable.
    pub fn committed(&mut self, id: CommitId) -> Committed<H::Output> {
        let mut done = Committed { parts: Vec::new() };
        let Some(commit) = self.commit.take_if(|commit| commit.id == id) else {
            return done;
        };
        self.budget.succeeded();
        for (partition, assignment, offset) in commit.parts {
            let work = self.partitions.get_mut(&partition).filter(|work| work.assignment() == assignment);
            let Some(work) = work else { continue };
            done.parts.push(work.acknowledge(offset));
            self.resume_if_drained(partition);
            self.release_if_done(partition);
        }
        done
    }

    /// Takes note that the commit was refused: its effects are part of the next one, unless they are `published`,
    /// that is, durable without their offset. One that took `too_long` isn't repeated in this size.
    pub fn refused(&mut self, id: CommitId, published: bool, too_long: bool) {
        let Some(commit) = self.commit.take_if(|commit| commit.id == id) else {
            return;
        };
        if too_long {
            self.budget.was_too_long(commit.bytes);
        }
        for (partition, assignment, _) in commit.parts {
            let work = self.partitions.get_mut(&partition).filter(|work| work.assignment() == assignment);
            if let Some(work) = work {
                work.refused(published);
            }
            self.release_if_done(partition);
        }
    }

    /// Has the handler act on time that had passed at `asked`, when the partition ended at `end`: only if all of it
    /// has been taken in, because a backlog isn't silence. Later records may still be on their way, so time counts up
    /// to `asked`. Costs a pass over the partition's generators, so call it about once a second.
    pub fn watch(&mut self, id: PartitionId, end: Offset, asked: Now) {
        if self.handler.watches()
            && let Some(work) = self.partitions.get_mut(&id)
        {
            work.watch(end, &self.handler, asked, self.now);
        }
    }

    /// Returns the actions since the last call.
    pub fn actions(&mut self) -> std::vec::Drain<'_, PoolAction<H::Task>> {
        self.actions.drain(..)
    }

    /// The partitions held: assigned and not released.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions.keys().copied()
    }

    /// The next offset to take in; `None` if the partition isn't held.
    #[must_use]
    pub fn next_offset(&self, id: PartitionId) -> Option<Offset> {
        self.partitions.get(&id).map(PartitionWork::next)
    }

    /// The committed offset: the last one that this worker has committed, or the one that the partition started from.
    #[must_use]
    pub fn committed_offset(&self, id: PartitionId) -> Option<Offset> {
        self.partitions.get(&id).map(PartitionWork::committed)
    }

    /// Whether the pool has paused the partition.
    #[must_use]
    pub fn is_paused(&self, id: PartitionId) -> bool {
        self.partitions.get(&id).is_some_and(PartitionWork::is_paused)
    }

    /// Whether some partition is paused, because its share of the bounds is used up. Cheap: call it as often as you
    /// like.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.paused > 0
    }

    /// Readings in process now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running
    }

    /// Records taken in and not finished.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.partitions.values().map(PartitionWork::in_flight).sum()
    }

    /// Bytes held: records not finished, effects not acknowledged.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.partitions.values().map(PartitionWork::bytes).sum()
    }

    /// Known generators: those with a stored state, and those read recently.
    #[must_use]
    pub fn generators(&self) -> usize {
        self.partitions.values().map(PartitionWork::generators).sum()
    }

    /// Forgets generators that have nothing to remember and were idle for `idle` milliseconds.
    pub fn forget_idle(&mut self, idle: i64) {
        for work in self.partitions.values_mut() {
            work.forget_idle(&self.handler, idle, self.now);
        }
    }

    /// Writes every generator's state again, after the stored ones were lost. Returns how many there are.
    pub fn store_states(&mut self) -> usize {
        self.partitions.values_mut().map(|work| work.store_states(&self.handler)).sum()
    }

    /// Records taken in since the last call, by partition.
    pub fn take_record_counts(&mut self) -> impl Iterator<Item = (PartitionId, u64)> {
        let held = self.partitions.iter_mut().map(|(id, work)| (*id, work.take_record_count()));
        std::mem::take(&mut self.left).into_iter().chain(held)
    }

    /// What the handler has counted since the last call, by counter: for the detector, late evaluations by rule.
    pub fn take_counts(&mut self) -> Vec<u64> {
        let mut counts = std::mem::take(&mut self.counts);
        counts.resize(self.handler.counters(), 0);
        for work in self.partitions.values_mut() {
            add(&mut counts, &work.take_counts());
        }
        counts
    }

    /// The handler.
    #[must_use]
    pub fn handler(&self) -> &H {
        &self.handler
    }

    fn commit_is_due(&self) -> bool {
        self.next_commit().is_some_and(|due| due <= self.now.mono)
    }

    /// The next partition, round-robin, that has a reading ready to start.
    fn next_with_ready(&self) -> Option<PartitionId> {
        let after = (std::ops::Bound::Excluded(self.turn), std::ops::Bound::Unbounded);
        let later = self.partitions.range(after);
        let ready = |(_, work): &(&PartitionId, &PartitionWork<H>)| work.has_ready();
        later.chain(self.partitions.range(..=self.turn)).find(ready).map(|(id, _)| *id)
    }

    /// Deals the bounds out to the partitions that are held now.
    fn deal(&mut self) {
        self.share = Share::of(self.bounds, self.partitions.len());
    }

    fn resume_if_drained(&mut self, id: PartitionId) {
        let share = self.share;
        if self.partitions.get_mut(&id).is_some_and(|work| work.resume_if_drained(share)) {
            self.paused -= 1;
            self.actions.push(PoolAction::Resume(id));
        }
    }

    fn release_if_done(&mut self, id: PartitionId) {
        let committing =
            self.commit.as_ref().is_some_and(|commit| commit.parts.iter().any(|part| part.0 == id));
        if committing {
            return;
        }
        let done = self.partitions.get(&id).is_some_and(|work| match work.stage() {
            Stage::Working => false,
            Stage::Revoked => work.is_drained(),
            Stage::Lost => true,
        });
        if done {
            let released = self.partitions.remove(&id);
            self.paused -= usize::from(released.as_ref().is_some_and(PartitionWork::is_paused));
            if let Some(work) = released {
                self.keep_counts(id, work);
            }
            self.deal();
            self.actions.push(PoolAction::Release(id));
        }
    }

    /// Keeps what a partition has counted and nobody has asked for.
    fn keep_counts(&mut self, id: PartitionId, mut work: PartitionWork<H>) {
        *self.left.entry(id).or_default() += work.take_record_count();
        self.counts.resize(self.handler.counters(), 0);
        add(&mut self.counts, &work.take_counts());
    }
}

fn add(counts: &mut [u64], more: &[u64]) {
    for (count, more) in counts.iter_mut().zip(more) {
        *count += more;
    }
}
