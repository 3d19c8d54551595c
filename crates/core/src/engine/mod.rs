//! The engine: every decision of a worker. Worker and simulation are its two executors.
//!
//! Calls report what happened (rebalances, answers of the restorer, outcomes of commits, the time); [`Action`]s and
//! commits say what to do about it. The engine has no Kafka, clock, thread or randomness. Records pass only through
//! it and the [`Pool`].
//!
//! * `slot`: one partition that is assigned to us, and its phase.
//! * [`restore`]: what a partition asks of the cluster before it starts, and in which order.
//! * [`start`]: where it then starts, and with which states. [`note`]: the metadata of a committed offset, read at
//!   that time.
//! * `rebalance`: revocations and losses that librdkafka waits for.
//! * [`commit`]: the steps of a commit.
//! * [`membership`]: our membership in the group, and the fence of a commit.
//! * this file: how these affect one another.
//!
//! What the group does, and what that means for a partition:
//!
//! ```text
//! assigned ─► waiting ─► restoring ─► active ─► draining ─► given back
//!    (no membership)          │          │          │
//!                             └► refused ◄┴► dropped ┴► given back, or restored again
//! ```
//!
//! One rule governs them all: a partition is held *under a membership*. When that ends (another member id, or none;
//! for a draining partition also another generation) everything of the partition is dropped, whatever librdkafka
//! reports about the loss (`rd_kafka_cgrp_handle_heartbeat_error_op`, librdkafka 2.12.1: a member that is thrown out
//! while a revocation is unanswered isn't notified). The membership is checked once more as a commit leaves, see
//! [`Fence`].

pub mod commit;
pub mod encode;
pub mod membership;
pub mod note;
mod rebalance;
pub mod restore;
mod slot;
pub mod start;

use std::collections::{BTreeMap, BTreeSet};

use crate::alarm::detector::{Detector, Job};
use crate::handler::Handler;
use crate::pool::intake::Intake;
use crate::pool::{self, Commit, CommitId, Committed, Pool, Ticket};
use crate::types::{GeneratorId, Mono, Now, Offset, PartitionId, TopicId};
use membership::{Fence, Member, Refusal};
use rebalance::Rebalances;
use restore::{Answer, AskId, Fault, Question, Restore, RestoreStep};
use slot::{Phase, Slot, Then};
use start::{Log, Policies, Start};

pub use slot::{SlotStatus, SlotView};

/// With `--exit-at-end`, how long a worker without partitions waits for an assignment, in milliseconds.
const NO_ASSIGNMENT_TIMEOUT: i64 = 10_000;
/// How long the next commit waits after a refused one, in milliseconds.
const COMMIT_BACKOFF: i64 = 100;
/// The same, if only the generation was out of date: that is over in a moment.
const GENERATION_BACKOFF: i64 = 5;
/// How long a partition may wait for its last commit after its drain timeout, in milliseconds.
const LAST_COMMIT: i64 = 3_000;
/// How long a refused seek waits before it is repeated, in milliseconds.
const SEEK_AGAIN: i64 = 100;

/// Settings that never change.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a partition that is given up may drain, in milliseconds.
    pub drain: i64,
    /// The user's choices.
    pub policies: Policies,
    /// Stop when every partition has reached the end that it had when it was assigned.
    pub exit_at_end: bool,
}

/// What the engine asks of its executor.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<T = Job> {
    /// Do the work of this reading, then call [`Engine::finished`].
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
    /// Stop fetching.
    Pause(PartitionId),
    /// Go on fetching.
    Resume(PartitionId),
    /// Answer the assignment: at once, always.
    Acknowledge,
    /// Start fetching at this offset.
    Add(PartitionId, Offset),
    /// Fetch from this offset on and drop what was prefetched. Then call [`Engine::sought`].
    Seek(PartitionId, Offset),
    /// The same, for a partition that the client has stopped fetching: unassign it and assign it again. Then call
    /// [`Engine::sought`].
    Reassign(PartitionId, Offset),
    /// Answer the oldest revocation or loss: stop fetching these.
    Unassign(Vec<PartitionId>),
    /// Ask the cluster, then call [`Engine::answered`].
    Ask(AskId, PartitionId, Question),
    /// Nothing waits for this answer any more.
    Forget(AskId),
    /// No partition of the commit under way is ours any more: end it soon, with any outcome.
    Abandon,
    /// The drain timeout is over: no commit may wait for the cluster any more.
    GiveUp,
    /// A partition isn't ours any more, or not for now: remove its metrics.
    Gone(PartitionId),
    /// Write a log line about this.
    Report(PartitionId, Reported),
}

/// What a user should know about a partition.
#[derive(Clone, Debug, PartialEq)]
pub enum Reported {
    /// It is processed from this offset on.
    Started {
        /// The first offset.
        start: Offset,
        /// Generators whose state was restored.
        generators: usize,
    },
    /// Its committed offset isn't in the log: it starts at the log's first offset.
    Skipped {
        /// The committed offset.
        committed: Offset,
        /// The first offset in the log.
        low: Offset,
    },
    /// The log is of another topic than the one processed before: it is processed from its first reading.
    NewTopic {
        /// The former topic id.
        was: TopicId,
        /// The topic's id now.
        now: TopicId,
        /// Generators that keep their state.
        kept: usize,
        /// Generators whose state is deleted.
        forgotten: usize,
    },
    /// No worker has committed the offset that it starts from: readings that a state covers are skipped.
    StatesAhead {
        /// Generators whose state is ahead of it.
        generators: usize,
        /// The offset.
        start: Offset,
    },
    /// States cover readings that the log doesn't have: the log was truncated.
    StatesBeyondTheEnd {
        /// Generators with such a state.
        generators: usize,
        /// The end of the log.
        high: Offset,
    },
    /// It isn't processed until the fault is fixed and the worker restarted.
    Refused(Fault),
    /// Its uncommitted work is dropped: the membership that held it is over, or its time is.
    Dropped,
    /// Readings that were in process when its time was over are left to the next owner.
    Abandoned,
}

/// What keeps the worker from processing, as probes ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The group has given an assignment and not taken all of it back.
    pub joined: bool,
    /// Some partition waits for its restore.
    pub restoring: bool,
    /// Some partition is refused.
    pub refused: bool,
    /// The worker is stopping.
    pub draining: bool,
}

/// A notice of the client about one partition, in place of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It resolves itself. The client has moved on past the notice's offset, as if there had been a record
    /// (`rd_kafka_q_serve_rkmessages`, librdkafka 2.12.1).
    Transient,
    /// Our next offset isn't in the log any more.
    OutOfRange,
    /// The data there can't be read.
    Unreadable(String),
}

/// All partitions of a worker and what is under way for them. Owned by the one thread that drives it.
#[derive(Debug)]
pub struct Engine<H: Handler = Detector> {
    settings: Settings,
    pool: Pool<H>,
    now: Now,
    /// The id of the readings topic that the client knew first.
    topic: Option<TopicId>,
    is_void: bool,
    member: Option<Member>,
    slots: BTreeMap<PartitionId, Slot<H::Stored>>,
    /// The partitions that the client fetches.
    added: BTreeSet<PartitionId>,
    /// Assigned again before we have given them back: when a topic grows, the client rejoins with a revocation
    /// unanswered.
    returning: BTreeSet<PartitionId>,
    rebalances: Rebalances,
    asks: u64,
    committing: Option<Committing>,
    commit_not_before: Mono,
    /// The group has given an assignment, and no loss or end of the membership came after it.
    joined: bool,
    assigned_at: Option<Mono>,
    /// Set once it's stopping: the end of its drain.
    stop_by: Option<Mono>,
    given_up: bool,
    actions: Vec<Action<H::Task>>,
}

/// The commit under way.
#[derive(Debug)]
struct Committing {
    id: CommitId,
    partitions: Vec<PartitionId>,
    abandoned: bool,
}

impl<H: Handler> Engine<H> {
    /// An engine that holds nothing yet.
    #[must_use]
    pub fn new(pool: Pool<H>, settings: Settings) -> Engine<H> {
        Engine {
            settings,
            pool,
            now: Now::default(),
            topic: None,
            is_void: false,
            member: None,
            slots: BTreeMap::new(),
            added: BTreeSet::new(),
            returning: BTreeSet::new(),
            rebalances: Rebalances::default(),
            asks: 0,
            committing: None,
            commit_not_before: Mono(i64::MIN),
            joined: false,
            assigned_at: None,
            stop_by: None,
            given_up: false,
            actions: Vec::new(),
        }
    }

    /// Sets the time, once per loop iteration.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
        self.pool.set_now(now);
    }

    // ----------------------------------------------------------------------------------------------------------------
    // Records. The pool holds the partitions that are active.

    /// Where the records of a partition are taken in, if it is active. Call [`Engine::schedule`] when some were.
    pub fn intake(&mut self, id: PartitionId) -> Option<Intake<'_, H>> {
        self.pool.intake(id)
    }

    /// The same for each active partition. They are independent of each other.
    pub fn intakes(&mut self) -> impl Iterator<Item = Intake<'_, H>> {
        self.pool.intakes()
    }

    /// Takes note that the work of a reading is done, and of what it found.
    pub fn finished(&mut self, ticket: Ticket, answer: H::Answer) {
        self.pool.finished(ticket, answer);
    }

    /// See [`Pool::schedule`].
    pub fn schedule(&mut self) {
        self.pool.schedule();
    }

    // ----------------------------------------------------------------------------------------------------------------
    // The group.

    /// Whether our membership matters now; in steady state it doesn't.
    #[must_use]
    pub fn asks_for_member(&self) -> bool {
        let unsettled = |slot: &Slot<H::Stored>| !matches!(slot.phase, Phase::Active | Phase::Refused);
        !self.rebalances.is_empty() || self.slots.values().any(unsettled)
    }

    /// Takes our membership, as the client knows it; `None`: not a member.
    pub fn member(&mut self, member: Option<Member>) {
        let same = match (&self.member, &member) {
            (Some(old), Some(new)) => old.id == new.id,
            (old, new) => old.is_none() && new.is_none(),
        };
        self.member = member;
        if same {
            self.drop_draining_of_another_generation();
        } else {
            self.drop_all_of_another_membership();
        }
        if self.member.is_none() {
            self.joined = false;
        }
        self.follow_pool();
    }

    /// The topic's metadata may make librdkafka rejoin with a revocation unanswered
    /// (`rd_kafka_cgrp_metadata_update_check`, librdkafka 2.12.1): a draining partition may then have an owner that
    /// doesn't wait.
    fn drop_draining_of_another_generation(&mut self) {
        let Some(generation) = self.member.as_ref().map(|member| member.generation) else { return };
        let is_stale = |(id, slot): (&PartitionId, &Slot<H::Stored>)| match slot.phase {
            Phase::Draining { generation: Some(of) } if of != generation => Some(*id),
            _ => None,
        };
        for id in self.slots.iter().filter_map(is_stale).collect::<Vec<_>>() {
            self.drop_then(id, Then::Gone);
        }
    }

    fn drop_all_of_another_membership(&mut self) {
        self.returning.clear();
        for id in self.slots.keys().copied().collect::<Vec<_>>() {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            match &slot.phase {
                Phase::Waiting | Phase::Refused => slot.phase = Phase::Waiting,
                Phase::Restoring(restore) => {
                    self.actions.push(Action::Forget(restore.ask));
                    slot.phase = Phase::Waiting;
                }
                Phase::Active => self.drop_then(id, Then::Wait),
                Phase::Draining { .. } => self.drop_then(id, Then::Gone),
                Phase::Dropping(Then::Gone) => {}
                Phase::Dropping(_) => slot.phase = Phase::Dropping(Then::Wait),
            }
        }
    }

    /// The process stood still for so long that the group may have gone on without it, and the client hasn't heard of
    /// that yet. What is held may be out of date: it is dropped, and partitions that stay ours are restored again.
    pub fn stood_still(&mut self) {
        for id in self.slots.keys().copied().collect::<Vec<_>>() {
            match self.slots.get(&id).map(|slot| &slot.phase) {
                Some(Phase::Active) => self.drop_then(id, Then::Restore),
                Some(Phase::Draining { .. }) => self.drop_then(id, Then::Gone),
                Some(Phase::Restoring(restore)) => {
                    self.actions.push(Action::Forget(restore.ask));
                    self.restore(id);
                }
                Some(Phase::Waiting | Phase::Refused | Phase::Dropping(_)) | None => {}
            }
        }
        self.follow_pool();
    }

    /// Takes an assignment: these are ours now.
    pub fn assigned(&mut self, partitions: &[PartitionId]) {
        self.actions.push(Action::Acknowledge);
        self.assigned_at = Some(self.now.mono);
        self.joined = true;
        if self.stop_by.is_none() {
            for id in partitions {
                match self.slots.get(id).map(|slot| &slot.phase) {
                    Some(Phase::Draining { .. } | Phase::Dropping(Then::Gone)) => {
                        self.returning.insert(*id);
                    }
                    Some(_) => {}
                    None => {
                        self.slots.insert(*id, Slot::new());
                    }
                }
            }
            self.restore_what_waits();
        }
        self.follow_pool();
    }

    /// Takes a revocation: these are to be given up; the client waits until they are unassigned.
    pub fn revoked(&mut self, partitions: &[PartitionId]) {
        let generation = self.member.as_ref().map(|member| member.generation);
        self.give_back(partitions, |engine, id| {
            engine.set_phase(id, Phase::Draining { generation });
            engine.pool.revoke(id);
        });
    }

    /// Takes a loss: these already belong to others.
    pub fn lost(&mut self, partitions: &[PartitionId]) {
        self.joined = false;
        self.give_back(partitions, |engine, id| engine.drop_then(id, Then::Gone));
    }

    fn give_back(&mut self, partitions: &[PartitionId], how: impl Fn(&mut Engine<H>, PartitionId)) {
        self.returning.retain(|id| !partitions.contains(id));
        let listed = partitions.iter().copied().filter(|id| self.added.contains(id)).collect();
        let mut waiting = BTreeSet::new();
        for id in partitions {
            match self.slots.get(id).map(|slot| &slot.phase) {
                None => {}
                Some(Phase::Waiting | Phase::Restoring(_) | Phase::Refused) => self.forget(*id),
                Some(_) => {
                    waiting.insert(*id);
                }
            }
        }
        let pooled: Vec<PartitionId> = waiting.iter().copied().collect();
        let run_by = self.now.mono.after(self.settings.drain);
        self.rebalances.open(waiting, listed, run_by, run_by.after(LAST_COMMIT));
        for id in pooled {
            match self.slots.get_mut(&id).map(|slot| &mut slot.phase) {
                Some(Phase::Dropping(then)) => *then = Then::Gone,
                _ => how(self, id),
            }
        }
        self.follow_pool();
    }

    // ----------------------------------------------------------------------------------------------------------------
    // Restoring.

    /// Any assignment, even an empty one, confirms that everything else we had stays ours. One that was under way
    /// when the membership ended still arrives, but confirms nothing.
    fn restore_what_waits(&mut self) {
        if self.member.is_none() {
            return;
        }
        for id in self.slots.keys().copied().collect::<Vec<_>>() {
            match self.slots.get(&id).map(|slot| &slot.phase) {
                Some(Phase::Waiting) => self.restore(id),
                Some(Phase::Dropping(Then::Wait)) => self.set_phase(id, Phase::Dropping(Then::Restore)),
                _ => {}
            }
        }
    }

    fn restore(&mut self, id: PartitionId) {
        self.asks += 1;
        let Some(slot) = self.slots.get(&id) else { return };
        let restore = Restore::<H::Stored>::new(AskId(self.asks), slot.topic.clone(), slot.stopped);
        self.actions.push(Action::Ask(restore.ask, id, Restore::<H::Stored>::FIRST));
        self.set_phase(id, Phase::Restoring(restore));
    }

    /// Takes the answer to a question; ignores it if the question was forgotten.
    pub fn answered(&mut self, ask: AskId, answer: Answer<H::Stored>) {
        let asked =
            |slot: &Slot<H::Stored>| matches!(&slot.phase, Phase::Restoring(restore) if restore.ask == ask);
        let Some(id) = self.slots.iter().find(|(_, slot)| asked(slot)).map(|(id, _)| *id) else { return };
        if let Answer::Log(Log { topic: Some(topic), .. }) = &answer {
            self.topic(topic);
        }
        if self.is_void {
            return;
        }
        let answer = self.checked(answer);
        let Some(Slot { phase: Phase::Restoring(restore), .. }) = self.slots.get_mut(&id) else { return };
        match restore.next(answer, self.settings.policies) {
            RestoreStep::Ask(question) => {
                self.asks += 1;
                restore.ask = AskId(self.asks);
                self.actions.push(Action::Ask(restore.ask, id, question));
            }
            RestoreStep::Start(start) => self.start(id, start),
            RestoreStep::Refuse(fault) => self.refuse(id, fault),
        }
        self.follow_pool();
    }

    /// A state that the handler can't restore is a fault of the partition.
    fn checked(&self, answer: Answer<H::Stored>) -> Answer<H::Stored> {
        let Answer::States(states) = &answer else { return answer };
        let fault = states.iter().find_map(|(generator, state)| {
            let reason = self.pool.handler().check(&state.body).err()?;
            Some(Fault::Foreign { reason: format!("that of {generator} ({reason})") })
        });
        fault.map_or(answer, Answer::Never)
    }

    fn start(&mut self, id: PartitionId, start: Start<H::Stored>) {
        let Start { beginning, end, told } = start;
        let offset = beginning.start;
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.begin(offset, end, beginning.topic.clone());
        self.actions.extend(told.into_iter().map(|told| Action::Report(id, told)));
        let generators = beginning.states.len();
        self.actions.push(Action::Report(id, Reported::Started { start: offset, generators }));
        // The pool first: a record may come as soon as the client fetches.
        self.pool.assign(id, beginning);
        if let (true, Some(end)) = (self.settings.exit_at_end, slot.end) {
            self.pool.finish_at(id, end);
        }
        if self.added.insert(id) {
            slot.stopped = None;
            self.actions.push(Action::Add(id, offset));
        } else {
            self.seek(id);
        }
    }

    fn refuse(&mut self, id: PartitionId, fault: Fault) {
        self.actions.push(Action::Report(id, Reported::Refused(fault)));
        self.set_phase(id, Phase::Refused);
    }

    // ----------------------------------------------------------------------------------------------------------------
    // The client's fetcher.

    /// Takes a notice in place of a record. Call it when all records of the same poll are taken in.
    pub fn notice(&mut self, id: PartitionId, offset: Offset, notice: Notice) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        match (&slot.phase, notice) {
            (Phase::Active | Phase::Draining { .. }, Notice::Transient) => {
                let next = self.pool.next_offset(id).unwrap_or(offset);
                // A record after the notice has corrected the client's position.
                if next <= offset {
                    self.seek(id);
                }
            }
            // Retention, a truncated log, or another topic: the restore finds out and decides.
            (Phase::Active, Notice::OutOfRange) => {
                slot.stopped = Some(offset);
                self.drop_then(id, Then::Restore);
            }
            (Phase::Active, Notice::Unreadable(reason)) => {
                self.drop_then(id, Then::Refuse(Fault::Unreadable { offset, reason }));
            }
            _ => {}
        }
        self.follow_pool();
    }

    /// Seeks the fetcher to the pool's offset. The partition stays paused until then: records from elsewhere would be
    /// taken for the next ones.
    fn seek(&mut self, id: PartitionId) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.suspect = Some(self.now.mono);
            self.actions.push(Action::Pause(id));
        }
        self.seek_suspects();
    }

    fn seek_suspects(&mut self) {
        for (id, slot) in &mut self.slots {
            let is_due = slot.suspect.is_some_and(|at| at <= self.now.mono);
            if let (true, Phase::Active, Some(next)) = (is_due, &slot.phase, self.pool.next_offset(*id)) {
                slot.suspect = Some(self.now.mono.after(SEEK_AGAIN));
                if slot.stopped.is_none() {
                    self.actions.push(Action::Seek(*id, next));
                } else if self.rebalances.is_empty() {
                    // While a revocation is open, any unassign would answer it.
                    self.actions.push(Action::Reassign(*id, next));
                }
            }
        }
    }

    /// Takes note that a seek is done.
    pub fn sought(&mut self, id: PartitionId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.stopped = None;
        let suspect = slot.suspect.take();
        if suspect.is_some() && !self.pool.is_paused(id) {
            self.actions.push(Action::Resume(id));
        }
    }

    /// Takes the client's position: between the last record and `position` there is nothing to process.
    pub fn position(&mut self, id: PartitionId, position: Offset) {
        let trusted = |slot: &&Slot<H::Stored>| matches!(slot.phase, Phase::Active) && slot.suspect.is_none();
        if self.slots.get(&id).filter(trusted).is_some() {
            self.pool.reached(id, position);
        }
    }

    /// Has the handler act on time that had passed at `asked`, when the partition ended at `end`.
    pub fn end(&mut self, id: PartitionId, end: Offset, asked: Now) {
        self.pool.watch(id, end, asked);
    }

    /// Takes the id of the readings topic. A client that knows another id may never find the leaders of this one: it
    /// ignores leader epochs below the one it knows, and a recreated topic begins at 0
    /// (`rd_kafka_toppar_leader_update`, librdkafka 2.12.1).
    pub fn topic(&mut self, topic: &TopicId) {
        let known = self.topic.get_or_insert_with(|| topic.clone());
        self.is_void |= known != topic && self.stop_by.is_none();
    }

    /// Writes all held states again, after the state topic was recreated. Returns how many.
    pub fn store_states(&mut self) -> usize {
        self.pool.store_states()
    }

    /// Whether the client is unusable: a new client and a new engine must replace them.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.is_void
    }

    // ----------------------------------------------------------------------------------------------------------------
    // Commits.

    /// The next commit, if one is due, and the fence to check as it leaves.
    pub fn take_commit(&mut self) -> Option<(Commit<H::Output>, Fence)> {
        if self.now.mono < self.commit_not_before {
            return None;
        }
        let member = self.member.as_ref()?.id.clone();
        let commit = self.pool.take_commit()?;
        let partitions: Vec<PartitionId> = commit.parts.iter().map(|part| part.partition).collect();
        let generation = |id: &PartitionId| match self.slots.get(id)?.phase {
            Phase::Draining { generation } => generation,
            _ => None,
        };
        let generation = partitions.iter().find_map(generation);
        self.committing = Some(Committing { id: commit.id, partitions, abandoned: false });
        Some((commit, Fence { member, generation }))
    }

    /// When to call [`Engine::take_commit`] next; `None` while there's nothing to commit, or a commit is under way.
    #[must_use]
    pub fn next_commit(&self) -> Option<Mono> {
        self.pool.next_commit().map(|due| due.max(self.commit_not_before))
    }

    /// Whether a commit is under way.
    #[must_use]
    pub fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// Takes note that the commit is durable. The next one may begin after `pause` milliseconds.
    pub fn committed(&mut self, id: CommitId, pause: i64) -> Committed<H::Output> {
        self.committing.take_if(|committing| committing.id == id);
        self.commit_not_before = self.now.mono.after(pause);
        let committed = self.pool.committed(id);
        self.follow_pool();
        committed
    }

    /// Takes note that the commit was refused. `published`: its effects are durable all the same.
    pub fn refused(&mut self, id: CommitId, refusal: Refusal, published: bool) {
        let committing = self.committing.take_if(|committing| committing.id == id);
        let backoff = if refusal == Refusal::StaleGeneration { GENERATION_BACKOFF } else { COMMIT_BACKOFF };
        self.commit_not_before = self.now.mono.after(backoff);
        self.pool.refused(id, published, refusal == Refusal::Overdue);
        // We hear of a loss of partitions that stay ours, or of a new membership. Of draining partitions we hear
        // nothing.
        if let (Refusal::NotAMember, Some(committing)) = (refusal, committing) {
            for id in committing.partitions {
                if self.slots.get(&id).is_some_and(|slot| matches!(slot.phase, Phase::Draining { .. })) {
                    self.drop_then(id, Then::Gone);
                }
            }
        }
        self.follow_pool();
    }

    // ----------------------------------------------------------------------------------------------------------------
    // Time, and the end.

    /// See [`Pool::forget_idle`].
    pub fn forget_idle(&mut self, idle: i64) {
        self.pool.forget_idle(idle);
    }

    /// Acts on the time: drains that take too long, ends that are reached. Once per loop iteration.
    pub fn tick(&mut self) {
        if self.settings.exit_at_end && self.has_reached_end() {
            self.stop();
        }
        self.seek_suspects();
        self.give_up_overdue();
        self.follow_pool();
    }

    /// Stops: finishes what has begun, commits it, takes in nothing more.
    pub fn stop(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        self.stop_by = Some(self.now.mono.after(self.settings.drain));
        for id in self.slots.keys().copied().collect::<Vec<_>>() {
            match self.slots.get_mut(&id).map(|slot| &mut slot.phase) {
                Some(Phase::Waiting | Phase::Restoring(_) | Phase::Refused) => self.forget(id),
                Some(phase @ Phase::Active) => {
                    *phase = Phase::Draining { generation: None };
                    self.pool.revoke(id);
                }
                Some(Phase::Dropping(then)) => *then = Then::Gone,
                Some(Phase::Draining { .. }) | None => {}
            }
        }
        self.follow_pool();
    }

    fn has_reached_end(&self) -> bool {
        let Some(assigned) = self.assigned_at else { return false };
        let reached = |(id, slot): (&PartitionId, &Slot<H::Stored>)| match &slot.phase {
            Phase::Active => slot.end.is_some_and(|end| self.pool.committed_offset(*id) >= Some(end)),
            Phase::Refused => true,
            _ => false,
        };
        if self.slots.is_empty() {
            self.rebalances.is_empty() && self.now.mono.since(assigned) > NO_ASSIGNMENT_TIMEOUT
        } else {
            self.slots.iter().all(reached)
        }
    }

    /// The next owner processes again what hasn't drained in time; what isn't committed in time is dropped: the
    /// answer that we owe the group can't wait forever.
    fn give_up_overdue(&mut self) {
        let now = self.now.mono;
        let (mut abandoned, mut dropped) = self.rebalances.overdue(now);
        if self.stop_by.is_some_and(|stop_by| now >= stop_by) && !self.given_up {
            self.given_up = true;
            self.actions.push(Action::GiveUp);
            abandoned.extend(self.pool.partitions());
        }
        if self.stop_by.is_some_and(|stop_by| now >= stop_by.after(LAST_COMMIT)) {
            dropped.extend(self.pool.partitions());
        }
        if self.is_out_of_time() {
            // A client that waits for an answer can't be closed.
            self.rebalances.wait_no_longer();
        }
        for id in abandoned {
            self.actions.push(Action::Report(id, Reported::Abandoned));
            self.pool.abandon(id);
        }
        for id in dropped {
            self.drop_then(id, Then::Gone);
        }
    }

    /// Whether the worker can leave the group: nothing is left to do, and it owes no answer. Some time after the
    /// drain timeout that is true whatever is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let settled = self.pool.partitions().next().is_none() && self.rebalances.is_empty();
        (self.stop_by.is_some() && settled) || self.is_out_of_time()
    }

    fn is_out_of_time(&self) -> bool {
        self.stop_by.is_some_and(|stop_by| self.now.mono > stop_by.after(2 * LAST_COMMIT))
    }

    // ----------------------------------------------------------------------------------------------------------------
    // Between pool and slots.

    fn set_phase(&mut self, id: PartitionId, phase: Phase<H::Stored>) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.phase = phase;
        }
    }

    /// Drops everything of the partition; `then` follows when no commit holds it any more.
    fn drop_then(&mut self, id: PartitionId, then: Then) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        match &mut slot.phase {
            Phase::Dropping(planned) if then == Then::Gone => *planned = then,
            Phase::Dropping(_) => {}
            phase => {
                self.actions.push(Action::Pause(id));
                self.actions.push(Action::Report(id, Reported::Dropped));
                *phase = Phase::Dropping(then);
                self.pool.lose(id);
            }
        }
    }

    fn forget(&mut self, id: PartitionId) {
        if let Some(Slot { phase: Phase::Restoring(restore), .. }) = self.slots.remove(&id) {
            self.actions.push(Action::Forget(restore.ask));
        }
        self.actions.push(Action::Gone(id));
    }

    /// Passes on the pool's actions, and follows up on the partitions that it has released.
    fn follow_pool(&mut self) {
        let mut released = Vec::new();
        for action in self.pool.actions() {
            match action {
                pool::PoolAction::Run { ticket, generator, offset, task } => {
                    self.actions.push(Action::Run { ticket, generator, offset, task });
                }
                pool::PoolAction::Pause(id) => self.actions.push(Action::Pause(id)),
                pool::PoolAction::Resume(id) => {
                    if self.slots.get(&id).is_some_and(|slot| slot.suspect.is_none()) {
                        self.actions.push(Action::Resume(id));
                    }
                }
                pool::PoolAction::Release(id) => released.push(id),
            }
        }
        for id in released {
            self.released(id);
        }
        self.abandon_what_nobody_waits_for();
        for listed in self.rebalances.answers() {
            self.added.retain(|id| !listed.contains(id));
            self.actions.push(Action::Unassign(listed));
        }
        self.take_back_what_returns();
    }

    /// Restores partitions that we have given back and got again, as if they came for the first time.
    fn take_back_what_returns(&mut self) {
        if self.stop_by.is_some() || self.member.is_none() {
            return;
        }
        let is_back = |id: &PartitionId| !self.added.contains(id) && !self.slots.contains_key(id);
        let back: Vec<PartitionId> = self.returning.iter().copied().filter(is_back).collect();
        for id in back {
            self.returning.remove(&id);
            self.slots.insert(id, Slot::new());
            self.restore(id);
        }
    }

    fn abandon_what_nobody_waits_for(&mut self) {
        let dropped =
            |id: &PartitionId| self.slots.get(id).is_none_or(|slot| matches!(slot.phase, Phase::Dropping(_)));
        let Some(committing) = &mut self.committing else { return };
        if !committing.abandoned && committing.partitions.iter().all(dropped) {
            committing.abandoned = true;
            self.actions.push(Action::Abandon);
        }
    }

    fn released(&mut self, id: PartitionId) {
        self.actions.push(Action::Gone(id));
        let then = match self.slots.get_mut(&id).map(|slot| &mut slot.phase) {
            Some(Phase::Dropping(then)) => std::mem::replace(then, Then::Gone),
            _ => Then::Gone,
        };
        match then {
            Then::Gone => {
                self.slots.remove(&id);
                self.rebalances.released(id);
            }
            Then::Wait => self.set_phase(id, Phase::Waiting),
            Then::Restore => self.restore(id),
            Then::Refuse(fault) => self.refuse(id, fault),
        }
    }

    /// Returns the actions since the last call.
    pub fn actions(&mut self) -> Vec<Action<H::Task>> {
        self.follow_pool();
        std::mem::take(&mut self.actions)
    }

    // ----------------------------------------------------------------------------------------------------------------
    // Views.

    /// What keeps the worker from processing.
    #[must_use]
    pub fn status(&self) -> Status {
        let any = |is: fn(&Phase<H::Stored>) -> bool| self.slots.values().any(|slot| is(&slot.phase));
        Status {
            joined: self.joined,
            restoring: any(|phase| {
                matches!(phase, Phase::Waiting | Phase::Restoring(_))
                    || matches!(phase, Phase::Dropping(Then::Wait | Then::Restore))
            }),
            refused: any(|phase| matches!(phase, Phase::Refused)),
            draining: self.stop_by.is_some(),
        }
    }

    /// Whether the client waits for the answer to a revocation or a loss.
    #[must_use]
    pub fn owes_an_answer(&self) -> bool {
        !self.rebalances.is_empty()
    }

    /// Every partition that is assigned to us, whether or not it is processed.
    pub fn slots(&self) -> impl Iterator<Item = SlotView> {
        self.slots.iter().map(|(id, slot)| slot.view(*id, self.pool.committed_offset(*id)))
    }

    /// Where to fetch each fetched partition: for a protocol that always sends the whole assignment. A partition that
    /// is being restored in place is paused, and sought when it starts again.
    pub fn added(&self) -> impl Iterator<Item = (PartitionId, Offset)> {
        let began = |id: &PartitionId| self.slots.get(id).and_then(|slot| slot.began);
        self.added.iter().filter_map(move |id| Some((*id, self.pool.next_offset(*id).or_else(|| began(id))?)))
    }

    /// The pool, read-only.
    #[must_use]
    pub fn pool(&self) -> &Pool<H> {
        &self.pool
    }

    /// The pool, for its counters.
    pub fn pool_mut(&mut self) -> &mut Pool<H> {
        &mut self.pool
    }
}
