//! A worker: executes what a real [`Engine`] asks for, with virtual time and the cluster in memory.
//!
//! Owns what dies with the process: the engine, its client ([`librdkafka`](crate::librdkafka)), readings in progress,
//! open questions and the current commit. [`Ledger`]s check the engine's pool. The events of a turn happen in any
//! order, because the engine is promised none.

mod check;
mod ends;
mod restorer;
mod sent;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use genwatch_core::alarm::detector::Detector;
use genwatch_core::alarm::rules::Rules;
use genwatch_core::engine::commit::{self, Attempt, Call, Delivery, Ended, Next, Portion};
use genwatch_core::engine::membership::{Fence, Refusal};
use genwatch_core::engine::restore::{Answer, AskId, Fault, Question};
use genwatch_core::engine::start::{OnOutOfRange, Policies};
use genwatch_core::engine::{Action, Engine, Notice, Reported, Settings};
use genwatch_core::pool::{Bounds, Commit, Handling, Pool, Ticket};
use genwatch_core::types::{GeneratorId, Millis, Mono, Now, Offset, PartitionId, TopicId};
use genwatch_oracle::Meaning;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use self::restorer::Restored;
use self::sent::Sent;
use crate::cluster::Cluster;
use crate::group::Group;
use crate::invariants::{Violation, ensure};
use crate::ledger::{Ledger, Stage};
use crate::librdkafka::{Client, Fetch, Rebalance};
use crate::producer::Request;
use crate::records::Entry;
use crate::scenario::Scenario;
use crate::trace::{Trace, say};

/// The wait after a refused commit.
const COMMIT_BACKOFF: i64 = 100;

/// What a worker uses in a turn.
pub struct Surroundings<'a> {
    /// Kafka.
    pub cluster: &'a mut Cluster,
    /// The coordinator.
    pub group: &'a mut Group,
    /// The only source of randomness.
    pub rng: &'a mut ChaCha8Rng,
    /// The run's parameters.
    pub scenario: &'a Scenario,
    /// Virtual time.
    pub now: i64,
    /// The partition whose state can't be restored now.
    pub blocked: Option<i32>,
    /// Whether faults have ceased: readings are quick, nothing is repeated or refused.
    pub settling: bool,
    /// The trace, for replays.
    pub trace: &'a mut Trace,
}

/// How full a partition's share was when a record was last taken in.
#[derive(Debug, Default)]
struct Load {
    /// Whether it was full.
    full: bool,
    /// Records in flight.
    backlog: usize,
}

#[derive(Debug)]
struct Work {
    ticket: Ticket,
    serial: u64,
    generator: String,
    offset: i64,
    done_at: i64,
    /// Its assignment or its drain is over: the pool must ignore it.
    void: bool,
}

/// Who has learned that the process stood still.
#[derive(Debug)]
struct StoodStill {
    told: bool,
    /// Whether the current commit began before that.
    commit: bool,
}

impl Default for StoodStill {
    fn default() -> Self {
        StoodStill { told: true, commit: false }
    }
}

/// The current commit.
#[derive(Debug)]
struct Committing {
    commit: Commit,
    attempt: Attempt,
    fence: Fence,
    /// None of its partitions is ours any longer.
    abandoned: bool,
}

/// The outcome of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The worker continues.
    Goes,
    /// It has drained and left.
    Left,
    /// It has ended with an error, without draining.
    Died,
    /// A new client must replace its own.
    Replaced,
}

/// One worker.
pub struct Replica {
    /// Its name in traces.
    pub id: usize,
    /// Its client of the group.
    pub client: Client,
    /// The time span in which it does nothing at all.
    frozen: Option<(i64, i64)>,
    /// It stood still for longer than its membership may have lasted; whether the loop and the current commit know.
    stood_still: StoodStill,
    /// Until then it reaches neither brokers nor coordinator.
    pub isolated_until: i64,
    /// How far its wall clock is ahead of virtual time.
    clock: i64,
    /// How far it was ahead when each partition's states were restored.
    restored_ahead: BTreeMap<i32, i64>,
    /// When that clock was last set, in virtual time.
    clock_set: i64,
    engine: Engine,
    bounds: Bounds,
    lanes: Option<usize>,
    loads: BTreeMap<i32, Load>,
    /// The offset at which a notice replaced the record, which is still to come.
    owed: BTreeMap<i32, i64>,
    /// Unanswered revocations and losses: the partitions that the answer must unassign.
    told: VecDeque<Vec<i32>>,
    asked: BTreeMap<AskId, (i32, Question)>,
    answers: Vec<(AskId, Answer)>,
    /// The last answers about each partition.
    restored: BTreeMap<i32, Restored>,
    /// The member id that its engine knows, and under which it holds partitions.
    known_as: Option<Arc<str>>,
    /// Partitions that were reported to be of another log.
    told_another_log: BTreeSet<i32>,
    /// Whether it has ended because the log is another one.
    met_another_log: bool,
    /// The topic that its client began to fetch.
    fetches: Option<TopicId>,
    /// Whether it saw leader epochs there that are higher than those of a re-created topic: then it never finds its
    /// leaders (T24).
    heeds_no_other: bool,
    work: Vec<Work>,
    commit: Option<Committing>,
    /// The durable effects of the partitions that it holds.
    sent: Sent,
    /// No commit may wait for the cluster any longer.
    given_up: bool,
    /// When the last commit began.
    last_commit: i64,
    /// After a refusal, the next commit waits until then.
    backoff_until: i64,
    stop: bool,
    /// When it last asked for ends.
    observed: i64,
    question: Option<ends::Question>,
    /// Generators that were silent for long enough, by partition.
    silent: BTreeSet<(i32, String)>,
    /// Generators that were silent for so long that they may be forgotten.
    forgettable: BTreeSet<(i32, String)>,
    serial: u64,
    ledgers: BTreeMap<i32, Ledger>,
    /// Readings started in this turn.
    started: Vec<(i32, String)>,
}

impl Replica {
    /// A worker that hasn't joined yet.
    pub fn new(id: usize, rules: &Rules, scenario: &Scenario, clock: i64) -> Replica {
        let detector = Detector::new(rules.clone()).forget_silent_after(scenario.forget_after);
        let lanes = match scenario.handling {
            Handling::Inline => None,
            Handling::Lanes { concurrency } => Some(concurrency),
        };
        let pool = Pool::new(detector, scenario.handling, scenario.bounds, scenario.policy);
        let policies = Policies { on_out_of_range: OnOutOfRange::Fail, on_new_topic: scenario.on_new_topic };
        let settings = Settings { drain: scenario.drain, policies, exit_at_end: false };
        Replica {
            id,
            client: Client::new(scenario.protocol, scenario.is_static.then_some(id)),
            frozen: None,
            stood_still: StoodStill::default(),
            isolated_until: 0,
            clock,
            restored_ahead: BTreeMap::new(),
            clock_set: -1,
            engine: Engine::new(pool, settings),
            bounds: scenario.bounds,
            lanes,
            loads: BTreeMap::new(),
            owed: BTreeMap::new(),
            told: VecDeque::new(),
            asked: BTreeMap::new(),
            answers: Vec::new(),
            restored: BTreeMap::new(),
            known_as: None,
            told_another_log: BTreeSet::new(),
            met_another_log: false,
            fetches: None,
            heeds_no_other: false,
            work: Vec::new(),
            commit: None,
            sent: Sent::default(),
            given_up: false,
            last_commit: i64::MIN / 2,
            backoff_until: 0,
            stop: false,
            observed: 0,
            question: None,
            silent: BTreeSet::new(),
            forgettable: BTreeSet::new(),
            serial: 0,
            ledgers: BTreeMap::new(),
            started: Vec::new(),
        }
    }

    /// Whether it reaches the cluster.
    pub fn is_connected(&self, now: i64) -> bool {
        !self.is_frozen(now) && now >= self.isolated_until
    }

    /// Whether it does nothing at all.
    pub fn is_frozen(&self, now: i64) -> bool {
        self.frozen.is_some_and(|(_, until)| now < until)
    }

    /// Freezes it until then.
    pub fn freeze(&mut self, now: i64, until: i64) {
        let since = self.frozen.map_or(now, |(since, _)| since);
        self.frozen = Some((since, until));
    }

    /// Goes on, and notices a long freeze.
    fn wake(&mut self, session: i64) {
        if self.frozen.take().is_some_and(|(since, until)| until - since > session / 2) {
            self.stood_still = StoodStill { told: false, commit: self.commit.is_some() };
        }
    }

    /// Ends its isolation and its freeze.
    pub fn thaw(&mut self, now: i64) {
        self.frozen = self.frozen.map(|(since, until)| (since, until.min(now)));
        self.isolated_until = 0;
    }

    /// Sets its clock forward or back.
    pub fn set_clock(&mut self, by: i64, now: i64) {
        self.clock += by;
        self.clock_set = now;
    }

    /// Asks it to drain and leave.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    /// Whether it is leaving.
    pub fn is_stopping(&self) -> bool {
        self.stop
    }

    /// Whether it has nothing left to do.
    pub fn is_idle(&self) -> bool {
        let pool = self.engine.pool();
        pool.in_flight() == 0
            && pool.running() == 0
            && pool.bytes() == 0
            && self.commit.is_none()
            && self.told.is_empty()
            && self.client.fetched.values().all(|fetch| !fetch.paused)
            && self.ledgers.values().all(Ledger::is_settled)
    }

    /// The partitions that it processes.
    pub fn works(&self) -> impl Iterator<Item = i32> {
        self.ledgers.iter().filter(|(_, ledger)| ledger.stage() == Stage::Working).map(|(id, _)| *id)
    }

    /// Whether it is a member and knows its id: a static member gets another id without notice.
    pub fn is_member_of(&self, group: &Group) -> bool {
        let knows = self.client.metadata().map(|member| member.id) == self.known_as;
        knows && self.client.view().is_some_and(|(id, _)| group.is_member(id))
    }

    /// Whether a reading of this generator is running.
    pub fn works_on(&self, partition: i32, generator: &str) -> bool {
        self.ledgers.get(&partition).is_some_and(|ledger| ledger.running().contains_key(generator))
    }

    /// Whether it has read something of a partition at or after that offset.
    pub fn has_read(&self, partition: i32, offset: i64) -> bool {
        let fetched = self.client.fetched.get(&partition).map(|fetch| fetch.next);
        let taken = self.ledgers.get(&partition).map(Ledger::next);
        fetched.max(taken).is_some_and(|next| next > offset)
    }

    /// Makes its client see high leader epochs.
    pub fn heed_no_other_topic(&mut self) {
        self.heeds_no_other = true;
    }

    /// Whether it has ended because the log is another one.
    pub fn met_another_log(&self) -> bool {
        self.met_another_log
    }

    /// Readings started since the last call.
    pub fn take_started(&mut self) -> Vec<(i32, String)> {
        std::mem::take(&mut self.started)
    }

    /// One turn of the worker's loop.
    pub fn turn(&mut self, around: &mut Surroundings<'_>) -> Result<Turn, Violation> {
        let now = Now { mono: Mono(around.now), wall: Millis(around.now + self.clock) };
        self.engine.set_now(now);
        self.wake(around.scenario.session);
        if !std::mem::replace(&mut self.stood_still.told, true) {
            say!(around.trace, "r{} notices that it stood still", self.id);
            self.engine.stood_still();
            self.perform(around)?;
        }
        let taken = self.take_in(around)?;
        self.follow_group(around)?;
        for (ask, answer) in std::mem::take(&mut self.answers) {
            self.engine.answered(ask, answer);
        }
        if self.is_connected(around.now) && (around.settling || around.rng.random_bool(0.05)) {
            self.engine.topic(around.cluster.topic());
        }
        self.perform(around)?;
        self.finish_work(around)?;
        if self.take_outcome(around)? {
            return Ok(Turn::Died);
        }
        self.begin_commit(around)?;
        self.perform(around)?;
        self.check(around)?;
        if self.stop && !self.engine.status().draining {
            say!(around.trace, "r{} drains", self.id);
            self.engine.stop();
            self.ledgers.values_mut().for_each(Ledger::revoke);
        }
        if around.rng.random_bool(0.02) {
            self.engine.forget_idle(around.rng.random_range(0..1000));
        }
        self.engine.tick();
        self.perform(around)?;
        self.observe(around)?;
        if self.met_another_log {
            return Ok(Turn::Died);
        }
        if self.engine.is_void() {
            return Ok(Turn::Replaced);
        }
        if self.engine.is_done() {
            self.client.leave(around.group, around.now)?;
            return Ok(Turn::Left);
        }
        if taken == 0 {
            self.follow_positions(around);
        }
        Ok(Turn::Goes)
    }

    /// Handles rebalances, and reports our membership when the engine asks for it.
    fn follow_group(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        if self.engine.asks_for_member() {
            self.tell_who_we_are();
            self.perform(around)?;
        }
        while let Some(rebalance) = self.client.take_rebalance() {
            say!(around.trace, "r{} gets {rebalance:?} as {:?}", self.id, self.client.metadata());
            self.tell_who_we_are();
            self.perform(around)?;
            let ids = |list: &[i32]| list.iter().map(|id| PartitionId(*id)).collect::<Vec<_>>();
            match rebalance {
                Rebalance::Assigned(list) => self.engine.assigned(&ids(&list)),
                Rebalance::Revoked(list) => {
                    for id in &list {
                        self.ledgers.entry(*id).and_modify(Ledger::revoke);
                    }
                    self.told.push_back(list.clone());
                    self.engine.revoked(&ids(&list));
                }
                Rebalance::Lost(list) => {
                    for id in &list {
                        self.lose(*id);
                    }
                    self.told.push_back(list.clone());
                    self.engine.lost(&ids(&list));
                }
            }
            self.perform(around)?;
        }
        Ok(())
    }

    fn tell_who_we_are(&mut self) {
        self.known_as = self.client.metadata().map(|member| member.id);
        self.engine.member(self.client.metadata());
    }

    fn lose(&mut self, id: i32) {
        self.ledgers.entry(id).and_modify(Ledger::lose);
        self.forget_work(id);
    }

    /// Takes in a batch of fetched records, of random size.
    fn take_in(&mut self, around: &mut Surroundings<'_>) -> Result<usize, Violation> {
        if !self.is_connected(around.now) || !self.client.hands_out() {
            return Ok(0);
        }
        let limit = if around.settling {
            around.scenario.batch
        } else {
            around.rng.random_range(0..=around.scenario.batch)
        };
        let mut batch: Vec<(i32, usize)> = Vec::new();
        let mut notices: Vec<(i32, i64)> = Vec::new();
        let mut out_of_range: Vec<(i32, i64)> = Vec::new();
        for (id, fetch) in &mut self.client.fetched {
            let end = around.cluster.partitions[*id as usize].end;
            if !fetch.paused && !fetch.stopped && fetch.next > end {
                fetch.stopped = true;
                out_of_range.push((*id, fetch.next));
            }
        }
        for _ in 0..limit {
            let partitions = &around.cluster.partitions;
            let finds_leaders = !self.heeds_no_other || self.fetches.as_ref() == Some(around.cluster.topic());
            let waiting = |(id, fetch): (&i32, &Fetch)| {
                let index = partitions[*id as usize].index(fetch.next);
                let is_fetched = !fetch.paused && !fetch.stopped && finds_leaders;
                (is_fetched && index < partitions[*id as usize].log.len()).then_some((*id, index))
            };
            let waiting: Vec<(i32, usize)> = self.client.fetched.iter().filter_map(waiting).collect();
            if waiting.is_empty() {
                break;
            }
            let (id, index) = waiting[around.rng.random_range(0..waiting.len())];
            let start = self.ledgers.get(&id).map_or(0, Ledger::started_at);
            let offset = partitions[id as usize].log[index].offset;
            let Some(fetch) = self.client.fetched.get_mut(&id) else { continue };
            if !around.settling && around.rng.random_bool(around.scenario.notices) {
                // The fetch failed: a notice replaces the record, and the next fetch is of the same offset.
                fetch.misled = Some(fetch.next + 1);
                notices.push((id, fetch.next));
                continue;
            }
            (fetch.next, fetch.misled) = (offset + 1, None);
            if !around.settling && around.rng.random_bool(around.scenario.repeats) {
                fetch.next = around.rng.random_range(start..=fetch.next.max(start));
            }
            batch.push((id, index));
        }
        // Several threads take them in partition by partition, in any order.
        let first = around.rng.random_range(0..around.cluster.partitions.len() as i32);
        batch.sort_by_key(|(id, _)| (*id < first, *id));
        for (id, index) in &batch {
            let partition = &around.cluster.partitions[*id as usize];
            let entry = &partition.log[*index];
            say!(around.trace, "r{} takes in {id}/{}", self.id, entry.offset);
            let knows = self.ledgers.get(id).is_some_and(|ledger| ledger.topic == *around.cluster.topic());
            self.take_in_record(*id, entry, knows && partition.calls_for_effects(entry.offset));
        }
        for (id, offset) in notices {
            say!(around.trace, "r{} is given a notice of {id}/{offset}", self.id);
            self.owed.insert(id, offset);
            self.engine.notice(PartitionId(id), Offset(offset), Notice::Transient);
        }
        for (id, offset) in out_of_range {
            say!(around.trace, "r{} learns that {id}/{offset} is out of range", self.id);
            self.engine.notice(PartitionId(id), Offset(offset), Notice::OutOfRange);
        }
        Ok(batch.len())
    }

    fn take_in_record(&mut self, id: i32, entry: &Entry, calls: bool) {
        let bytes = entry.key.as_ref().map_or(0, Vec::len) + entry.value.as_ref().map_or(0, Vec::len);
        if let Some(mut intake) = self.engine.intake(PartitionId(id)) {
            entry.take_in(&mut intake, bytes);
        }
        let waits = self.lanes.is_some() && !matches!(entry.meaning, Meaning::Bad(_));
        let share = self.share();
        let Some(ledger) = self.ledgers.get_mut(&id) else { return };
        let load = self.loads.entry(id).or_default();
        if ledger.take_in(entry.offset, waits.then_some(entry.generator.as_str())) {
            load.full = ledger.in_flight() >= share;
            load.backlog = ledger.in_flight();
            if !waits && calls {
                ledger.owe(&entry.generator, entry.offset);
            }
        }
    }

    fn share(&self) -> usize {
        (self.bounds.records / self.ledgers.len().max(1)).max(1)
    }

    fn finish_work(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        let now = around.now;
        let (done, rest): (Vec<Work>, Vec<Work>) =
            std::mem::take(&mut self.work).into_iter().partition(|work| work.done_at <= now);
        self.work = rest;
        for Work { ticket, serial, generator, offset, void, .. } in done {
            say!(
                around.trace,
                "r{} finishes {}/{offset}{}",
                self.id,
                ticket.partition,
                if void { ", void" } else { "" }
            );
            let before = self.engine.pool().bytes();
            self.engine.finished(ticket, ());
            // Its effects count from now on.
            let grown = self.engine.pool().bytes().saturating_sub(before);
            let most = around.scenario.effect_bytes();
            ensure!(
                grown <= most,
                Bounds,
                "one reading's effects hold {grown} bytes, but at most {most} are allowed"
            );
            let ledger = self.ledgers.get_mut(&ticket.partition.0).filter(|ledger| ledger.serial == serial);
            if let (Some(ledger), false) = (ledger, void) {
                ledger.finish(&generator, offset);
                let partition = &around.cluster.partitions[ticket.partition.0 as usize];
                if ledger.topic == *around.cluster.topic() && partition.calls_for_effects(offset) {
                    ledger.owe(&generator, offset);
                }
            }
        }
        self.engine.schedule();
        Ok(())
    }

    /// Whether the commit's outcome is in doubt: then the worker must not continue.
    fn take_outcome(&mut self, around: &mut Surroundings<'_>) -> Result<bool, Violation> {
        let ended = |committing: &mut Committing| matches!(committing.attempt.next(), Next::Ended(_));
        let Some(Committing { commit, attempt, .. }) = self.commit.take_if(ended) else {
            return Ok(false);
        };
        let (id, Next::Ended(ended)) = (commit.id, attempt.next()) else { return Ok(false) };
        say!(around.trace, "r{} learns that commit {} has ended: {ended:?}", self.id, id.0);
        match ended {
            Ended::Done => {
                self.sent.remember(&commit);
                for part in self.engine.committed(id, 0).parts {
                    if let Some(ledger) = self.ledgers.get_mut(&part.partition.0) {
                        ledger.acknowledge(part.offset.0, part.records)?;
                    }
                }
            }
            Ended::Refused { refusal, published } => {
                if published {
                    for part in &commit.parts {
                        self.ledgers.entry(part.partition.0).and_modify(Ledger::published);
                    }
                }
                self.backoff_until = around.now + COMMIT_BACKOFF;
                self.engine.refused(id, refusal, published);
                self.tell_who_we_are();
            }
            Ended::Rejected => ensure!(false, Progress, "no topic refuses anything here"),
            Ended::InDoubt => return Ok(true),
        }
        Ok(false)
    }

    fn begin_commit(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        let Some((commit, fence)) = self.engine.take_commit() else {
            let waits = self.ledgers.iter().find(|(_, ledger)| ledger.owes());
            let due = around.now - self.last_commit >= around.scenario.policy.linger
                && around.now >= self.backoff_until;
            ensure!(
                waits.is_none() || !due || self.commit.is_some(),
                Visible,
                "effects of {waits:?} wait; the last commit began at {}, now it is {}",
                self.last_commit,
                around.now
            );
            return Ok(());
        };
        self.last_commit = around.now;
        ensure!(self.commit.is_none(), Offsets, "two commits of one worker at once");
        for part in &commit.parts {
            say!(
                around.trace,
                "r{} begins commit {} under {fence:?}: {} at {} with {:?}",
                self.id,
                commit.id.0,
                part.partition,
                part.offset,
                part.effects
            );
            let ledger = self.ledgers.get_mut(&part.partition.0);
            ensure!(ledger.is_some(), Owner, "partition {} is committed and not held", part.partition);
            if let Some(ledger) = ledger {
                ledger.commit(part, around.scenario.least_share(), around.scenario.policy.bytes)?;
            }
            // Nothing is known any longer of a topic that is gone.
            if part.topic.as_ref() == Some(around.cluster.topic()) {
                let log = &around.cluster.partitions[part.partition.0 as usize].log;
                self.check_silences(part, log)?;
            }
            let again = self.sent.known(part);
            ensure!(again.is_none(), Once, "partition {}: {again:?} is sent again", part.partition);
        }
        let holds = |id: &i32| commit.parts.iter().any(|part| part.partition.0 == *id);
        let left = self.ledgers.iter().find(|(id, ledger)| ledger.owes() && !holds(id));
        ensure!(left.is_none(), Visible, "a commit leaves out the effects of {left:?}");
        let attempt = Attempt::new(around.scenario.delivery);
        self.stood_still.commit = false;
        self.commit = Some(Committing { commit, attempt, fence, abandoned: false });
        Ok(())
    }

    /// The committer continues the current commit.
    pub fn advance_commit(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        self.wake(around.scenario.session);
        let Some(Committing { commit, attempt, fence, abandoned }) = &mut self.commit else { return Ok(()) };
        let Next::Call(call) = attempt.next() else { return Ok(()) };
        let (scenario, settling) = (around.scenario, around.settling);
        if (scenario.delivery, call) == (Delivery::AtLeastOnce, Call::Offsets) {
            // Everything else has been flushed.
            self.sent.remember(commit);
        }
        let fails = !settling && around.rng.random_bool(scenario.refusals);
        let failures = [
            commit::CallResult::Refused(Refusal::Other),
            commit::CallResult::Refused(Refusal::Other),
            commit::CallResult::Broken,
        ];
        let failure = fails.then(|| failures[around.rng.random_range(0..failures.len())]);
        let lost = !settling && around.rng.random_bool(scenario.refusals / 2.0);
        // What the fence refuses isn't sent.
        let admitted = fence.check(self.client.metadata().as_ref());
        let member = admitted.and_then(|()| self.client.view().ok_or(Refusal::NotAMember));
        let request = Request {
            group: around.group,
            member,
            now: around.now,
            timeout: scenario.transaction,
            failure,
            lost,
            amount: around.rng.random_range(1..=8),
        };
        let stood_still = self.stood_still.commit.then_some(commit::CallResult::StoodStill);
        let answer = match call {
            Call::Write(Portion::States) if stood_still.is_some() => stood_still,
            Call::Flush => around
                .cluster
                .call(self.id, commit, call, &request)?
                .map(|answer| stood_still.unwrap_or(answer)),
            _ => around.cluster.call(self.id, commit, call, &request)?,
        };
        say!(around.trace, "r{} calls {call:?} of commit {}: {answer:?}", self.id, commit.id.0);
        let impatient = || match (*abandoned, self.given_up) {
            (true, _) => Some(commit::CallResult::Abandoned),
            (_, true) => Some(commit::CallResult::GivenUp),
            _ => None,
        };
        // An impatient commit doesn't wait for an answer, or not for long.
        let hurries = around.rng.random_bool(0.3);
        if let Some(answer) = answer.or_else(|| impatient().filter(|_| hurries)) {
            attempt.answered(answer);
        }
        Ok(())
    }

    fn perform(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        let mut starts = Vec::new();
        for action in self.engine.actions() {
            match action {
                Action::Run { ticket, generator, offset, .. } => {
                    self.begin_work(ticket, &generator, offset, around)?
                }
                Action::Pause(id) => self.pause(id, true, around),
                Action::Resume(id) => self.pause(id, false, around),
                Action::Acknowledge => self.client.acknowledge(&self.held())?,
                Action::Add(id, offset) => starts.push((id.0, offset.0)),
                Action::Seek(id, offset) => {
                    // Refused now and then: the partition isn't being fetched.
                    if around.settling || around.rng.random_bool(0.7) {
                        let is_done = self.client.seek(id.0, offset.0);
                        say!(around.trace, "r{} seeks {id}/{offset}: {is_done}", self.id);
                        self.sought(id, is_done);
                    }
                }
                Action::Reassign(id, offset) => {
                    let is_done = self.client.reassign(id.0, offset.0, &self.held())?;
                    say!(around.trace, "r{} assigns {id}/{offset} again: {is_done}", self.id);
                    self.sought(id, is_done);
                }
                Action::Unassign(list) => {
                    say!(around.trace, "r{} gives back {list:?}", self.id);
                    self.client.unassign(&list.iter().map(|id| id.0).collect::<Vec<_>>())?;
                    let told = self.told.pop_front();
                    ensure!(told.is_some(), Answered, "{list:?} are given back, but no revocation is open");
                    self.client.check_unassigned(&told.unwrap_or_default())?;
                }
                Action::Ask(ask, id, question) => {
                    self.asked.insert(ask, (id.0, question));
                }
                // The answer may be on its way.
                Action::Forget(ask) => {
                    self.asked.remove(&ask);
                }
                Action::Abandon => {
                    self.commit.iter_mut().for_each(|committing| committing.abandoned = true);
                }
                Action::GiveUp => self.given_up = true,
                Action::Gone(id) => self.gone(id.0, around)?,
                Action::Report(id, told) => self.told(id.0, told, around)?,
            }
        }
        if !starts.is_empty() {
            self.fetches.get_or_insert_with(|| around.cluster.topic().clone());
        }
        self.client.add(&starts, &self.held())
    }

    /// The offsets from which the client must fetch its partitions.
    fn held(&self) -> Vec<(i32, i64)> {
        self.engine.added().map(|(id, offset)| (id.0, offset.0)).collect()
    }

    fn sought(&mut self, id: PartitionId, is_done: bool) {
        if is_done {
            self.owed.remove(&id.0);
            self.engine.sought(id);
        }
    }

    fn gone(&mut self, id: i32, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        say!(around.trace, "r{} is done with {id}", self.id);
        if let Some(ledger) = self.ledgers.remove(&id) {
            let parts = self.commit.iter().flat_map(|committing| &committing.commit.parts);
            let holds = parts.into_iter().any(|part| part.partition.0 == id);
            ensure!(!holds, Release, "partition {id} was released while a commit holds it");
            ledger.release()?;
        }
        self.loads.remove(&id);
        self.silent.retain(|(of, _)| *of != id);
        self.forgettable.retain(|(of, _)| *of != id);
        self.sent.forget(id);
        self.owed.remove(&id);
        self.forget_work(id);
        Ok(())
    }

    fn told(&mut self, id: i32, told: Reported, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        say!(around.trace, "r{} says of {id}: {told:?}", self.id);
        match told {
            Reported::Started { start, .. } => {
                self.restored_ahead.insert(id, self.clock.max(0));
                self.serial += 1;
                let restored = self.restored.remove(&id).unwrap_or_default();
                ensure!(
                    self.told_another_log.remove(&id) || !restored.is_of_another_log(),
                    OtherLog,
                    "partition {id} is processed from {start}, but another log wasn't reported: {restored:?}"
                );
                let topic = restored.topic.clone().unwrap_or_else(|| around.cluster.topic().clone());
                let states = restored.own();
                let ledger = Ledger::new(topic, id, self.serial, start.0, self.lanes == Some(1), &states);
                let before = self.ledgers.insert(id, ledger);
                ensure!(before.is_none(), Release, "partition {id} was started twice");
                if self.client.fetched.contains_key(&id) {
                    // The fetcher's position differs until the seek is done.
                    self.owed.insert(id, i64::MAX - 1);
                }
            }
            Reported::Dropped => self.lose(id),
            Reported::Abandoned => {
                self.ledgers.entry(id).and_modify(Ledger::abandon);
                self.forget_work(id);
            }
            Reported::NewTopic { .. } => {
                self.told_another_log.insert(id);
            }
            Reported::StatesBeyondTheEnd { .. } => {}
            // A crash leaves states without an offset.
            Reported::StatesAhead { .. } if around.scenario.delivery == Delivery::AtLeastOnce => {}
            Reported::Refused(Fault::NewTopic { .. }) => self.met_another_log = true,
            Reported::Refused(_) | Reported::Skipped { .. } | Reported::StatesAhead { .. } => {
                let is_another = self.restored.get(&id).is_some_and(Restored::is_of_another_log);
                ensure!(!is_another, OtherLog, "partition {id} is taken for one of another log: {told:?}");
                ensure!(false, Progress, "partition {id} was given up without reason: {told:?}");
            }
        }
        Ok(())
    }

    fn pause(&mut self, id: PartitionId, paused: bool, around: &mut Surroundings<'_>) {
        say!(around.trace, "r{} {} {id}", self.id, if paused { "pauses" } else { "resumes" });
        self.client.pause(id.0, paused);
        self.loads.entry(id.0).or_default().full = paused;
    }

    fn begin_work(
        &mut self,
        ticket: Ticket,
        generator: &GeneratorId,
        offset: Offset,
        around: &mut Surroundings<'_>,
    ) -> Result<(), Violation> {
        let (id, generator) = (ticket.partition.0, generator.as_str().to_owned());
        say!(around.trace, "r{} starts {id}/{offset} of {generator}", self.id);
        let Some(ledger) = self.ledgers.get_mut(&id) else {
            ensure!(false, GivenUp, "offset {offset} of partition {id} was started, which isn't held");
            return Ok(());
        };
        ledger.start(&generator, offset.0)?;
        let cost = match around.settling {
            true => around.scenario.work.min(3),
            false if around.rng.random_bool(0.03) => around.rng.random_range(0..=around.scenario.slow_work),
            false => around.rng.random_range(0..=around.scenario.work),
        };
        self.started.push((id, generator.clone()));
        let done_at = around.now + cost;
        self.work.push(Work {
            ticket,
            serial: ledger.serial,
            generator,
            offset: offset.0,
            done_at,
            void: false,
        });
        Ok(())
    }

    fn forget_work(&mut self, id: i32) {
        for work in self.work.iter_mut().filter(|work| work.ticket.partition.0 == id) {
            work.void = true;
        }
    }

    /// Advances over offsets without a record.
    fn follow_positions(&mut self, around: &mut Surroundings<'_>) {
        if !self.is_connected(around.now) {
            return;
        }
        for (id, fetch) in &self.client.fetched {
            let partition = &around.cluster.partitions[*id as usize];
            let next = partition.log.get(partition.index(fetch.next)).map(|entry| entry.offset);
            let position = fetch.misled.unwrap_or(next.unwrap_or(partition.end));
            self.engine.position(PartitionId(*id), Offset(position));
            let owed = self.owed.get(id).copied().unwrap_or(-1);
            if let Some(ledger) = self.ledgers.get_mut(id).filter(|ledger| ledger.has_reached(owed + 1)) {
                ledger.reached(position);
            }
        }
    }
}
