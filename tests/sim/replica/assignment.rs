//! Partitions come and go: from assignment through restore to work, from revocation through drain to release. Follows
//! `src/worker/assignment.rs`.

use std::collections::{BTreeMap, BTreeSet};

use genwatch::alarm::state::StoredState;
use genwatch::log::{GeneratorId, Offset, PartitionId};

use super::{Fetch, Replica, Surroundings};
use crate::client::Rebalance;
use crate::ledger::Ledger;
use crate::trace::say;

/// How long beyond its drain a replica waits for a commit before it leaves.
const LAST_COMMIT: i64 = 300;

#[derive(Debug)]
pub(super) enum Held {
    Restoring(u64),
    Working,
}

#[derive(Debug)]
pub(super) struct Revocation {
    pub(super) waiting: BTreeSet<i32>,
    /// All that the group asked for, fetched or not.
    pub(super) partitions: Vec<i32>,
    pub(super) deadline: i64,
}

#[derive(Debug)]
pub(super) struct Restore {
    pub(super) request: u64,
    pub(super) partitions: Vec<i32>,
    pub(super) offsets: Option<BTreeMap<i32, i64>>,
}

pub(super) type Restored = (i32, i64, Vec<(GeneratorId, StoredState)>);

impl Replica {
    pub(super) fn serve_rebalances(&mut self, around: &mut Surroundings<'_>) {
        while let Some(rebalance) = self.client.take_rebalance() {
            say!(around.trace, "r{} is told {rebalance:?}", self.id);
            match rebalance {
                Rebalance::Assigned(partitions) => self.assigned(partitions),
                Rebalance::Revoked(partitions) => {
                    let deadline = around.now + around.scenario.drain;
                    for id in self.give_back(partitions, deadline) {
                        self.pool.revoke(PartitionId(id));
                        self.ledgers.entry(id).and_modify(Ledger::revoke);
                    }
                }
                Rebalance::Lost(partitions) => {
                    for id in self.give_back(partitions, around.now) {
                        self.pool.lose(PartitionId(id));
                        self.ledgers.entry(id).and_modify(Ledger::lose);
                        self.forget_work(id);
                    }
                }
            }
        }
    }

    pub(super) fn assigned(&mut self, partitions: Vec<i32>) {
        if partitions.is_empty() || self.draining.is_some() {
            return;
        }
        self.requests += 1;
        for id in &partitions {
            self.held.insert(*id, Held::Restoring(self.requests));
        }
        self.restores.push(Restore { request: self.requests, partitions, offsets: None });
    }

    pub(super) fn give_back(&mut self, partitions: Vec<i32>, deadline: i64) -> Vec<i32> {
        let mut waiting = BTreeSet::new();
        for id in &partitions {
            match self.held.get(id) {
                Some(Held::Working) => {
                    waiting.insert(*id);
                }
                Some(Held::Restoring(_)) => {
                    self.held.remove(id);
                }
                None => {}
            }
        }
        let working = waiting.iter().copied().collect();
        self.revocations.push(Revocation { waiting, partitions, deadline });
        working
    }

    /// The restorer goes on: committed offsets first, then states, each when it is stable.
    pub fn restore(&mut self, around: &mut Surroundings<'_>) {
        let Some(restore) = self.restores.first_mut() else { return };
        let cluster = &around.cluster;
        let Some(offsets) = &restore.offsets else {
            let stable = |id: &i32| Some((*id, cluster.stable_offset(*id)?));
            restore.offsets = restore.partitions.iter().map(stable).collect();
            return;
        };
        let states = |id: &i32| Some((*id, offsets[id], cluster.stable_states(*id)?));
        let restored: Option<Vec<Restored>> = restore.partitions.iter().map(states).collect();
        if let Some(restored) = restored {
            self.answers.push((restore.request, restored));
            self.restores.remove(0);
        }
    }

    pub(super) fn start_restored(&mut self, around: &mut Surroundings<'_>) {
        for (request, mut restored) in std::mem::take(&mut self.answers) {
            let wanted = |held: &Held| matches!(held, Held::Restoring(number) if *number == request);
            restored.retain(|(id, ..)| self.held.get(id).is_some_and(wanted));
            if !self.client.is_member() {
                self.held.retain(|_, held| !wanted(held));
                continue;
            }
            for (id, start, states) in restored {
                say!(around.trace, "r{} starts {id} at {start} with {} states", self.id, states.len());
                self.serial += 1;
                self.fetched.insert(id, Fetch { next: start, paused: false, full: false, backlog: 0 });
                self.held.insert(id, Held::Working);
                self.ledgers.insert(id, Ledger::new(id, self.serial, start, self.lanes == Some(1), &states));
                self.pool.assign(PartitionId(id), Offset(start), states);
            }
        }
    }

    pub(super) fn remove_drained(&mut self, around: &mut Surroundings<'_>) {
        while self.revocations.first().is_some_and(|revocation| revocation.waiting.is_empty()) {
            let revocation = self.revocations.remove(0);
            say!(around.trace, "r{} gives back {:?}", self.id, revocation.partitions);
            self.fetched.retain(|id, _| !revocation.partitions.contains(id));
            self.client.removed(revocation.partitions);
        }
    }

    pub(super) fn begin_drain_if_told(&mut self, around: &mut Surroundings<'_>) {
        if self.draining.is_some() || !self.stop {
            return;
        }
        say!(around.trace, "r{} drains", self.id);
        self.draining = Some(around.now + around.scenario.drain);
        self.held.retain(|_, held| matches!(held, Held::Working));
        for id in self.pool.partitions().collect::<Vec<_>>() {
            self.pool.revoke(id);
            self.ledgers.entry(id.0).and_modify(Ledger::revoke);
        }
    }

    pub(super) fn give_up_overdue(&mut self, around: &mut Surroundings<'_>) {
        let mut overdue: Vec<i32> = Vec::new();
        for revocation in self.revocations.iter_mut().filter(|revocation| around.now >= revocation.deadline) {
            overdue.extend(&revocation.waiting);
            revocation.deadline = around.now + around.scenario.drain;
        }
        if self.draining.is_some_and(|deadline| around.now >= deadline) {
            overdue.extend(self.pool.partitions().map(|id| id.0));
        }
        for id in overdue {
            say!(around.trace, "r{} abandons what runs of {id}", self.id);
            self.pool.abandon(PartitionId(id));
            self.ledgers.entry(id).and_modify(Ledger::abandon);
            self.forget_work(id);
        }
    }

    pub(super) fn is_done(&self, now: i64) -> bool {
        let Some(deadline) = self.draining else { return false };
        self.pool.partitions().next().is_none() || now > deadline + LAST_COMMIT
    }
}
