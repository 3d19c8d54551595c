//! The engine: every decision that a worker takes. Worker and simulation are its two executors.
//!
//! Calls tell it what happened (the group's word, answers of the restorer, outcomes of commits, the time), [`Action`]s and
//! commits say what to do about it. There is no Kafka in it, no clock, thread or randomness, and nothing that a record
//! passes but the [`Pool`].
//!
//! * `slot`: one partition that the group says is ours, and the phase it is in.
//! * [`restore`]: what is asked of the cluster before a partition starts, and in which order.
//! * [`start`]: where it then starts, and with which states. [`note`]: what is left beside an offset, for then.
//! * `rebalance`: what librdkafka waits for an answer to.
//! * [`commit`]: the steps of a commit.
//! * [`membership`]: who we are in the group, and the fence that a commit carries.
//! * this file: how they change one another.
//!
//! What the group does and what it means for a partition:
//!
//! ```text
//! assigned ─► waiting ─► restoring ─► active ─► draining ─► given back
//!    (no membership)          │          │          │
//!                             └► refused ◄┴► dropped ┴► given back, or restored again
//! ```
//!
//! The one rule behind them all: a partition is held *under a membership*. When that is over (another member id, or none;
//! for one that drains, also another generation) everything of it is dropped, whatever librdkafka says or keeps to itself
//! about the loss (`rd_kafka_cgrp_handle_heartbeat_error_op`, librdkafka 2.12.1: a member that is thrown out while a
//! revocation is unanswered isn't told). The same is compared once more as a commit leaves, see [`Fence`].

pub mod commit;
pub mod encode;
pub mod membership;
pub mod note;
mod rebalance;
pub mod restore;
mod slot;
pub mod start;

use std::collections::{BTreeMap, BTreeSet};

use crate::alarm::effect::DeadLetter;
use crate::pool::{self, Commit, CommitId, Committed, Pool, Ticket};
use crate::reading::Parsed;
use crate::types::{Epoch, GeneratorId, Millis, Mono, Now, Offset, PartitionId, TopicId};
use membership::{Fence, Member, Refusal};
use rebalance::Rebalances;
use restore::{Answer, AskId, Fault, Question, Restore, RestoreStep};
use slot::{Phase, Slot, Then};
use start::{Log, Policies, Start};

pub use slot::{SlotStatus, SlotView};

/// With `--exit-at-end`, how long a worker without partitions waits for some, in milliseconds.
const EMPTY_HANDED: i64 = 10_000;
/// After a refused commit the next one waits this long, in milliseconds.
const COMMIT_BACKOFF: i64 = 100;
/// How long beyond its drain a partition may wait for its last commit, in milliseconds.
const LAST_COMMIT: i64 = 3_000;
/// A seek that was refused is asked for again after so many milliseconds.
const SEEK_AGAIN: i64 = 100;

/// What an engine is told once.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a partition that is given up may drain, in milliseconds.
    pub drain: i64,
    /// What to do where a user has a choice.
    pub policies: Policies,
    /// Stop by itself when every partition has reached the end it had when it was assigned.
    pub exit_at_end: bool,
}

/// What the engine asks of its executor.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Do the work of this reading, then call [`Engine::finished`].
    Run {
        /// To be given back.
        ticket: Ticket,
        /// Whose reading.
        generator: GeneratorId,
        /// Its offset.
        offset: Offset,
    },
    /// Stop fetching.
    Pause(PartitionId),
    /// Go on fetching.
    Resume(PartitionId),
    /// Answer the assignment that was told: at once, always.
    Acknowledge,
    /// Start fetching at this offset.
    Add(PartitionId, Offset),
    /// Fetch from this offset on; what was fetched and not handed out is void. Then call [`Engine::sought`].
    Seek(PartitionId, Offset),
    /// The same, of a partition that the client has stopped fetching: it's unassigned and assigned again. Then call
    /// [`Engine::sought`].
    Reassign(PartitionId, Offset),
    /// Answer the oldest revocation or loss: these are fetched no more.
    Unassign(Vec<PartitionId>),
    /// Ask the cluster, then call [`Engine::answered`].
    Ask(AskId, PartitionId, Question),
    /// Nobody waits for this answer any more.
    Forget(AskId),
    /// Nothing that the commit under way holds is ours any more: it's to end soon, however.
    Abandon,
    /// The time to drain is over: no commit is to wait for the cluster any more.
    GiveUp,
    /// A partition is ours no more, or not for now: metrics of it are void.
    Gone(PartitionId),
    /// Worth a line in the log.
    Report(PartitionId, Reported),
}

/// What a user is to know of a partition.
#[derive(Clone, Debug, PartialEq)]
pub enum Reported {
    /// It is worked from this offset on.
    Started {
        /// The first offset.
        start: Offset,
        /// Generators whose state came with it.
        generators: usize,
    },
    /// Its committed offset isn't in the log: it starts at the first offset that is.
    Skipped {
        /// Where the group was.
        committed: Offset,
        /// The first offset in the log.
        low: Offset,
    },
    /// It's another log than the one that was worked: it's worked from its first reading.
    NewTopic {
        /// The topic's id as it was.
        was: TopicId,
        /// The topic's id.
        now: TopicId,
        /// Generators whose state stands as it stood.
        kept: usize,
        /// Generators whose state is deleted.
        forgotten: usize,
    },
    /// The offset that it starts from is none that a worker has committed: readings that a state covers are skipped.
    StatesAhead {
        /// Whose states are ahead of it.
        generators: usize,
        /// The offset.
        start: Offset,
    },
    /// States cover readings that the log doesn't have: it has lost its end.
    StatesBeyondTheEnd {
        /// Whose states.
        generators: usize,
        /// The end of the log.
        high: Offset,
    },
    /// It isn't worked, until the fault is mended and the worker started again.
    Refused(Fault),
    /// What isn't committed of it is dropped: the membership that it was held under is over, or its time is.
    Dropped,
    /// What was still being worked of it when its time was over is left to the next owner.
    Abandoned,
}

/// What stands in the way of work, as probes ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The group has given an assignment, and not taken it all back.
    pub joined: bool,
    /// Some partition waits for its state.
    pub restoring: bool,
    /// Some partition is refused.
    pub refused: bool,
    /// On its way out.
    pub draining: bool,
}

/// A notice of the client about one partition, in the place of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It mends itself. The client has moved on to behind the offset that it bears, as if there had been a record
    /// (`rd_kafka_q_serve_rkmessages`, librdkafka 2.12.1).
    Transient,
    /// The offset that we are at isn't in the log any more.
    OutOfRange,
    /// What is there can't be read.
    Unreadable(String),
}

/// All partitions of a worker and what is under way about them. Owned by the one thread that drives it.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    pool: Pool,
    now: Now,
    /// The readings topic that the client has known first.
    topic: Option<TopicId>,
    is_void: bool,
    member: Option<Member>,
    slots: BTreeMap<PartitionId, Slot>,
    /// What the client fetches.
    added: BTreeSet<PartitionId>,
    /// Given to us anew before we have given it back: a topic that grows makes the client join again whatever is unanswered.
    returning: BTreeSet<PartitionId>,
    rebalances: Rebalances,
    asks: u64,
    committing: Option<Committing>,
    commit_not_before: Mono,
    /// When the group first said what is ours, and not since.
    joined: bool,
    assigned_at: Option<Mono>,
    /// Set once it's stopping: until when it may drain.
    stop_by: Option<Mono>,
    given_up: bool,
    actions: Vec<Action>,
}

/// The commit under way.
#[derive(Debug)]
struct Committing {
    id: CommitId,
    partitions: Vec<PartitionId>,
    abandoned: bool,
}

impl Engine {
    /// An engine that holds nothing yet.
    #[must_use]
    pub fn new(pool: Pool, settings: Settings) -> Engine {
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

    /// Tells the time, once a turn.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
        self.pool.set_now(now);
    }

    // ----------------------------------------------------------------------------------------------------------------
    // Records. What isn't active is dropped by the pool, which doesn't hold it.

    /// Takes in a good record. `bytes` is its size, for the bounds; `epoch` gives its leader epoch, if that is asked for.
    pub fn take_in(
        &mut self,
        id: PartitionId,
        offset: Offset,
        at: Millis,
        parsed: &Parsed<'_>,
        bytes: usize,
        epoch: impl Fn() -> Epoch,
    ) {
        self.pool.take_in(id, offset, at, parsed, bytes, epoch);
    }

    /// Takes in a bad record.
    pub fn take_in_bad(&mut self, letter: DeadLetter) {
        self.pool.take_in_bad(letter);
    }

    /// The work of a reading is done.
    pub fn finished(&mut self, ticket: Ticket) {
        self.pool.finished(ticket);
    }

    /// Hands out readings while there is concurrency left. Call it after taking in and finishing.
    pub fn schedule(&mut self) {
        self.pool.schedule();
    }

    // ----------------------------------------------------------------------------------------------------------------
    // The group.

    /// Whether it matters now who we are in the group; in steady state it doesn't.
    #[must_use]
    pub fn asks_for_member(&self) -> bool {
        let unsettled = |slot: &Slot| !matches!(slot.phase, Phase::Active | Phase::Refused);
        !self.rebalances.is_empty() || self.slots.values().any(unsettled)
    }

    /// Who we are in the group, as the client knows it; `None`: no member.
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

    /// The metadata of the topic may make librdkafka join anew whatever is unanswered
    /// (`rd_kafka_cgrp_metadata_update_check`, librdkafka 2.12.1): what drains may then be somebody else's, who doesn't wait.
    fn drop_draining_of_another_generation(&mut self) {
        let Some(generation) = self.member.as_ref().map(|member| member.generation) else { return };
        let is_stale = |(id, slot): (&PartitionId, &Slot)| match slot.phase {
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

    /// The process stood still for so long that the group may have gone on without it, which the client has not heard yet. What
    /// is held may be old: it is dropped, and what stays ours restored anew.
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

    /// These are ours now.
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

    /// These are to be given up; the client waits until they are unassigned.
    pub fn revoked(&mut self, partitions: &[PartitionId]) {
        let generation = self.member.as_ref().map(|member| member.generation);
        self.give_back(partitions, |engine, id| {
            engine.set_phase(id, Phase::Draining { generation });
            engine.pool.revoke(id);
        });
    }

    /// These are somebody else's already.
    pub fn lost(&mut self, partitions: &[PartitionId]) {
        self.joined = false;
        self.give_back(partitions, |engine, id| engine.drop_then(id, Then::Gone));
    }

    fn give_back(&mut self, partitions: &[PartitionId], how: impl Fn(&mut Engine, PartitionId)) {
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

    /// Any assignment, be it empty, says that all else that we had stays ours. One that was under way when the membership
    /// ended is told all the same, and doesn't.
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
        let restore = Restore::new(AskId(self.asks), slot.topic.clone(), slot.stopped);
        self.actions.push(Action::Ask(restore.ask, id, Restore::FIRST));
        self.set_phase(id, Phase::Restoring(restore));
    }

    /// An answer to a question; to one that was forgotten it's ignored.
    pub fn answered(&mut self, ask: AskId, answer: Answer) {
        let asked = |slot: &Slot| matches!(&slot.phase, Phase::Restoring(restore) if restore.ask == ask);
        let Some(id) = self.slots.iter().find(|(_, slot)| asked(slot)).map(|(id, _)| *id) else { return };
        if let Answer::Log(Log { topic: Some(topic), .. }) = &answer {
            self.topic(topic);
        }
        if self.is_void {
            return;
        }
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

    fn start(&mut self, id: PartitionId, start: Start) {
        let Start { beginning, end, told } = start;
        let offset = beginning.start;
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.begin(offset, end, beginning.topic.clone());
        self.actions.extend(told.into_iter().map(|told| Action::Report(id, told)));
        let generators = beginning.states.len();
        self.actions.push(Action::Report(id, Reported::Started { start: offset, generators }));
        // The pool first: a record may come as soon as it's asked for.
        self.pool.assign(id, beginning);
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

    /// The client has put a notice in the place of a record. Call it when all records of the same poll are taken in.
    pub fn notice(&mut self, id: PartitionId, offset: Offset, notice: Notice) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        match (&slot.phase, notice) {
            (Phase::Active | Phase::Draining { .. }, Notice::Transient) => {
                let next = self.pool.next_offset(id).unwrap_or(offset);
                // A record behind the notice has put the client's position right.
                if next <= offset {
                    self.seek(id);
                }
            }
            // Retention, a log that has lost its end, or another one: what is found then decides.
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

    /// Puts the fetcher where the pool is. It stays paused until that is done: what comes from elsewhere would be taken for what
    /// is next.
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
                    // While a revocation is open, to unassign anything is to answer it.
                    self.actions.push(Action::Reassign(*id, next));
                }
            }
        }
    }

    /// A seek has been done.
    pub fn sought(&mut self, id: PartitionId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.stopped = None;
        let suspect = slot.suspect.take();
        if suspect.is_some() && !self.pool.is_paused(id) {
            self.actions.push(Action::Resume(id));
        }
    }

    /// The client stands at `position`: what lies between the last record and it holds nothing to work.
    pub fn position(&mut self, id: PartitionId, position: Offset) {
        let trusted = |slot: &&Slot| matches!(slot.phase, Phase::Active) && slot.suspect.is_none();
        if self.slots.get(&id).filter(trusted).is_some() {
            self.pool.reached(id, position);
        }
    }

    /// A partition ended there when that was asked: looks for generators that had fallen silent then.
    pub fn end(&mut self, id: PartitionId, end: Offset, asked: Now) {
        self.pool.watch_silence(id, end, asked);
    }

    /// The readings topic has this id. A client that knows another may never find this one's leaders: it heeds no leader epoch below
    /// the one that it knows, and a topic made anew begins at 0 (`rd_kafka_toppar_leader_update`, librdkafka 2.12.1).
    pub fn topic(&mut self, topic: &TopicId) {
        let known = self.topic.get_or_insert_with(|| topic.clone());
        self.is_void |= known != topic && self.stop_by.is_none();
    }

    /// The state topic was made anew: all states that are held are written to it again. Gives how many.
    pub fn store_states(&mut self) -> usize {
        self.pool.store_states()
    }

    /// Whether the client can't be used any more: another one, of which nothing is known, and another engine are to take its place.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.is_void
    }

    // ----------------------------------------------------------------------------------------------------------------
    // Commits.

    /// The next commit, if one is due, with what it has to be compared with as it leaves.
    pub fn take_commit(&mut self) -> Option<(Commit, Fence)> {
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

    /// When [`Engine::take_commit`] is to be asked next; `None` while there's nothing to commit, or one is under way.
    #[must_use]
    pub fn next_commit(&self) -> Option<Mono> {
        self.pool.next_commit().map(|due| due.max(self.commit_not_before))
    }

    /// Whether a commit is under way.
    #[must_use]
    pub fn is_committing(&self) -> bool {
        self.committing.is_some()
    }

    /// The commit is durable. The next one may begin after `pause` milliseconds.
    pub fn committed(&mut self, id: CommitId, pause: i64) -> Committed {
        self.committing.take_if(|committing| committing.id == id);
        self.commit_not_before = self.now.mono.after(pause);
        let committed = self.pool.committed(id);
        self.follow_pool();
        committed
    }

    /// The commit was refused; whether its effects are durable all the same.
    pub fn refused(&mut self, id: CommitId, refusal: Refusal, published: bool) {
        let committing = self.committing.take_if(|committing| committing.id == id);
        self.commit_not_before = self.now.mono.after(COMMIT_BACKOFF);
        self.pool.refused(id, published, refusal == Refusal::Overdue);
        // Of what stays ours we are told, or who we are has changed. Of what drains nobody says a word.
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

    /// What time does: drains that take too long, ends that are reached. Once a turn.
    pub fn tick(&mut self) {
        if self.settings.exit_at_end && self.has_reached_end() {
            self.stop();
        }
        self.seek_suspects();
        self.give_up_overdue();
        self.follow_pool();
    }

    /// Finish what has begun, commit it, take in nothing more.
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
        let reached = |(id, slot): (&PartitionId, &Slot)| match &slot.phase {
            Phase::Active => slot.end.is_some_and(|end| self.pool.committed_offset(*id) >= Some(end)),
            Phase::Refused => true,
            _ => false,
        };
        if self.slots.is_empty() {
            self.rebalances.is_empty() && self.now.mono.since(assigned) > EMPTY_HANDED
        } else {
            self.slots.iter().all(reached)
        }
    }

    /// What hasn't drained in time is worked again by the next owner; what isn't committed in time is dropped: an answer
    /// that is owed to the group can't wait for ever.
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
            // A client that is owed an answer can't be closed.
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

    /// Whether nothing is left to be done: the group can be left, as no answer is owed to it. Some time after the drain is
    /// over that is true whatever is left.
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

    fn set_phase(&mut self, id: PartitionId, phase: Phase) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.phase = phase;
        }
    }

    /// Everything of the partition is dropped; when no commit holds it any more, `then` is next.
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

    /// Passes on what the pool asks for, and follows the partitions that it has let go of.
    fn follow_pool(&mut self) {
        let mut released = Vec::new();
        for action in self.pool.actions() {
            match action {
                pool::PoolAction::Run { ticket, generator, offset } => {
                    self.actions.push(Action::Run { ticket, generator, offset });
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

    /// What was given back is ours again: restored as if it came for the first time.
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

    /// The actions since the last call.
    pub fn actions(&mut self) -> Vec<Action> {
        self.follow_pool();
        std::mem::take(&mut self.actions)
    }

    // ----------------------------------------------------------------------------------------------------------------
    // Views.

    /// What stands in the way of work.
    #[must_use]
    pub fn status(&self) -> Status {
        let any = |is: fn(&Phase) -> bool| self.slots.values().any(|slot| is(&slot.phase));
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

    /// Every partition that the group says is ours, also one that isn't worked.
    pub fn slots(&self) -> impl Iterator<Item = SlotView> {
        self.slots.iter().map(|(id, slot)| slot.view(*id, self.pool.committed_offset(*id)))
    }

    /// Where the client is to fetch what it has been given: for a protocol that always names its whole assignment. What is being
    /// restored in place is paused, and sought when it starts again.
    pub fn added(&self) -> impl Iterator<Item = (PartitionId, Offset)> {
        let began = |id: &PartitionId| self.slots.get(id).and_then(|slot| slot.began);
        self.added.iter().filter_map(move |id| Some((*id, self.pool.next_offset(*id).or_else(|| began(id))?)))
    }

    /// The pool, to look at.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The pool, for its counters.
    pub fn pool_mut(&mut self) -> &mut Pool {
        &mut self.pool
    }
}
