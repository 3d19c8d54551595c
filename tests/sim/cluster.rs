//! Kafka in memory: logs of readings, what readers of committed records see, commits and their transactions.
//!
//! Owns everything that survives a replica. A commit under exactly-once is a transaction: its offsets are accepted under
//! the member's generation, then its end is requested, then it is visible, all at once, then the replica may learn of it;
//! between these steps anything can happen. Under at-least-once a commit's alerts and dead letters become visible one by
//! one, then its states, then its offsets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use genwatch::alarm::state::StoredState;
use genwatch::effect::Effect;
use genwatch::log::GeneratorId;
use genwatch::pool::{Commit, CommitPart};
use serde_json::Value;

use crate::group::{Group, MemberId};
use crate::invariants::{Violation, ensure};
use crate::judge::{AtLeastOnce, ExactlyOnce};
use crate::oracle::{Entry, Kind, Meaning, Oracle};
use crate::scenario::{Delivery, Scenario};

/// One partition of the readings topic, and of those that follow it.
#[derive(Debug)]
pub struct Partition {
    /// The records, by offset; offsets may be left out.
    pub log: Vec<Entry>,
    /// The offset behind the last record or marker.
    pub end: i64,
    /// The group's committed offset.
    pub committed: i64,
    /// The state partition of the same number, compacted.
    states: BTreeMap<String, Vec<u8>>,
    judge: Judge,
    /// Evaluates the log as it is appended; `None` where a clock has a say in it.
    serial: Option<Oracle>,
    /// The offsets of the readings that call for effects.
    calling: BTreeSet<i64>,
}

#[derive(Debug)]
enum Judge {
    ExactlyOnce(ExactlyOnce),
    AtLeastOnce(AtLeastOnce),
}

impl Partition {
    /// Where the first record at or behind `offset` stands in the log.
    pub fn index(&self, offset: i64) -> usize {
        self.log.partition_point(|entry| entry.offset < offset)
    }

    /// Whether the reading at `offset` calls for effects; false where that isn't known beforehand.
    pub fn calls_for_effects(&self, offset: i64) -> bool {
        self.calling.contains(&offset)
    }
}

/// Names one try to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionId(u64);

#[derive(Debug)]
struct Transaction {
    parts: Vec<CommitPart>,
    begun: i64,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Effects are sent, offsets not yet.
    Open,
    /// The offsets are accepted: pending until the end.
    OffsetsAccepted,
    /// The commit is requested: it will be, whatever happens to the replica.
    Ending,
    /// Visible; the replica doesn't know yet.
    Committed,
    /// Nothing of it is visible nor will be.
    Aborted,
    /// At-least-once: what is still to be written, of which partition; offsets follow.
    Writing(VecDeque<(i32, Effect)>),
}

/// What a replica learns about its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing yet.
    UnderWay,
    /// It is durable.
    Done,
    /// It is to be tried again.
    Refused,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    /// By number.
    pub partitions: Vec<Partition>,
    delivery: Delivery,
    transactions: BTreeMap<TransactionId, Transaction>,
    begun: u64,
}

impl Cluster {
    /// Topics without records.
    pub fn new(scenario: &Scenario) -> Cluster {
        let partition = |id: usize| {
            let id = id as i32;
            let judge = match scenario.delivery {
                Delivery::ExactlyOnce => Judge::ExactlyOnce(ExactlyOnce::new(id, &scenario.rules)),
                Delivery::AtLeastOnce => Judge::AtLeastOnce(AtLeastOnce::new(id, &scenario.rules)),
            };
            let deadman = scenario.rules.iter().any(|rule| matches!(rule.kind, Kind::Deadman(_)));
            Partition {
                log: Vec::new(),
                end: 0,
                committed: 0,
                states: BTreeMap::new(),
                judge,
                serial: (!deadman).then(|| Oracle::new(id, &scenario.rules)),
                calling: BTreeSet::new(),
            }
        };
        let partitions = (0..scenario.partitions).map(partition).collect();
        Cluster { partitions, delivery: scenario.delivery, transactions: BTreeMap::new(), begun: 0 }
    }

    /// Appends a record, whose offset must be the partition's end.
    pub fn append(&mut self, partition: usize, entry: Entry) {
        let partition = &mut self.partitions[partition];
        partition.end = entry.offset + 1;
        let calls = partition.serial.as_mut().is_some_and(|serial| !serial.evaluate(&entry).is_empty());
        if calls && !matches!(entry.meaning, Meaning::Bad(_)) {
            partition.calling.insert(entry.offset);
        }
        match &mut partition.judge {
            Judge::ExactlyOnce(judge) => judge.appended(&entry),
            Judge::AtLeastOnce(judge) => judge.appended(&entry),
        }
        partition.log.push(entry);
    }

    /// Step one of a restore: the committed offset, unless a transaction holds another one pending.
    pub fn stable_offset(&self, partition: i32) -> Option<i64> {
        let pending = |one: &Transaction| {
            matches!(one.stage, Stage::OffsetsAccepted | Stage::Ending) && one.holds(partition)
        };
        let unstable = self.transactions.values().any(pending);
        (!unstable).then(|| self.partitions[partition as usize].committed)
    }

    /// Step two of a restore: the committed states, unless a transaction on them is open.
    pub fn stable_states(&self, partition: i32) -> Option<Vec<(GeneratorId, StoredState)>> {
        let open = |one: &Transaction| {
            matches!(one.stage, Stage::Open | Stage::OffsetsAccepted | Stage::Ending) && one.holds(partition)
        };
        if self.transactions.values().any(open) {
            return None;
        }
        let states = self.partitions[partition as usize].states.iter();
        let restored = states.filter_map(|(id, json)| {
            Some((GeneratorId::from(id.as_str()), StoredState::from_json(json).ok()?))
        });
        Some(restored.collect())
    }

    /// A replica begins a commit.
    pub fn begin(&mut self, commit: Commit, now: i64) -> TransactionId {
        self.begun += 1;
        let id = TransactionId(self.begun);
        let stage = match self.delivery {
            Delivery::ExactlyOnce => Stage::Open,
            Delivery::AtLeastOnce => Stage::Writing(states_last(&commit.parts)),
        };
        self.transactions.insert(id, Transaction { parts: commit.parts, begun: now, stage });
        id
    }

    /// The replica of a commit goes on with it. `view`: its membership as it knows it; `refuse`: this step fails;
    /// `amount`: how much of it is written, where that can be a part.
    pub fn advance(
        &mut self,
        id: TransactionId,
        group: &Group,
        view: Option<(MemberId, u64)>,
        refuse: bool,
        amount: usize,
    ) -> Result<Progress, Violation> {
        let Some(mut transaction) = self.transactions.remove(&id) else { return Ok(Progress::Refused) };
        let allowed = group.accepts(view);
        transaction.stage = match transaction.stage {
            Stage::Committed => return Ok(Progress::Done),
            Stage::Aborted => return Ok(Progress::Refused),
            Stage::Open | Stage::OffsetsAccepted | Stage::Writing(_) if refuse => {
                return Ok(Progress::Refused);
            }
            Stage::Open if allowed => {
                ensure_owner(&transaction.parts, group, view)?;
                Stage::OffsetsAccepted
            }
            Stage::Open => return Ok(Progress::Refused),
            Stage::OffsetsAccepted => Stage::Ending,
            Stage::Ending => Stage::Ending,
            Stage::Writing(mut rest) if !rest.is_empty() => {
                self.write(&mut rest, amount)?;
                Stage::Writing(rest)
            }
            Stage::Writing(_) if allowed => {
                ensure_owner(&transaction.parts, group, view)?;
                self.commit_offsets(&transaction.parts)?;
                Stage::Committed
            }
            Stage::Writing(_) => return Ok(Progress::Refused),
        };
        self.transactions.insert(id, transaction);
        Ok(Progress::UnderWay)
    }

    /// What the brokers do by themselves: complete what was to end, abort what stays open.
    pub fn turn(&mut self, now: i64, timeout: i64) -> Result<(), Violation> {
        let ids: Vec<TransactionId> = self.transactions.keys().copied().collect();
        for id in ids {
            let Some(mut transaction) = self.transactions.remove(&id) else { continue };
            let overdue = now - transaction.begun > timeout;
            transaction.stage = match transaction.stage {
                Stage::Ending => {
                    self.make_visible(&transaction.parts)?;
                    Stage::Committed
                }
                Stage::Open | Stage::OffsetsAccepted if overdue => Stage::Aborted,
                stage => stage,
            };
            self.transactions.insert(id, transaction);
        }
        Ok(())
    }

    /// Whether everything in the log is committed, and no farewell is left.
    pub fn is_drained(&self) -> bool {
        let farewell = |json: &Vec<u8>| json.ends_with(b"\"decommissioned\":true}");
        self.partitions
            .iter()
            .all(|partition| partition.committed == partition.end && !partition.states.values().any(farewell))
    }

    /// The same of one partition.
    pub fn is_drained_of(&self, id: usize) -> bool {
        self.partitions[id].committed == self.partitions[id].end
    }

    /// The generators whose silence nobody has noticed.
    pub fn not_silent(&self) -> Vec<&str> {
        let judges = self.partitions.iter().filter_map(|partition| match &partition.judge {
            Judge::ExactlyOnce(judge) => Some(judge),
            Judge::AtLeastOnce(_) => None,
        });
        judges.flat_map(ExactlyOnce::not_silent).collect()
    }

    /// Compares the state topic with the oracle's states; everything has to be committed.
    pub fn check_states(&self) -> Result<(), Violation> {
        for (id, partition) in self.partitions.iter().enumerate() {
            let expected = match &partition.judge {
                Judge::ExactlyOnce(judge) => judge.states(),
                Judge::AtLeastOnce(judge) => judge.states(),
            };
            let parse = |(id, json): (&String, &Vec<u8>)| {
                (id.clone(), serde_json::from_slice(json).unwrap_or_default())
            };
            let stored: BTreeMap<String, Value> = partition.states.iter().map(parse).collect();
            ensure!(
                stored == expected,
                Effects,
                "the states of partition {id} are {stored:?}, they should be {expected:?}"
            );
        }
        Ok(())
    }

    fn make_visible(&mut self, parts: &[CommitPart]) -> Result<(), Violation> {
        for part in parts {
            let partition = &mut self.partitions[part.partition.0 as usize];
            if let Judge::ExactlyOnce(judge) = &mut partition.judge {
                judge.commit(&partition.log, part.offset.0, part.effects())?;
            }
            for effect in part.effects() {
                partition.store(effect);
            }
            partition.committed = part.offset.0;
        }
        Ok(())
    }

    fn commit_offsets(&mut self, parts: &[CommitPart]) -> Result<(), Violation> {
        for part in parts {
            let partition = &mut self.partitions[part.partition.0 as usize];
            if let Judge::AtLeastOnce(judge) = &mut partition.judge {
                judge.offset(&partition.log, part.offset.0)?;
            }
            partition.committed = part.offset.0;
        }
        Ok(())
    }

    /// Writes up to `amount` effects of a commit under at-least-once.
    fn write(&mut self, rest: &mut VecDeque<(i32, Effect)>, amount: usize) -> Result<(), Violation> {
        let amount = amount.min(rest.len());
        for (id, effect) in rest.drain(..amount) {
            let partition = &mut self.partitions[id as usize];
            match (&effect, &mut partition.judge) {
                (Effect::Alert(_) | Effect::DeadLetter(_), Judge::AtLeastOnce(judge)) => {
                    judge.visible(&partition.log, &effect)?;
                }
                (Effect::State(change), _) => {
                    let passed = change.offset.0 < partition.committed;
                    ensure!(
                        change.json.is_some() || passed,
                        Effects,
                        "{effect:?} deletes a state of partition {id}, which is committed at {}",
                        partition.committed
                    );
                    partition.store(&effect);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Partition {
    fn store(&mut self, effect: &Effect) {
        if let Effect::State(change) = effect {
            let generator = change.generator.as_str().to_owned();
            match &change.json {
                Some(json) => self.states.insert(generator, json.clone()),
                None => self.states.remove(&generator),
            };
        }
    }
}

impl Transaction {
    fn holds(&self, partition: i32) -> bool {
        self.parts.iter().any(|part| part.partition.0 == partition)
    }
}

/// The effects of a commit in the order in which at-least-once writes them: states behind everything else.
fn states_last(parts: &[CommitPart]) -> VecDeque<(i32, Effect)> {
    let is_state = |effect: &Effect| effect.as_state().is_some();
    let others = effects(parts).filter(|(_, effect)| !is_state(effect));
    let states = effects(parts).filter(|(_, effect)| is_state(effect));
    others.chain(states).map(|(id, effect)| (id, effect.clone())).collect()
}

fn effects(parts: &[CommitPart]) -> impl Iterator<Item = (i32, &Effect)> {
    parts.iter().flat_map(|part| part.effects().map(|effect| (part.partition.0, effect)))
}

fn ensure_owner(parts: &[CommitPart], group: &Group, view: Option<(MemberId, u64)>) -> Result<(), Violation> {
    for part in parts {
        let (partition, owner) = (part.partition, group.owner(part.partition.0));
        ensure!(
            owner == view.map(|(id, _)| id),
            Owner,
            "{view:?} commits partition {partition}, which belongs to {owner:?}"
        );
    }
    Ok(())
}
