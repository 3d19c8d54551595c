//! The producers of workers: transactions, and what is sent without one.
//!
//! An exactly-once commit is a transaction: its offsets are accepted under the member's generation, then its end is
//! requested, then all of it becomes visible at once, then the worker may learn of it. Anything can happen between
//! these steps, and any answer can be lost. Under at-least-once, sent records become visible one by one, whether or
//! not a worker still waits for them, unless they are purged.

use std::collections::VecDeque;
use std::sync::Arc;

use genwatch_core::engine::commit::{CallResult, Delivery, Portion};
use genwatch_core::engine::membership::Refusal;
use genwatch_core::handler::effect::Effect;
use genwatch_core::pool::{Commit, CommitPart};
use genwatch_core::types::TopicId;

use crate::group::{Group, MemberId};
use crate::invariants::{Violation, ensure};

/// Identifies a commit of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The worker.
    pub replica: usize,
    /// Its commit.
    pub commit: u64,
}

/// The context of a call, partly random.
pub struct Request<'a> {
    /// The coordinator.
    pub group: &'a Group,
    /// The membership under which offsets are sent, or why they aren't.
    pub member: Result<(MemberId, u64), Refusal>,
    /// Virtual time.
    pub now: i64,
    /// A transaction that is open longer than this is aborted.
    pub timeout: i64,
    /// How the call fails, if it does.
    pub failure: Option<CallResult>,
    /// Whether the answer is lost.
    pub lost: bool,
    /// How much of a divisible call is done.
    pub amount: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// This many effects are sent.
    Open(usize),
    /// The offsets are accepted: pending until the end.
    OffsetsAccepted,
    /// The commit is requested and will happen, whatever happens to the worker.
    Ending,
    /// Visible.
    Committed,
    /// Nothing of it is visible or ever will be.
    Aborted,
}

#[derive(Debug)]
struct Transaction {
    parts: Vec<CommitPart>,
    token: Token,
    /// The membership that it belongs to: another one has another transactional id.
    member: Option<MemberId>,
    begun: i64,
    stage: Stage,
    /// Its first record is taken for a repeat and isn't written.
    swallowed: bool,
}

/// The producer of one worker, and its predecessors with the same transactional id.
#[derive(Debug, Default)]
pub struct Producer {
    /// The last transaction.
    transaction: Option<Transaction>,
    /// The worker has discarded its client and has no new one yet.
    discarded: bool,
    /// The log holds a record that the client has given up; the next record will get its sequence number (T23).
    given_up: bool,
    /// Without transactions: records sent but not yet arrived.
    sent: VecDeque<Sent>,
}

/// An effect in flight.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The partition.
    pub partition: i32,
    /// The topic of that partition.
    pub topic: Option<TopicId>,
    /// The effect.
    pub effect: Effect,
}

impl Producer {
    /// Begins a transaction, on a new producer if there is none.
    pub fn begin(&mut self, commit: &Commit, token: Token, request: &Request<'_>) -> Option<CallResult> {
        if self.discarded {
            self.register()?;
        }
        if request.failure.is_some() {
            return request.failure;
        }
        if self.transaction.as_ref().is_some_and(|one| !one.is_over()) {
            return Some(CallResult::Broken);
        }
        let (parts, begun, swallowed) = (commit.parts.clone(), request.now, self.given_up);
        let member = request.member.ok().map(|(id, _)| id);
        self.given_up = false;
        self.transaction =
            Some(Transaction { parts, token, member, begun, stage: Stage::Open(0), swallowed });
        Some(CallResult::Done)
    }

    /// Takes effects; within a transaction, some at a time.
    pub fn write(
        &mut self,
        delivery: Delivery,
        commit: &Commit,
        portion: Portion,
        request: &Request<'_>,
    ) -> Option<CallResult> {
        if request.failure.is_some() {
            return request.failure;
        }
        if delivery == Delivery::AtLeastOnce {
            self.discarded = false;
            for part in &commit.parts {
                let effects = part.effects.iter().filter(|effect| portion.holds(effect));
                let sent = |effect: &Effect| Sent {
                    partition: part.partition.0,
                    topic: part.topic.clone(),
                    effect: effect.clone(),
                };
                self.sent.extend(effects.map(sent));
            }
            return Some(CallResult::Done);
        }
        let all: usize = commit.parts.iter().map(|part| part.effects.len()).sum();
        let overdue = self.is_overdue(request);
        match self.open() {
            Some(Stage::Open(written)) if *written >= all => Some(CallResult::Done),
            Some(Stage::Open(_)) if overdue => Some(CallResult::Overdue),
            Some(Stage::Open(written)) => {
                *written += request.amount;
                None
            }
            _ => Some(CallResult::Broken),
        }
    }

    /// Whether everything sent has arrived.
    pub fn flush(&self, request: &Request<'_>) -> Option<CallResult> {
        request.failure.or_else(|| self.sent.is_empty().then_some(CallResult::Done))
    }

    /// The coordinator checks the offsets. A transaction includes them.
    pub fn offsets(
        &mut self,
        delivery: Delivery,
        commit: &Commit,
        request: &Request<'_>,
    ) -> Result<Option<CallResult>, Violation> {
        if request.failure.is_some() {
            return Ok(request.failure);
        }
        let overdue = self.is_overdue(request);
        if delivery == Delivery::ExactlyOnce && !matches!(self.open(), Some(Stage::Open(_))) {
            return Ok(Some(CallResult::Broken));
        }
        if delivery == Delivery::ExactlyOnce && overdue {
            return Ok(Some(CallResult::Overdue));
        }
        let view = match request.member {
            Ok(view) if request.group.accepts(Some(view)) => view,
            Ok((id, _)) if !request.group.is_member(id) => {
                return Ok(Some(CallResult::Refused(Refusal::NotAMember)));
            }
            Ok(_) => return Ok(Some(CallResult::Refused(Refusal::StaleGeneration))),
            Err(refusal) => return Ok(Some(CallResult::Refused(refusal))),
        };
        for part in &commit.parts {
            let (partition, owner) = (part.partition, request.group.owner(part.partition.0));
            ensure!(
                owner == Some(view.0),
                Owner,
                "{view:?} commits partition {partition}, which belongs to {owner:?}"
            );
        }
        if let Some(stage) = self.open() {
            *stage = Stage::OffsetsAccepted;
        }
        Ok(Some(CallResult::Done))
    }

    /// Requests the end of the transaction, and waits for it.
    pub fn end(&mut self, request: &Request<'_>) -> Option<CallResult> {
        let stage = &mut self.transaction.as_mut()?.stage;
        match stage {
            Stage::OffsetsAccepted if request.failure.is_some() => request.failure,
            Stage::OffsetsAccepted => {
                *stage = Stage::Ending;
                None
            }
            Stage::Ending | Stage::Committed if request.lost => Some(CallResult::Broken),
            Stage::Committed => Some(CallResult::Done),
            Stage::Ending => None,
            Stage::Open(_) | Stage::Aborted => Some(CallResult::Broken),
        }
    }

    /// Whether the fate of each record is known.
    pub fn settle(&mut self, request: &Request<'_>) -> Option<CallResult> {
        self.given_up = request.lost;
        Some(if request.lost { CallResult::Broken } else { CallResult::Done })
    }

    /// Ends the transaction without making anything visible.
    pub fn abort(&mut self, request: &Request<'_>) -> Option<CallResult> {
        if request.lost {
            return Some(CallResult::Broken);
        }
        if let Some(stage) = self.open() {
            *stage = Stage::Aborted;
        }
        Some(CallResult::Done)
    }

    /// Drops everything that hasn't arrived.
    pub fn purge(&mut self) -> Option<CallResult> {
        self.sent.clear();
        Some(CallResult::Done)
    }

    /// Discards the client and everything that hasn't arrived.
    pub fn discard(&mut self) -> Option<CallResult> {
        self.discarded = true;
        self.given_up = false;
        self.purge()
    }

    /// Registers a new producer with the same id, once nothing of its predecessors is open.
    pub fn register(&mut self) -> Option<CallResult> {
        if let Some(stage) = self.open() {
            *stage = Stage::Aborted;
        }
        let ending = self.transaction.as_ref().is_some_and(|one| one.stage == Stage::Ending);
        self.discarded &= ending;
        (!ending).then_some(CallResult::Done)
    }

    /// The brokers complete a transaction whose end was requested.
    pub fn complete(&mut self) -> Option<(Vec<CommitPart>, Token, Option<MemberId>)> {
        let transaction = self.transaction.as_mut().filter(|one| one.stage == Stage::Ending)?;
        transaction.stage = Stage::Committed;
        let mut parts = transaction.parts.clone();
        let first = parts.iter_mut().find(|part| !part.effects.is_empty()).filter(|_| transaction.swallowed);
        if let Some(part) = first {
            part.effects = Arc::new(part.effects[1..].to_vec());
        }
        Some((parts, transaction.token, transaction.member))
    }

    /// Somebody registers the transactional id of a membership that they take for gone. Returns whether that ended a
    /// transaction.
    pub fn fence(&mut self, member: MemberId) -> bool {
        let is_its_own = self.transaction.as_ref().is_some_and(|one| one.member == Some(member));
        let open = self.open().filter(|_| is_its_own);
        open.map(|stage| *stage = Stage::Aborted).is_some()
    }

    /// The brokers abort a transaction that is open for too long.
    pub fn end_overdue(&mut self, now: i64, timeout: i64) {
        let overdue = self.transaction.as_ref().is_some_and(|one| now - one.begun > timeout);
        if let (true, Some(stage)) = (overdue, self.open()) {
            *stage = Stage::Aborted;
        }
    }

    /// Takes the next records that arrive.
    pub fn take_sent(&mut self, amount: usize) -> Vec<Sent> {
        self.sent.drain(..amount.min(self.sent.len())).collect()
    }

    /// Whether the committed offset of a partition is unstable.
    pub fn holds_offset_of(&self, partition: i32) -> bool {
        self.transaction.as_ref().is_some_and(|one| {
            matches!(one.stage, Stage::OffsetsAccepted | Stage::Ending) && one.holds(partition)
        })
    }

    /// The accepted, uncommitted offset of a partition.
    pub fn pending_offset_of(&self, partition: i32) -> Option<i64> {
        let transaction = self.transaction.as_ref().filter(|_| self.holds_offset_of(partition))?;
        let part = transaction.parts.iter().find(|part| part.partition.0 == partition)?;
        Some(part.offset.0)
    }

    /// Whether `read_committed` readers of states must wait.
    pub fn holds_states_of(&self, partition: i32) -> bool {
        self.transaction.as_ref().is_some_and(|one| !one.is_over() && one.holds(partition))
    }

    fn is_overdue(&self, request: &Request<'_>) -> bool {
        self.transaction.as_ref().is_some_and(|one| request.now - one.begun > request.timeout)
    }

    /// The stage of the transaction, if it can still be aborted.
    fn open(&mut self) -> Option<&mut Stage> {
        let stage = self.transaction.as_mut().map(|one| &mut one.stage)?;
        matches!(stage, Stage::Open(_) | Stage::OffsetsAccepted).then_some(stage)
    }
}

impl Transaction {
    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Committed | Stage::Aborted)
    }

    fn holds(&self, partition: i32) -> bool {
        self.parts.iter().any(|part| part.partition.0 == partition)
    }
}
