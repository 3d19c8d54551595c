//! The scheduler: one seed, one run.
//!
//! Every choice comes from one random generator with the run's seed: the scenario, the next step, the faults and
//! their times. So a seed replays exactly. At the end of a run faults cease, and everything must settle.

use genwatch_core::alarm::rules::Rules;
use genwatch_core::engine::commit::Delivery;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cluster::Cluster;
use crate::group::{Group, MemberId, Rebalanced};
use crate::invariants::{Invariant, Violation, ensure};
use crate::librdkafka::Protocol;
use crate::records;
use crate::records::Entry;
use crate::replica::{Replica, Surroundings, Turn};
use crate::scenario::{Scenario, toml};
use crate::trace::{Trace, say};

/// A run that broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run's seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// The broken invariant.
    pub violation: Violation,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}, step {}: {}", self.seed, self.step, self.violation)
    }
}

/// Counts of a run's events, so that a test can check that runs cover what they should.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Steps taken.
    pub steps: u64,
    /// Records in the log.
    pub records: u64,
    /// Workers that crashed.
    pub crashes: u64,
    /// Members that were evicted but went on.
    pub zombies: u64,
    /// Rebalances.
    pub rebalances: u64,
    /// Workers that left in an orderly way.
    pub leaves: u64,
    /// Topics re-created.
    pub made_anew: u64,
    /// Logs that lost their end.
    pub truncated: u64,
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Seen) {
        self.steps += other.steps;
        self.records += other.records;
        self.crashes += other.crashes;
        self.zombies += other.zombies;
        self.rebalances += other.rebalances;
        self.leaves += other.leaves;
        self.made_anew += other.made_anew;
        self.truncated += other.truncated;
    }
}

/// Runs one seed.
///
/// # Errors
/// Returns the first invariant that is broken.
pub fn run(seed: u64, told: bool) -> Result<Seen, Failure> {
    let mut world = World::new(seed, told);
    let result = world.run();
    let step = world.seen.steps;
    result.map(|()| world.seen).map_err(|violation| Failure { seed, step, violation })
}

struct World {
    rng: ChaCha8Rng,
    scenario: Scenario,
    rules: Rules,
    cluster: Cluster,
    group: Group,
    replicas: Vec<Replica>,
    started: usize,
    produced: usize,
    now: i64,
    blocked: Option<i32>,
    settling: bool,
    trace: Trace,
    seen: Seen,
}

impl World {
    fn new(seed: u64, told: bool) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let scenario = Scenario::draw(&mut rng);
        let text = toml(&scenario.rules);
        let rules = Rules::parse(&text, "rules.toml".as_ref()).expect("a file of rules that makes sense");
        let trace = Trace::new(told);
        say!(trace, "{scenario:#?}\n{text}");
        World {
            cluster: Cluster::new(&scenario),
            group: Group::new(scenario.partitions as i32, scenario.patience),
            replicas: Vec::new(),
            started: 0,
            produced: 0,
            now: 0,
            blocked: scenario.blocked,
            settling: false,
            seen: Seen::default(),
            rng,
            scenario,
            rules,
            trace,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        for _ in 0..self.scenario.replicas {
            self.start_replica();
        }
        for _ in 0..self.scenario.steps {
            self.pass_time(self.scenario.tick)?;
            if self.rng.random_bool(self.scenario.faults) {
                self.fault()?;
            }
            self.disturb_the_log()?;
            self.step()?;
        }
        self.settle()
    }

    /// Makes one random step.
    fn step(&mut self) -> Result<(), Violation> {
        match self.rng.random_range(0..100) {
            0..12 => self.produce(),
            12..16 => {
                self.rebalance();
                if self.rng.random_bool(0.01) {
                    self.group.rotate(self.now);
                }
            }
            choice => {
                if self.replicas.is_empty() {
                    return Ok(());
                }
                let index = self.rng.random_range(0..self.replicas.len());
                match choice {
                    16..26 => self.serve_client(index),
                    26..36 => self.with(index, Replica::restore)?,
                    36..56 => self.with(index, Replica::advance_commit)?,
                    _ => self.turn(index)?,
                }
            }
        }
        Ok(())
    }

    fn pass_time(&mut self, most: i64) -> Result<(), Violation> {
        self.seen.steps += 1;
        self.now += self.rng.random_range(0..=most);
        self.trace.at(self.seen.steps, self.now);
        for replica in self.replicas.iter_mut().filter(|replica| replica.is_connected(self.now)) {
            // Whether an evicted worker learns it now or goes on for a while.
            let learns = self.settling || self.rng.random_bool(0.02);
            if replica.client.heartbeat(&mut self.group, self.now, learns) {
                say!(self.trace, "r{} learns that it was evicted", replica.id);
            }
        }
        for MemberId(id) in self.group.evict(self.now, self.scenario.session) {
            say!(self.trace, "member {id} is evicted");
            let is_it = |replica: &Replica| replica.client.is_called(MemberId(id));
            self.seen.zombies += u64::from(self.replicas.iter().any(is_it));
        }
        let timeout = self.scenario.transaction;
        if self.settling || self.rng.random_bool(0.1) {
            self.cluster.turn(self.now, timeout)?;
        }
        Ok(())
    }

    fn produce(&mut self) {
        if self.produced == self.scenario.records {
            return;
        }
        self.produced += 1;
        self.seen.records += 1;
        let id = self.rng.random_range(0..self.scenario.partitions);
        let partition = &mut self.cluster.partitions[id];
        if self.rng.random_bool(self.scenario.gaps) {
            partition.end += self.rng.random_range(1..=3);
        }
        let offset = partition.end;
        let generator = format!("g{id}-{}", self.rng.random_range(0..self.scenario.generators));
        // Event time: about now, sometimes far off, or from a producer that sets none.
        let at = match self.rng.random_range(0..20) {
            0 => self.now - self.rng.random_range(0..=1000),
            1 => self.now + self.rng.random_range(0..=1000),
            2 if self.rng.random_bool(0.1) => -1,
            _ => self.now - self.rng.random_range(0..=5),
        };
        let record = records::any(&mut self.rng, offset, at, &generator, &self.scenario.rarity);
        let entry = Entry { appended: self.now, ..record };
        say!(self.trace, "{id}/{offset} is produced: {generator} at {at}: {:?}", entry.meaning);
        self.cluster.append(id, entry);
        if self.rng.random_bool(self.scenario.gaps / 2.0) {
            self.cluster.partitions[id].end += 1;
        }
    }

    /// Lets Kafka or an operator change the log.
    fn disturb_the_log(&mut self) -> Result<(), Violation> {
        if self.rng.random_bool(self.scenario.made_anew) {
            // Without transactions, the fate of what earlier workers sent is unknown.
            while self.scenario.delivery == Delivery::AtLeastOnce && !self.replicas.is_empty() {
                self.crash(0);
            }
            self.seen.made_anew += 1;
            let offsets_stay = self.rng.random_bool(0.5);
            self.cluster.make_anew(&self.scenario, offsets_stay);
            say!(
                self.trace,
                "the topic is re-created as {}, offsets stay: {offsets_stay}",
                self.cluster.topic()
            );
        }
        let id = self.rng.random_range(0..self.scenario.partitions);
        if self.rng.random_bool(self.scenario.unclean_elections) {
            self.elect_uncleanly(id)?;
        }
        if self.rng.random_bool(0.002) {
            let partition = &self.cluster.partitions[id];
            if let Some(low) = partition.committed().filter(|committed| *committed <= partition.end) {
                self.cluster.retain(id, low);
            }
        }
        Ok(())
    }

    /// The leader of a partition dies, and with it each worker that has read records that only this leader had.
    fn elect_uncleanly(&mut self, id: usize) -> Result<(), Violation> {
        // What is about to be visible becomes visible first.
        self.cluster.turn(self.now, self.scenario.transaction)?;
        let end = self.cluster.partitions[id].end;
        let settled = self.cluster.settled(id);
        if settled >= end {
            return Ok(());
        }
        let end = if self.rng.random_bool(0.5) { settled } else { self.rng.random_range(settled..end) };
        for index in (0..self.replicas.len()).rev() {
            if self.replicas[index].has_read(id as i32, end) {
                self.crash(index);
            }
        }
        self.seen.truncated += 1;
        self.cluster.elect_uncleanly(id, end);
        say!(self.trace, "{id} ends at {end} under a new leader");
        Ok(())
    }

    fn rebalance(&mut self) {
        if self.scenario.protocol == Protocol::Consumer {
            self.seen.rebalances += u64::from(self.group.assign());
            return;
        }
        let Some(Rebalanced { generation, lists, late }) = self.group.rebalance(self.now) else { return };
        self.seen.rebalances += 1;
        for MemberId(id) in late {
            say!(self.trace, "member {id} hasn't joined the rebalance in time");
        }
        for (id, list) in lists {
            say!(self.trace, "member {} has {list:?} in generation {generation}", id.0);
            if let Some(replica) = self.replicas.iter_mut().find(|replica| replica.client.is_called(id)) {
                replica.client.joined(generation, list);
            }
        }
    }

    fn serve_client(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        if replica.is_connected(self.now) {
            replica.client.step(&mut self.group, self.now);
        }
    }

    /// Runs `act` on a worker, if it reaches the cluster.
    fn with(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Replica, &mut Surroundings<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let replica = &mut self.replicas[index];
        if !replica.is_connected(self.now) {
            return Ok(());
        }
        let mut around = Surroundings {
            cluster: &mut self.cluster,
            group: &mut self.group,
            rng: &mut self.rng,
            scenario: &self.scenario,
            now: self.now,
            blocked: self.blocked,
            settling: self.settling,
            trace: &mut self.trace,
        };
        act(replica, &mut around)
    }

    fn turn(&mut self, index: usize) -> Result<(), Violation> {
        let replica = &mut self.replicas[index];
        if replica.is_frozen(self.now) {
            return Ok(());
        }
        let mut around = Surroundings {
            cluster: &mut self.cluster,
            group: &mut self.group,
            rng: &mut self.rng,
            scenario: &self.scenario,
            now: self.now,
            blocked: self.blocked,
            settling: self.settling,
            trace: &mut self.trace,
        };
        let turn = replica.turn(&mut around)?;
        self.check_one_at_a_time(index)?;
        match turn {
            Turn::Goes => {}
            Turn::Left => {
                let replica = self.replicas.remove(index);
                say!(self.trace, "r{} has left", replica.id);
                self.seen.leaves += 1;
            }
            Turn::Replaced => {
                say!(self.trace, "r{} is replaced", self.replicas[index].id);
                self.crash(index);
                self.start_replica();
            }
            Turn::Died => {
                if self.replicas[index].met_another_log() {
                    self.scenario.decide();
                }
                self.crash(index);
            }
        }
        Ok(())
    }

    /// Checks that members process no two readings of a generator at once. Evicted workers don't count: they can't
    /// know.
    fn check_one_at_a_time(&mut self, index: usize) -> Result<(), Violation> {
        let started = self.replicas[index].take_started();
        let is_member = |replica: &Replica| replica.is_member_of(&self.group);
        if !is_member(&self.replicas[index]) {
            return Ok(());
        }
        for (partition, generator) in started {
            let others = self.replicas.iter().enumerate().filter(|(other, _)| *other != index);
            let mut busy =
                others.filter(|(_, other)| is_member(other) && other.works_on(partition, &generator));
            let busy = busy.next().map(|(_, other)| other.id);
            ensure!(
                busy.is_none(),
                OneAtATime,
                "{generator} is processed by r{} while r{busy:?} processes it",
                self.replicas[index].id
            );
        }
        Ok(())
    }

    fn start_replica(&mut self) {
        let clock = if self.rng.random_bool(0.3) { self.rng.random_range(-2000..=2000) } else { 0 };
        let mut replica = Replica::new(self.started, &self.rules, &self.scenario, clock);
        if self.rng.random_bool(0.5) {
            replica.heed_no_other_topic();
        }
        say!(self.trace, "r{} is started", replica.id);
        self.started += 1;
        self.replicas.push(replica);
    }

    /// A fault, or a worker starts or stops.
    fn fault(&mut self) -> Result<(), Violation> {
        let kind = self.rng.random_range(0..6);
        if kind == 0 || self.replicas.is_empty() {
            if self.replicas.len() < self.scenario.max_replicas {
                self.start_replica();
            }
            return Ok(());
        }
        let index = self.rng.random_range(0..self.replicas.len());
        // Without transactions nothing stops a zombie from writing, unless it knows that it stood still.
        let fenced = self.scenario.delivery == Delivery::ExactlyOnce;
        let away = self.now + self.rng.random_range(1..=3 * self.scenario.session);
        let replica = &mut self.replicas[index];
        match kind {
            1 => {
                say!(self.trace, "r{} is asked to stop", replica.id);
                replica.stop();
            }
            2 => {
                self.crash(index);
            }
            _ if kind == 3 || kind == 4 && !fenced => {
                // Sometimes for so long that others have taken over its partitions.
                let away = away + 8 * self.scenario.session * i64::from(self.rng.random_bool(0.5));
                say!(self.trace, "r{} is frozen until {away}", replica.id);
                replica.freeze(self.now, away);
                let id = replica.id;
                self.cluster.stands_still(id)?;
            }
            4 => {
                say!(self.trace, "r{} is cut off until {away}", replica.id);
                replica.isolated_until = away;
            }
            // A clock that is set while an alarm is raised says little about how long the alarm has been active.
            _ if self.scenario.forget_after.is_some() => {}
            _ => {
                let by = self.rng.random_range(-100_000..=10_000);
                replica.set_clock(by, self.now);
                say!(self.trace, "the clock of r{} is set by {by}", replica.id);
            }
        }
        Ok(())
    }

    fn crash(&mut self, index: usize) {
        let replica = self.replicas.remove(index);
        say!(self.trace, "r{} crashes", replica.id);
        self.seen.crashes += 1;
        self.cluster.died(replica.id);
    }

    /// Faults cease. Everything must be committed soon, and then match the oracle.
    fn settle(&mut self) -> Result<(), Violation> {
        say!(self.trace, "--- faults cease");
        self.settling = true;
        self.group.rotate(self.now);
        for replica in &mut self.replicas {
            replica.thaw(self.now);
        }
        let rounds = 6000;
        if let Some(blocked) = self.blocked {
            self.rounds(rounds, Invariant::Isolated, "committed but one partition", |world| {
                let ready = |id: usize| id as i32 == blocked || world.cluster.is_drained_of(id);
                (0..world.scenario.partitions).all(ready)
            })?;
            self.blocked = None;
        }
        self.rounds(rounds, Invariant::Progress, "committed", |world| {
            world.cluster.is_drained() && world.replicas.iter().all(Replica::is_idle)
        })?;
        self.rounds(rounds, Invariant::Rejoined, "processed by a worker", World::is_whole)?;
        self.rounds(rounds, Invariant::Progress, "noticed as silent", |world| {
            world.cluster.not_silent().is_empty()
        })?;
        if self.scenario.forget_after.is_some() {
            self.rounds(rounds, Invariant::Progress, "forgotten", |world| {
                world.cluster.has_forgotten_all() && world.cluster.is_drained()
            })?;
        }
        self.cluster.check_states()
    }

    /// Whether every worker is a member, and each partition is processed by exactly one.
    fn is_whole(&self) -> bool {
        let works =
            |id: i32| self.replicas.iter().flat_map(Replica::works).filter(|other| *other == id).count();
        self.replicas
            .iter()
            .filter(|replica| !replica.is_stopping())
            .all(|replica| replica.client.is_settled())
            && (0..self.scenario.partitions as i32).all(|id| works(id) == 1)
    }

    /// Lets every part act in turn until `done`; returns a violation if that takes too many rounds.
    fn rounds(
        &mut self,
        most: usize,
        invariant: Invariant,
        what: &str,
        done: impl Fn(&World) -> bool,
    ) -> Result<(), Violation> {
        for _ in 0..most {
            if done(self) {
                return Ok(());
            }
            self.pass_time(10)?;
            if self.replicas.iter().all(Replica::is_stopping) {
                self.start_replica();
            }
            self.rebalance();
            for index in (0..self.replicas.len()).rev() {
                self.serve_client(index);
                self.with(index, Replica::restore)?;
                self.with(index, Replica::advance_commit)?;
                self.turn(index)?;
            }
        }
        let offsets = |partition: &crate::cluster::Partition| (partition.committed(), partition.end);
        let offsets: Vec<_> = self.cluster.partitions.iter().map(offsets).collect();
        let idle: Vec<_> = self.replicas.iter().map(|replica| (replica.id, replica.is_idle())).collect();
        Err(Violation {
            invariant,
            what: format!(
                "after {most} rounds not everything is {what}: committed and end are {offsets:?}, idle are {idle:?}, \
                 not silent are {:?}",
                self.cluster.not_silent()
            ),
        })
    }
}
