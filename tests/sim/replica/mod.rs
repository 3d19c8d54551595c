//! A replica: drives a real [`Pool`] as `src/worker` does, turn by turn, with virtual time and the cluster in memory.
//!
//! Owns what dies with the process: the pool, the client's view of the group, what is fetched, worked, restored and being
//! committed. [`client`](crate::client) is its view of the group; [`Ledger`]s check the pool at each call.

mod assignment;
mod check;

use std::collections::BTreeMap;

use genwatch::alarm::detector::Detector;
use genwatch::alarm::rules::Rules;
use genwatch::effect::DeadLetter;
use genwatch::log::{GeneratorId, Millis, Offset, PartitionId};
use genwatch::pool::{Action, Bounds, CommitId, Handling, Pool, Ticket};
use genwatch::reading;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::client::Client;
use crate::cluster::{Cluster, Progress, TransactionId};
use crate::group::Group;
use crate::invariants::{Violation, ensure};
use crate::ledger::Ledger;
use crate::oracle::{Entry, Meaning};
use crate::scenario::Scenario;
use crate::trace::{Trace, say};
use assignment::{Held, Restore, Restored, Revocation};

/// After a refused commit the next one waits this long.
const COMMIT_BACKOFF: i64 = 100;
/// How often silence is looked for.
const OBSERVE_EVERY: i64 = 100;

/// What a replica touches in a turn.
pub struct Surroundings<'a> {
    /// Kafka.
    pub cluster: &'a mut Cluster,
    /// The coordinator.
    pub group: &'a mut Group,
    /// The one source of chance.
    pub rng: &'a mut ChaCha8Rng,
    /// What the run is like.
    pub scenario: &'a Scenario,
    /// Virtual time.
    pub now: i64,
    /// Whether faults are over: readings are quick, nothing is repeated or refused.
    pub settling: bool,
    /// What happens, for the reader of a replay.
    pub trace: &'a mut Trace,
}

#[derive(Debug)]
struct Fetch {
    next: i64,
    paused: bool,
    /// The share was full when a record was last taken in.
    full: bool,
    /// Records in flight when one was last taken in.
    backlog: usize,
}

#[derive(Debug)]
struct Work {
    ticket: Ticket,
    serial: u64,
    generator: String,
    offset: i64,
    done_at: i64,
    /// Its assignment is over, or its drain was: the pool must ignore it.
    void: bool,
}

/// What became of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The replica goes on.
    Goes,
    /// It has drained and left.
    Left,
}

/// One replica.
pub struct Replica {
    /// Its name in traces.
    pub id: usize,
    /// What it knows of the group.
    pub client: Client,
    /// Does nothing at all before this time.
    pub frozen_until: i64,
    /// Reaches neither brokers nor coordinator before this time.
    pub isolated_until: i64,
    /// Its wall clock, ahead of virtual time.
    pub clock: i64,
    pool: Pool,
    bounds: Bounds,
    lanes: Option<usize>,
    held: BTreeMap<i32, Held>,
    fetched: BTreeMap<i32, Fetch>,
    revocations: Vec<Revocation>,
    requests: u64,
    restores: Vec<Restore>,
    answers: Vec<(u64, Vec<Restored>)>,
    work: Vec<Work>,
    commit: Option<(CommitId, TransactionId, Vec<i32>, Progress)>,
    commit_not_before: i64,
    /// When the last commit was begun, by the replica's clock.
    last_commit: i64,
    stop: bool,
    draining: Option<i64>,
    observed: i64,
    serial: u64,
    ledgers: BTreeMap<i32, Ledger>,
    /// Readings started in this turn.
    started: Vec<(i32, String)>,
}

impl Replica {
    /// A replica that hasn't joined yet.
    pub fn new(id: usize, rules: &Rules, scenario: &Scenario, clock: i64) -> Replica {
        let detector = Detector::new(rules.clone());
        let lanes = match scenario.handling {
            Handling::Inline => None,
            Handling::Lanes { concurrency } => Some(concurrency),
        };
        Replica {
            id,
            client: Client::default(),
            frozen_until: 0,
            isolated_until: 0,
            clock,
            pool: Pool::new(detector, scenario.handling, scenario.bounds, scenario.policy),
            bounds: scenario.bounds,
            lanes,
            held: BTreeMap::new(),
            fetched: BTreeMap::new(),
            revocations: Vec::new(),
            requests: 0,
            restores: Vec::new(),
            answers: Vec::new(),
            work: Vec::new(),
            commit: None,
            commit_not_before: 0,
            last_commit: i64::MIN / 2,
            stop: false,
            draining: None,
            observed: 0,
            serial: 0,
            ledgers: BTreeMap::new(),
            started: Vec::new(),
        }
    }

    /// Whether it reaches the cluster.
    pub fn is_connected(&self, now: i64) -> bool {
        now >= self.frozen_until && now >= self.isolated_until
    }

    /// Tells it to drain and leave.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    /// Whether it is leaving.
    pub fn is_stopping(&self) -> bool {
        self.stop
    }

    /// Whether nothing is left to be done.
    pub fn is_idle(&self) -> bool {
        self.pool.in_flight() == 0
            && self.pool.running() == 0
            && self.pool.bytes() == 0
            && self.commit.is_none()
            && self.revocations.is_empty()
            && self.held.values().all(|held| matches!(held, Held::Working))
            && self.fetched.values().all(|fetch| !fetch.paused)
            && self.ledgers.values().all(Ledger::is_settled)
    }

    /// Whether a reading of this generator is being worked.
    pub fn works_on(&self, partition: i32, generator: &str) -> bool {
        self.ledgers.get(&partition).is_some_and(|ledger| ledger.running().contains_key(generator))
    }

    /// Readings started since the last call.
    pub fn take_started(&mut self) -> Vec<(i32, String)> {
        std::mem::take(&mut self.started)
    }

    /// One turn of the worker's loop.
    pub fn turn(&mut self, around: &mut Surroundings<'_>) -> Result<Turn, Violation> {
        self.pool.set_time(Millis(around.now + self.clock));
        let taken = self.take_in(around)?;
        self.serve_rebalances(around);
        self.start_restored(around);
        self.finish_work(around)?;
        self.take_outcome(around)?;
        self.begin_commit(around)?;
        self.perform(around)?;
        self.check(around)?;
        self.begin_drain_if_told(around);
        self.give_up_overdue(around);
        self.observe(around)?;
        if self.is_done(around.now) {
            self.client.leave(around.group);
            return Ok(Turn::Left);
        }
        if taken == 0 {
            self.follow_positions(around);
        }
        Ok(Turn::Goes)
    }

    /// Takes a batch of what is fetched, of random size.
    fn take_in(&mut self, around: &mut Surroundings<'_>) -> Result<usize, Violation> {
        if !self.is_connected(around.now) {
            return Ok(0);
        }
        let limit = if around.settling {
            around.scenario.batch
        } else {
            around.rng.random_range(0..=around.scenario.batch)
        };
        let mut batch: Vec<(i32, usize)> = Vec::new();
        for _ in 0..limit {
            let partitions = &around.cluster.partitions;
            let waiting = |(id, fetch): (&i32, &Fetch)| {
                let index = partitions[*id as usize].index(fetch.next);
                (!fetch.paused && index < partitions[*id as usize].log.len()).then_some((*id, index))
            };
            let waiting: Vec<(i32, usize)> = self.fetched.iter().filter_map(waiting).collect();
            if waiting.is_empty() {
                break;
            }
            let (id, index) = waiting[around.rng.random_range(0..waiting.len())];
            let start = self.ledgers.get(&id).map_or(0, Ledger::started_at);
            let offset = partitions[id as usize].log[index].offset;
            if let Some(fetch) = self.fetched.get_mut(&id) {
                fetch.next = offset + 1;
                if !around.settling && around.rng.random_bool(around.scenario.repeats) {
                    fetch.next = around.rng.random_range(start..=fetch.next.max(start));
                }
            }
            batch.push((id, index));
        }
        for (id, index) in &batch {
            let partition = &around.cluster.partitions[*id as usize];
            let entry = &partition.log[*index];
            say!(around.trace, "r{} takes in {id}/{}", self.id, entry.offset);
            self.take_in_record(*id, entry, partition.calls_for_effects(entry.offset));
        }
        Ok(batch.len())
    }

    fn take_in_record(&mut self, id: i32, entry: &Entry, calls: bool) {
        let (partition, offset, at) = (PartitionId(id), Offset(entry.offset), Millis(entry.at));
        let bytes = entry.key.as_ref().map_or(0, Vec::len) + entry.value.as_ref().map_or(0, Vec::len);
        match reading::parse(entry.key.as_deref(), entry.value.as_deref()) {
            Ok(parsed) => self.pool.take_in(partition, offset, at, &parsed, bytes),
            Err(error) => self.pool.take_in_bad(DeadLetter {
                partition,
                offset,
                timestamp: at,
                key: entry.key.clone(),
                value: entry.value.clone(),
                headers: Vec::new(),
                error,
            }),
        }
        let waits = self.lanes.is_some() && !matches!(entry.meaning, Meaning::Bad(_));
        let share = self.share();
        let (Some(ledger), Some(fetch)) = (self.ledgers.get_mut(&id), self.fetched.get_mut(&id)) else {
            return;
        };
        if ledger.take_in(entry.offset, waits.then_some(entry.generator.as_str())) {
            fetch.full = ledger.in_flight() >= share;
            fetch.backlog = ledger.in_flight();
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
            let before = self.pool.bytes();
            self.pool.finished(ticket);
            // What is held counts from then on.
            let grown = self.pool.bytes().saturating_sub(before);
            let most = around.scenario.effect_bytes();
            ensure!(
                grown <= most,
                Bounds,
                "{grown} bytes are held since one reading finished, it has at most {most}"
            );
            let ledger = self.ledgers.get_mut(&ticket.partition.0).filter(|ledger| ledger.serial == serial);
            if let (Some(ledger), false) = (ledger, void) {
                ledger.finish(&generator, offset);
                if around.cluster.partitions[ticket.partition.0 as usize].calls_for_effects(offset) {
                    ledger.owe(&generator, offset);
                }
            }
        }
        self.pool.schedule();
        Ok(())
    }

    fn take_outcome(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        let Some((id, .., progress)) = &self.commit else { return Ok(()) };
        let (id, progress) = (*id, *progress);
        match progress {
            Progress::UnderWay => return Ok(()),
            Progress::Done => {
                say!(around.trace, "r{} learns that commit {} is done", self.id, id.0);
                for part in self.pool.committed(id).parts {
                    if let Some(ledger) = self.ledgers.get_mut(&part.partition.0) {
                        ledger.acknowledge(part.offset.0, part.records)?;
                    }
                }
            }
            Progress::Refused => {
                say!(around.trace, "r{} learns that commit {} was refused", self.id, id.0);
                self.commit_not_before = around.now + COMMIT_BACKOFF;
                self.pool.commit_failed(id);
            }
        }
        self.commit = None;
        Ok(())
    }

    fn begin_commit(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        if around.now < self.commit_not_before {
            return Ok(());
        }
        let time = around.now + self.clock;
        let due = time - self.last_commit.min(time) >= around.scenario.policy.linger;
        self.last_commit = self.last_commit.min(time);
        let Some(commit) = self.pool.take_commit() else {
            let waits = self.ledgers.iter().find(|(_, ledger)| ledger.owes());
            ensure!(
                waits.is_none() || !due || self.commit.is_some(),
                Visible,
                "effects of {waits:?} wait, the last commit was begun at {} and it is {time}",
                self.last_commit
            );
            return Ok(());
        };
        self.last_commit = time;
        ensure!(self.commit.is_none(), Offsets, "two commits of one replica at once");
        for part in &commit.parts {
            say!(
                around.trace,
                "r{} begins commit {}: {} at {} with {:?}",
                self.id,
                commit.id.0,
                part.partition,
                part.offset,
                part.effects().collect::<Vec<_>>()
            );
            let ledger = self.ledgers.get_mut(&part.partition.0);
            ensure!(ledger.is_some(), Owner, "partition {} is committed and not held", part.partition);
            if let Some(ledger) = ledger {
                ledger.commit(part)?;
            }
        }
        let holds = |id: &i32| commit.parts.iter().any(|part| part.partition.0 == *id);
        let left = self.ledgers.iter().find(|(id, ledger)| ledger.owes() && !holds(id));
        ensure!(left.is_none(), Visible, "a commit leaves out the effects of {left:?}");
        let partitions = commit.parts.iter().map(|part| part.partition.0).collect();
        let id = commit.id;
        let transaction = around.cluster.begin(commit, around.now);
        self.commit = Some((id, transaction, partitions, Progress::UnderWay));
        Ok(())
    }

    /// The committer goes on with the commit under way.
    pub fn advance_commit(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        let Some((_, transaction, _, progress)) = &mut self.commit else { return Ok(()) };
        if *progress == Progress::UnderWay {
            let refuse = !around.settling && around.rng.random_bool(around.scenario.refusals);
            let amount = around.rng.random_range(1..=8);
            let view = self.client.view();
            *progress = around.cluster.advance(*transaction, around.group, view, refuse, amount)?;
        }
        Ok(())
    }

    fn perform(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        let mut released = Vec::new();
        let actions: Vec<Action> = self.pool.actions().collect();
        for action in actions {
            match action {
                Action::Run { ticket, generator, offset } => {
                    self.begin_work(ticket, &generator, offset, around)?
                }
                Action::Pause(id) => self.pause(id, true, around),
                Action::Resume(id) => self.pause(id, false, around),
                Action::Release(id) => released.push(id.0),
            }
        }
        for id in released {
            say!(around.trace, "r{} releases {id}", self.id);
            let holds = self.commit.as_ref().is_some_and(|(_, _, partitions, _)| partitions.contains(&id));
            ensure!(!holds, Release, "partition {id} was released while a commit holds it");
            let ledger = self.ledgers.remove(&id);
            ensure!(ledger.is_some(), Release, "partition {id} was released and not held");
            if let Some(ledger) = ledger {
                ledger.release()?;
            }
            self.forget_work(id);
            self.held.remove(&id);
            for revocation in &mut self.revocations {
                revocation.waiting.remove(&id);
            }
        }
        self.remove_drained(around);
        Ok(())
    }

    fn pause(&mut self, id: PartitionId, paused: bool, around: &mut Surroundings<'_>) {
        say!(around.trace, "r{} {} {id}", self.id, if paused { "pauses" } else { "resumes" });
        if let Some(fetch) = self.fetched.get_mut(&id.0) {
            (fetch.paused, fetch.full) = (paused, paused);
        }
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

    fn observe(&mut self, around: &mut Surroundings<'_>) -> Result<(), Violation> {
        if around.now - self.observed < OBSERVE_EVERY || !self.is_connected(around.now) {
            return Ok(());
        }
        self.observed = around.now;
        for (id, ledger) in &self.ledgers {
            let end = around.cluster.partitions[*id as usize].end;
            let held = self.pool.bytes();
            self.pool.watch_silence(PartitionId(*id), Offset(end), Millis(around.now + self.clock));
            ensure!(
                ledger.has_reached(end) || self.pool.bytes() == held,
                Effects,
                "silence was told of partition {id}, though not all up to its end at {end} was taken in"
            );
        }
        Ok(())
    }

    /// Moves on over offsets that hold no record.
    fn follow_positions(&mut self, around: &mut Surroundings<'_>) {
        if !self.is_connected(around.now) {
            return;
        }
        for (id, fetch) in &self.fetched {
            let partition = &around.cluster.partitions[*id as usize];
            let next = partition.log.get(partition.index(fetch.next)).map(|entry| entry.offset);
            let position = next.unwrap_or(partition.end);
            let Some(ledger) = self.ledgers.get_mut(id) else { continue };
            self.pool.reached(PartitionId(*id), Offset(position));
            ledger.reached(position);
        }
    }
}
