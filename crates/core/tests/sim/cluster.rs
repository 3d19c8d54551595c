//! Kafka in memory: logs of readings, and what `read_committed` readers see.
//!
//! Owns everything that outlives a worker. Workers write through their producers ([`crate::producer`]).

use std::collections::{BTreeMap, BTreeSet};

use genwatch_core::engine::commit::{Call, CallResult, Delivery};
use genwatch_core::engine::note::Note;
use genwatch_core::engine::start::{CommittedOffset, Log};
use genwatch_core::handler::StoredState;
use genwatch_core::handler::effect::Effect;
use genwatch_core::pool::{Commit, CommitPart};
use genwatch_core::types::{GeneratorId, Offset, TopicId};
use genwatch_oracle::{Meaning, Oracle};
use serde_json::Value;

use crate::group::{Group, MemberId};
use crate::invariants::{Violation, ensure};
use crate::judge::{AtLeastOnce, ExactlyOnce};
use crate::producer::{Producer, Request, Sent, Token};
use crate::records::{Entry, TOPIC};
use crate::scenario::Scenario;

/// One partition of the readings topic, and the same partition of the derived topics.
#[derive(Debug)]
pub struct Partition {
    id: i32,
    /// The topic of the partition.
    topic: TopicId,
    /// The records, by offset; offsets may be skipped.
    pub log: Vec<Entry>,
    /// The first offset that retention has kept.
    low: i64,
    /// The offset after the last record or marker.
    pub end: i64,
    /// The leader epoch.
    epoch: i32,
    /// The group's committed offset.
    committed: Option<Committed>,
    /// The state partition of the same number, compacted.
    states: BTreeMap<String, Vec<u8>>,
    judge: Judge,
    /// Evaluates the log as it is appended; `None` where results depend on a clock.
    serial: Option<Oracle>,
    /// The offsets of the readings that have effects.
    calling: BTreeSet<i64>,
}

#[derive(Clone, Debug)]
struct Committed {
    offset: i64,
    /// Its metadata: the commit that wrote it, and the topic it belongs to.
    token: Token,
    topic: Option<TopicId>,
    member: Option<MemberId>,
}

impl Committed {
    fn note(&self) -> Note {
        Note {
            token: format!("{}/{}", self.token.replica, self.token.commit),
            topic: self.topic.clone(),
            event_time: None,
            member: self.member.map(|MemberId(id)| id.to_string().into()),
        }
    }
}

#[derive(Debug)]
enum Judge {
    ExactlyOnce(ExactlyOnce),
    AtLeastOnce(AtLeastOnce),
}

impl Partition {
    /// The index in the log of the first record at or after `offset`.
    pub fn index(&self, offset: i64) -> usize {
        self.log.partition_point(|entry| entry.offset < offset)
    }

    /// Whether the reading at `offset` has effects; false if that isn't known beforehand.
    pub fn calls_for_effects(&self, offset: i64) -> bool {
        self.calling.contains(&offset)
    }

    /// The committed offset, if it belongs to this topic.
    pub fn committed(&self) -> Option<i64> {
        let committed = self.committed.as_ref();
        committed.filter(|of| of.topic.as_ref() == Some(&self.topic)).map(|of| of.offset)
    }

    /// Whether everything in the log is committed, and the states hold nothing that must be deleted.
    fn is_drained(&self) -> bool {
        let is_reached = match &self.committed {
            Some(_) => self.committed() == Some(self.end),
            None => self.log.is_empty() && self.end == 0,
        };
        is_reached && !self.states.keys().any(|id| self.is_to_go(id))
    }

    fn is_to_go(&self, generator: &str) -> bool {
        self.other(generator).is_some()
            || self.decommissioned(generator).is_some_and(|offset| offset < self.end)
    }

    /// The offset of the generator's decommissioned state, if there is one. In a log that has lost its end, that
    /// offset may be past the end: then the state stays until the log reaches the offset again.
    fn decommissioned(&self, generator: &str) -> Option<i64> {
        let state: StoredState = StoredState::from_json(self.states.get(generator)?).ok()?;
        state.decommissioned.then_some(state.offset.0)
    }

    /// The generator's state, if it belongs to another topic.
    fn other(&self, generator: &str) -> Option<StoredState> {
        let state: StoredState = StoredState::from_json(self.states.get(generator)?).ok()?;
        (state.topic.as_ref() != Some(&self.topic)).then_some(state)
    }

    /// Another log replaces this one.
    fn make_anew(&mut self, topic: &TopicId, scenario: &Scenario) {
        let name = Some(topic.as_str().to_owned());
        self.topic = topic.clone();
        self.log.clear();
        (self.low, self.end, self.epoch) = (0, 0, 0);
        self.calling.clear();
        let keeps = scenario.keeps_states;
        self.serial = self.serial.take().filter(|_| !keeps);
        if let Some(serial) = &mut self.serial {
            *serial = Oracle::new(TOPIC, name.clone(), self.id, &scenario.rules);
        }
        self.judge = match scenario.delivery {
            Delivery::ExactlyOnce => {
                Judge::ExactlyOnce(ExactlyOnce::new(name, self.id, &scenario.rules).after_another_log())
            }
            Delivery::AtLeastOnce => {
                let mut judge = AtLeastOnce::new(name, self.id, &scenario.rules);
                let stored = self.states.keys().filter_map(|id| self.other(id));
                for mut state in stored.filter(|state| keeps && !state.decommissioned) {
                    state.offset = Offset(-1);
                    judge.kept(&serde_json::to_value(state).unwrap_or_default());
                }
                Judge::AtLeastOnce(judge)
            }
        };
    }
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The partitions, by number.
    pub partitions: Vec<Partition>,
    /// The id of the readings topic.
    topic: TopicId,
    /// How often the topic was re-created.
    made: u32,
    keeps_states: bool,
    delivery: Delivery,
    /// The producers, by worker; those of dead workers keep their effects.
    producers: BTreeMap<usize, Producer>,
}

impl Cluster {
    /// A cluster whose topics hold no records.
    pub fn new(scenario: &Scenario) -> Cluster {
        let topic = TopicId::from("topic-0");
        let partition = |id: usize| {
            let id = id as i32;
            let name = || Some(topic.as_str().to_owned());
            let judge = match scenario.delivery {
                Delivery::ExactlyOnce => Judge::ExactlyOnce(ExactlyOnce::new(name(), id, &scenario.rules)),
                Delivery::AtLeastOnce => Judge::AtLeastOnce(AtLeastOnce::new(name(), id, &scenario.rules)),
            };
            let deadman = scenario.silent_for().is_some();
            Partition {
                id,
                topic: topic.clone(),
                log: Vec::new(),
                low: 0,
                end: 0,
                epoch: 0,
                committed: None,
                states: BTreeMap::new(),
                judge,
                serial: (!deadman).then(|| Oracle::new(TOPIC, name(), id, &scenario.rules)),
                calling: BTreeSet::new(),
            }
        };
        let partitions = (0..scenario.partitions).map(partition).collect();
        Cluster {
            partitions,
            topic,
            made: 0,
            keeps_states: scenario.keeps_states,
            delivery: scenario.delivery,
            producers: BTreeMap::new(),
        }
    }

    /// The id of the readings topic.
    pub fn topic(&self) -> &TopicId {
        &self.topic
    }

    /// Deletes and re-creates the topic. The group's offsets go with it, or they stay because a late commit restores
    /// them.
    pub fn make_anew(&mut self, scenario: &Scenario, offsets_stay: bool) {
        self.made += 1;
        self.topic = TopicId::from(format!("topic-{}", self.made).as_str());
        for partition in &mut self.partitions {
            partition.committed.take_if(|_| !offsets_stay);
            partition.make_anew(&self.topic, scenario);
        }
    }

    /// The offset of a partition below which no election of this model loses anything: see
    /// [`Cluster::elect_uncleanly`].
    pub fn settled(&self, id: usize) -> i64 {
        let partition = &self.partitions[id];
        let pending = self.producers.values().filter_map(|producer| producer.pending_offset_of(id as i32));
        pending.chain(partition.committed()).max().unwrap_or(0).max(partition.low)
    }

    /// Elects a leader that lacks everything from `end` on. No live worker may have read that: nothing could help it,
    /// as its commit would be of offsets that are used again.
    pub fn elect_uncleanly(&mut self, id: usize, end: i64) {
        let partition = &mut self.partitions[id];
        partition.log.retain(|entry| entry.offset < end);
        partition.end = end;
        partition.epoch += 1;
        // The effects of a record are no longer known: its generator's state may come from a lost one.
        partition.serial = None;
        partition.calling.clear();
        if let Judge::ExactlyOnce(judge) = &mut partition.judge {
            judge.truncated(partition.log.len());
        }
    }

    /// Retention deletes everything below `low`, which is no longer needed.
    pub fn retain(&mut self, id: usize, low: i64) {
        self.partitions[id].low = low;
    }

    /// Appends a record, whose offset must be the partition's end.
    pub fn append(&mut self, partition: usize, mut entry: Entry) {
        let partition = &mut self.partitions[partition];
        entry.epoch = partition.epoch;
        partition.end = entry.offset + 1;
        let calls =
            partition.serial.as_mut().is_some_and(|serial| !serial.evaluate(entry.record()).is_empty());
        if calls && !matches!(entry.meaning, Meaning::Bad(_)) {
            partition.calling.insert(entry.offset);
        }
        match &mut partition.judge {
            Judge::ExactlyOnce(judge) => judge.appended(&entry),
            Judge::AtLeastOnce(judge) => judge.appended(&entry),
        }
        partition.log.push(entry);
    }

    /// Step one of a restore: the committed offset, if any, unless a transaction holds a pending one.
    pub fn stable_offset(&self, partition: i32) -> Option<Option<CommittedOffset>> {
        let is_stable = !self.producers.values().any(|producer| producer.holds_offset_of(partition));
        let noted = |committed: &Committed| CommittedOffset {
            offset: Offset(committed.offset),
            note: Some(committed.note()),
        };
        is_stable.then(|| self.partitions[partition as usize].committed.as_ref().map(noted))
    }

    /// A partition's new owner ends what its dead owner has left open, if that one is gone.
    pub fn end_what_the_dead_left_open(&mut self, partition: i32, group: &Group) -> Result<bool, Violation> {
        let Some(committed) = &self.partitions[partition as usize].committed else { return Ok(false) };
        let Some(member) = committed.member else { return Ok(false) };
        let members: Vec<String> = group.members().map(|MemberId(id)| id.to_string()).collect();
        if committed.note().departed(members.iter().map(String::as_str)).is_none() {
            return Ok(false);
        }
        let ended = self.producers.get_mut(&committed.token.replica).is_some_and(|one| one.fence(member));
        ensure!(
            !ended || !group.is_member(member),
            Living,
            "{member:?} is a member, and its transaction is ended"
        );
        Ok(ended)
    }

    /// The last step of a restore.
    pub fn log(&self, partition: i32) -> Log {
        let Partition { low, end, .. } = self.partitions[partition as usize];
        Log { topic: Some(self.topic.clone()), low: Offset(low), high: Offset(end) }
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

    /// Makes a worker's call for its commit. `None`: the cluster hasn't answered yet.
    pub fn call(
        &mut self,
        replica: usize,
        commit: &Commit,
        call: Call,
        request: &Request<'_>,
    ) -> Result<Option<CallResult>, Violation> {
        let mut producer = self.producers.remove(&replica).unwrap_or_default();
        let token = Token { replica, commit: commit.id.0 };
        let answer = match call {
            Call::Begin => producer.begin(commit, token, request),
            Call::Write(portion) => producer.write(self.delivery, commit, portion, request),
            Call::Flush => {
                self.deliver(&mut producer, request.amount)?;
                producer.flush(request)
            }
            Call::Offsets => {
                let answer = producer.offsets(self.delivery, commit, request)?;
                if (self.delivery, answer) == (Delivery::AtLeastOnce, Some(CallResult::Done)) {
                    let member = request.member.ok().map(|(id, _)| id);
                    self.commit_offsets(&commit.parts, token, member)?;
                }
                answer
            }
            Call::End => producer.end(request),
            Call::Confirm => producer.settle(request),
            Call::Abort => producer.abort(request),
            Call::Purge => producer.purge(),
            Call::Discard => producer.discard(),
            Call::Register => producer.register(),
            Call::FindToken => {
                let ids = || commit.parts.iter().map(|part| part.partition.0);
                let is_stable = |id| self.stable_offset(id).is_some();
                let bears = |id: i32| {
                    self.partitions[id as usize].committed.as_ref().is_some_and(|of| of.token == token)
                };
                let others = ids().all(is_stable) && ids().all(|id| !producer.holds_offset_of(id));
                others.then(|| CallResult::TokenFound(ids().any(bears)))
            }
        };
        self.producers.insert(replica, producer);
        Ok(answer)
    }

    /// A worker is dead, and with it everything that its client hasn't delivered.
    pub fn died(&mut self, replica: usize) {
        if let Some(producer) = self.producers.get_mut(&replica) {
            producer.purge();
        }
    }

    /// A worker stands still; what it has sent arrives.
    pub fn stands_still(&mut self, replica: usize) -> Result<(), Violation> {
        let Some(mut producer) = self.producers.remove(&replica) else { return Ok(()) };
        let delivered = self.deliver(&mut producer, usize::MAX);
        self.producers.insert(replica, producer);
        delivered
    }

    /// What brokers do on their own: complete requested ends, abort what stays open, take in what was sent.
    pub fn turn(&mut self, now: i64, timeout: i64) -> Result<(), Violation> {
        let mut producers = std::mem::take(&mut self.producers);
        for producer in producers.values_mut() {
            if let Some((parts, token, member)) = producer.complete() {
                self.make_visible(&parts, token, member)?;
            }
            producer.end_overdue(now, timeout);
            self.deliver(producer, 1)?;
        }
        self.producers = producers;
        Ok(())
    }

    /// Whether everything in the log is committed, no decommissioned state is left, and nothing is about to become
    /// visible.
    pub fn is_drained(&self) -> bool {
        let is_pending =
            |producer: &Producer, id: i32| producer.holds_offset_of(id) || producer.holds_states_of(id);
        let is_settled = |partition: &Partition| {
            !self.producers.values().any(|producer| is_pending(producer, partition.id))
        };
        self.partitions.iter().all(|partition| partition.is_drained() && is_settled(partition))
    }

    /// Whether everything in one partition's log is committed.
    pub fn is_drained_of(&self, id: usize) -> bool {
        let partition = &self.partitions[id];
        partition.committed().unwrap_or(0) == partition.end
    }

    /// The generators whose silence hasn't been noticed.
    pub fn not_silent(&self) -> Vec<&str> {
        let judges = self.partitions.iter().filter_map(|partition| match &partition.judge {
            Judge::ExactlyOnce(judge) => Some(judge),
            Judge::AtLeastOnce(_) => None,
        });
        judges.flat_map(ExactlyOnce::not_silent).collect()
    }

    /// Whether no generator is known any longer.
    pub fn has_forgotten_all(&self) -> bool {
        self.partitions.iter().all(|partition| match &partition.judge {
            Judge::ExactlyOnce(judge) => judge.known() == 0,
            Judge::AtLeastOnce(_) => true,
        })
    }

    /// Compares the state topic with the oracle's states; everything must be committed.
    pub fn check_states(&self) -> Result<(), Violation> {
        for (id, partition) in self.partitions.iter().enumerate() {
            let expected = match &partition.judge {
                Judge::ExactlyOnce(judge) => judge.states(),
                Judge::AtLeastOnce(judge) => judge.states(),
            };
            let parse = |(id, json): (&String, &Vec<u8>)| {
                (id.clone(), serde_json::from_slice(json).unwrap_or_default())
            };
            let states = partition.states.iter().filter(|(id, _)| partition.decommissioned(id).is_none());
            let stored: BTreeMap<String, Value> = states.map(parse).collect();
            ensure!(
                stored == expected,
                Effects,
                "the states of partition {id} are {stored:?}, but should be {expected:?}"
            );
        }
        Ok(())
    }

    fn make_visible(
        &mut self,
        parts: &[CommitPart],
        token: Token,
        member: Option<MemberId>,
    ) -> Result<(), Violation> {
        for part in parts {
            let partition = &mut self.partitions[part.partition.0 as usize];
            if part.topic.as_ref() == Some(&self.topic) {
                partition.judge(part, self.keeps_states)?;
            } else {
                // Belongs to a log that is gone.
                part.effects.iter().for_each(|effect| partition.store(effect));
            }
            let (offset, topic) = (part.offset.0, part.topic.clone());
            partition.committed = Some(Committed { offset, token, topic, member });
        }
        Ok(())
    }

    fn commit_offsets(
        &mut self,
        parts: &[CommitPart],
        token: Token,
        member: Option<MemberId>,
    ) -> Result<(), Violation> {
        for part in parts {
            let partition = &mut self.partitions[part.partition.0 as usize];
            let (offset, topic) = (part.offset.0, part.topic.clone());
            if topic.as_ref() == Some(&self.topic) {
                if let Judge::AtLeastOnce(judge) = &mut partition.judge {
                    judge.offset(&partition.log, offset)?;
                }
                partition.check_renewed(offset)?;
            }
            partition.committed = Some(Committed { offset, token, topic, member });
        }
        Ok(())
    }

    /// Under at-least-once: makes up to `amount` of the sent records visible.
    fn deliver(&mut self, producer: &mut Producer, amount: usize) -> Result<(), Violation> {
        for Sent { partition: id, topic, effect } in producer.take_sent(amount) {
            let partition = &mut self.partitions[id as usize];
            // Alerts precede all states, even renewed ones.
            let is_here = topic.as_ref() == Some(&self.topic);
            if !is_here || effect.as_state().is_some() && partition.renews(&effect, self.keeps_states)? {
                partition.store(&effect);
                continue;
            }
            match (&effect, &mut partition.judge) {
                (Effect::Output(_) | Effect::DeadLetter(_), Judge::AtLeastOnce(judge)) => {
                    judge.visible(&partition.log, &effect)?;
                }
                (Effect::State(change), _) => {
                    let passed = partition.committed().is_some_and(|committed| change.offset.0 < committed);
                    let is_there = partition.states.contains_key(change.generator.as_str());
                    ensure!(
                        change.json.is_some() || passed || !is_there,
                        Effects,
                        "{effect:?} deletes a state of partition {id}, which is committed at {:?}",
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
    /// A part of a commit becomes visible.
    fn judge(&mut self, part: &CommitPart, keeps_states: bool) -> Result<(), Violation> {
        let mut effects = Vec::new();
        for effect in part.effects.iter() {
            if self.renews(effect, keeps_states)? {
                self.store(effect);
            } else {
                effects.push(effect);
            }
        }
        if let Judge::ExactlyOnce(judge) = &mut self.judge {
            judge.commit(&self.log, part.offset.0, effects.iter().copied())?;
        }
        self.check_renewed(part.offset.0)?;
        effects.into_iter().for_each(|effect| self.store(effect));
        Ok(())
    }

    /// Whether the effect follows from a state of another log rather than from a reading. It precedes all others of
    /// its generator.
    fn renews(&mut self, effect: &Effect, keeps_states: bool) -> Result<bool, Violation> {
        let generator = match effect {
            Effect::Output(alert) => alert.generator.as_str(),
            Effect::State(change) => change.generator.as_str(),
            Effect::DeadLetter(_) => return Ok(false),
        };
        let Some(stored) = self.other(generator) else { return Ok(false) };
        let renewed = StoredState {
            topic: Some(self.topic.clone()),
            offset: Offset(-1),
            epoch: genwatch_core::types::Epoch::UNKNOWN,
            ..stored.clone()
        };
        let wanted = Some(renewed).filter(|_| keeps_states && !stored.decommissioned);
        let json = effect.as_state().map(|change| change.json.as_ref());
        let found = json.map(|json| json.map(|json| StoredState::from_json(json).ok()));
        ensure!(
            found == Some(wanted.clone().map(Some)),
            OtherLog,
            "partition {}: {stored:?} is of another log, wanted {wanted:?}, there is {effect:?}",
            self.id
        );
        if let (Some(state), Judge::ExactlyOnce(judge)) = (wanted, &mut self.judge) {
            judge.kept(&serde_json::to_value(state).unwrap_or_default());
        }
        Ok(true)
    }

    /// Once an offset after the start is committed, no worker would look at another log's states again.
    fn check_renewed(&self, offset: i64) -> Result<(), Violation> {
        let start = self.committed().unwrap_or(self.low);
        let left = self.states.keys().find(|id| self.other(id).is_some());
        ensure!(
            left.is_none() || offset <= start,
            OtherLog,
            "partition {} is committed at {offset}, but the state of {left:?} is of another log",
            self.id
        );
        Ok(())
    }

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
