//! A replica's view of its group: what librdkafka knows and tells the worker. It may be behind the coordinator's.

use std::collections::{BTreeSet, VecDeque};

use crate::group::{Group, MemberId, Sync};

/// What the worker is told about its assignment.
#[derive(Clone, Debug)]
pub enum Rebalance {
    /// Partitions are ours.
    Assigned(Vec<i32>),
    /// Partitions are to be given up.
    Revoked(Vec<i32>),
    /// Partitions are somebody else's.
    Lost(Vec<i32>),
}

/// The client's view.
#[derive(Debug, Default)]
pub struct Client {
    member: Option<(MemberId, u64)>,
    /// On their way from the coordinator.
    wire: VecDeque<Sync>,
    /// Known to the client, not yet to the worker.
    inbox: VecDeque<Rebalance>,
    assigned: BTreeSet<i32>,
    /// Given up by the worker, not yet told to the coordinator.
    given_up: Vec<i32>,
}

impl Client {
    /// Joins, if there's no membership and nothing of an older one is left. Whether it did.
    pub fn join(&mut self, group: &mut Group, now: i64) -> bool {
        let free = self.member.is_none() && self.assigned.is_empty() && self.inbox.is_empty();
        if free {
            self.member = Some((group.join(now), 0));
        }
        free
    }

    /// Leaves the group.
    pub fn leave(&mut self, group: &mut Group) {
        if let Some((id, _)) = self.member.take() {
            group.leave(id);
        }
    }

    /// The membership under which offsets are committed.
    pub fn view(&self) -> Option<(MemberId, u64)> {
        self.member
    }

    /// Whether the client believes that it's a member.
    pub fn is_member(&self) -> bool {
        self.member.is_some()
    }

    /// A heartbeat and its answer; a member that was evicted learns it when `learns`. Whether it did.
    pub fn heartbeat(&mut self, group: &mut Group, now: i64, learns: bool) -> bool {
        let Some((id, _)) = self.member else { return false };
        if group.heartbeat(id, now) {
            let given_up = std::mem::take(&mut self.given_up);
            if !given_up.is_empty() {
                group.give_back(id, &given_up);
            }
            return false;
        }
        if learns {
            self.member = None;
            self.wire.clear();
            self.given_up.clear();
            self.inbox.push_back(Rebalance::Lost(self.assigned.iter().copied().collect()));
        }
        learns
    }

    /// The coordinator sends the outcome of a rebalance.
    pub fn send(&mut self, sync: Sync) {
        self.wire.push_back(sync);
    }

    /// The next outcome of a rebalance arrives.
    pub fn receive(&mut self) {
        let (Some(sync), Some((_, generation))) = (self.wire.pop_front(), &mut self.member) else { return };
        *generation = sync.generation;
        if !sync.revoked.is_empty() {
            self.inbox.push_back(Rebalance::Revoked(sync.revoked));
        }
        if !sync.assigned.is_empty() {
            self.assigned.extend(&sync.assigned);
            self.inbox.push_back(Rebalance::Assigned(sync.assigned));
        }
    }

    /// The next thing that the worker is to be told.
    pub fn take_rebalance(&mut self) -> Option<Rebalance> {
        self.inbox.pop_front()
    }

    /// The worker has given partitions up.
    pub fn removed(&mut self, partitions: Vec<i32>) {
        self.assigned.retain(|id| !partitions.contains(id));
        if self.member.is_some() {
            self.given_up.extend(partitions);
        }
    }
}
