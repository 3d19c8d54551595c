//! Kafka in memory: logs of readings, and what readers of committed records see.
//!
//! Owns everything that survives a replica. What replicas write comes by their producers ([`crate::producer`]).

use std::collections::{BTreeMap, BTreeSet};

use genwatch::alarm::state::StoredState;
use genwatch::effect::Effect;
use genwatch::engine::commit::{Answer, Call, Delivery};
use genwatch::log::GeneratorId;
use genwatch::pool::{Commit, CommitPart};
use serde_json::Value;

use crate::invariants::{Violation, ensure};
use crate::judge::{AtLeastOnce, ExactlyOnce};
use crate::oracle::{Entry, Kind, Meaning, Oracle};
use crate::producer::{Mark, Producer, Request};
use crate::scenario::Scenario;

/// One partition of the readings topic, and of those that follow it.
#[derive(Debug)]
pub struct Partition {
    /// The records, by offset; offsets may be left out.
    pub log: Vec<Entry>,
    /// The offset behind the last record or marker.
    pub end: i64,
    /// The group's committed offset.
    pub committed: i64,
    /// What it bears: which commit brought it.
    pub mark: Option<Mark>,
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

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    /// By number.
    pub partitions: Vec<Partition>,
    delivery: Delivery,
    /// By replica; those of the dead have their effects to the end.
    producers: BTreeMap<usize, Producer>,
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
                mark: None,
                states: BTreeMap::new(),
                judge,
                serial: (!deadman).then(|| Oracle::new(id, &scenario.rules)),
                calling: BTreeSet::new(),
            }
        };
        let partitions = (0..scenario.partitions).map(partition).collect();
        Cluster { partitions, delivery: scenario.delivery, producers: BTreeMap::new() }
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
        let unstable = self.producers.values().any(|producer| producer.holds_offset_of(partition));
        (!unstable).then(|| self.partitions[partition as usize].committed)
    }

    /// Step two of a restore: the committed states, unless a transaction on them is open.
    pub fn stable_states(&self, partition: i32) -> Option<Vec<(GeneratorId, StoredState)>> {
        if self.producers.values().any(|producer| producer.holds_states_of(partition)) {
            return None;
        }
        let states = self.partitions[partition as usize].states.iter();
        let restored = states.filter_map(|(id, json)| {
            Some((GeneratorId::from(id.as_str()), StoredState::from_json(json).ok()?))
        });
        Some(restored.collect())
    }

    /// A replica makes a call for its commit. `None`: the cluster hasn't answered yet.
    pub fn call(
        &mut self,
        replica: usize,
        commit: &Commit,
        call: Call,
        request: &Request<'_>,
    ) -> Result<Option<Answer>, Violation> {
        let mut producer = self.producers.remove(&replica).unwrap_or_default();
        let mark = Mark { replica, commit: commit.id.0 };
        let answer = match call {
            Call::Begin => producer.begin(commit, mark, request),
            Call::Write(portion) => producer.write(self.delivery, commit, portion, request),
            Call::Flush => {
                self.deliver(&mut producer, request.amount)?;
                producer.flush(request)
            }
            Call::Offsets => {
                let answer = producer.offsets(self.delivery, commit, request)?;
                if (self.delivery, answer) == (Delivery::AtLeastOnce, Some(Answer::Done)) {
                    self.commit_offsets(&commit.parts)?;
                }
                answer
            }
            Call::End => producer.end(request),
            Call::Abort => producer.abort(request),
            Call::Purge => producer.purge(),
            Call::Discard => producer.discard(),
            Call::Register => producer.register(),
            Call::Mark => {
                let ids = || commit.parts.iter().map(|part| part.partition.0);
                let is_stable = |id| self.stable_offset(id).is_some();
                let bears = |id: i32| self.partitions[id as usize].mark == Some(mark);
                let others = ids().all(is_stable) && ids().all(|id| !producer.holds_offset_of(id));
                others.then(|| Answer::Marked(ids().any(bears)))
            }
        };
        self.producers.insert(replica, producer);
        Ok(answer)
    }

    /// A replica is gone, and what it has handed to its client and nobody has taken is, too.
    pub fn died(&mut self, replica: usize) {
        if let Some(producer) = self.producers.get_mut(&replica) {
            producer.purge();
        }
    }

    /// A replica stands still; what it has sent arrives.
    pub fn stands_still(&mut self, replica: usize) -> Result<(), Violation> {
        let Some(mut producer) = self.producers.remove(&replica) else { return Ok(()) };
        let delivered = self.deliver(&mut producer, usize::MAX);
        self.producers.insert(replica, producer);
        delivered
    }

    /// What the brokers do by themselves: complete what was to end, abort what stays open, take what was sent.
    pub fn turn(&mut self, now: i64, timeout: i64) -> Result<(), Violation> {
        let mut producers = std::mem::take(&mut self.producers);
        for producer in producers.values_mut() {
            if let Some((parts, mark)) = producer.complete() {
                self.make_visible(&parts, mark)?;
            }
            producer.end_overdue(now, timeout);
            self.deliver(producer, 1)?;
        }
        self.producers = producers;
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

    fn make_visible(&mut self, parts: &[CommitPart], mark: Mark) -> Result<(), Violation> {
        for part in parts {
            let partition = &mut self.partitions[part.partition.0 as usize];
            if let Judge::ExactlyOnce(judge) = &mut partition.judge {
                judge.commit(&partition.log, part.offset.0, part.effects.iter())?;
            }
            for effect in part.effects.iter() {
                partition.store(effect);
            }
            (partition.committed, partition.mark) = (part.offset.0, Some(mark));
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

    /// Under at-least-once: up to `amount` of the records that were sent become visible.
    fn deliver(&mut self, producer: &mut Producer, amount: usize) -> Result<(), Violation> {
        for (id, effect) in producer.take_sent(amount) {
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
