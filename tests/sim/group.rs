//! The group coordinator: members, generations, cooperative rebalances, session timeouts.
//!
//! As with Kafka, a rebalance gives each member what is free and tells others what to give up; what is given up is free
//! only when its owner has said so or was evicted. Each rebalance is a new generation, and who commits offsets under an
//! older one, or isn't a member, is refused. It does not look at *whose* partitions are committed: neither does Kafka.

use std::collections::{BTreeMap, BTreeSet};

/// Names one membership; a replica that joins again has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId(pub u64);

/// What a rebalance tells one member.
#[derive(Clone, Debug)]
pub struct Sync {
    /// The new generation.
    pub generation: u64,
    /// Partitions that are the member's from now on.
    pub assigned: Vec<i32>,
    /// Partitions to be given up.
    pub revoked: Vec<i32>,
}

#[derive(Debug)]
struct Member {
    heard_of: i64,
    owned: BTreeSet<i32>,
    revoking: BTreeSet<i32>,
}

/// The coordinator of one group.
#[derive(Debug)]
pub struct Group {
    partitions: i32,
    generation: u64,
    members: BTreeMap<MemberId, Member>,
    joined: u64,
    /// Turned by the scheduler, so that partitions move although nobody came or went.
    pub rotation: usize,
    /// Whether a rebalance is due.
    pub unbalanced: bool,
}

impl Group {
    /// A group without members.
    pub fn new(partitions: i32) -> Group {
        Group {
            partitions,
            generation: 0,
            members: BTreeMap::new(),
            joined: 0,
            rotation: 0,
            unbalanced: false,
        }
    }

    /// A new member.
    pub fn join(&mut self, now: i64) -> MemberId {
        self.joined += 1;
        let id = MemberId(self.joined);
        let member = Member { heard_of: now, owned: BTreeSet::new(), revoking: BTreeSet::new() };
        self.members.insert(id, member);
        self.unbalanced = true;
        id
    }

    /// A member has gone.
    pub fn leave(&mut self, id: MemberId) {
        if self.members.remove(&id).is_some() {
            self.unbalanced = true;
        }
    }

    /// A member gives partitions back.
    pub fn give_back(&mut self, id: MemberId, partitions: &[i32]) {
        if let Some(member) = self.members.get_mut(&id) {
            for partition in partitions {
                member.owned.remove(partition);
                member.revoking.remove(partition);
            }
            self.unbalanced = true;
        }
    }

    /// A member shows that it is there. Whether it is one.
    pub fn heartbeat(&mut self, id: MemberId, now: i64) -> bool {
        let member = self.members.get_mut(&id);
        member.map(|member| member.heard_of = now).is_some()
    }

    /// Evicts who hasn't been heard of for too long.
    pub fn evict(&mut self, now: i64, session: i64) -> Vec<MemberId> {
        let silent = |(id, member): (&MemberId, &Member)| (now - member.heard_of > session).then_some(*id);
        let evicted: Vec<MemberId> = self.members.iter().filter_map(silent).collect();
        for id in &evicted {
            self.leave(*id);
        }
        evicted
    }

    /// Whether offsets may be committed under this membership and generation.
    pub fn accepts(&self, view: Option<(MemberId, u64)>) -> bool {
        view.is_some_and(|(id, generation)| self.is_member(id) && generation == self.generation)
    }

    /// Whether this membership is current.
    pub fn is_member(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    /// Who owns a partition.
    pub fn owner(&self, partition: i32) -> Option<MemberId> {
        let owns = |(id, member): (&MemberId, &Member)| member.owned.contains(&partition).then_some(*id);
        self.members.iter().find_map(owns)
    }

    /// A new generation: what each member is told.
    pub fn rebalance(&mut self) -> Vec<(MemberId, Sync)> {
        self.unbalanced = false;
        self.generation += 1;
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        let generation = self.generation;
        let told = |id: &MemberId| (*id, Sync { generation, assigned: Vec::new(), revoked: Vec::new() });
        let mut syncs: BTreeMap<MemberId, Sync> = ids.iter().map(told).collect();
        for partition in 0..self.partitions {
            let Some(target) = ids.get((partition as usize + self.rotation) % ids.len().max(1)) else {
                continue;
            };
            let (holder, assign) = match self.owner(partition) {
                None => (*target, true),
                Some(owner) if owner != *target => (owner, false),
                Some(_) => continue,
            };
            let (Some(member), Some(sync)) = (self.members.get_mut(&holder), syncs.get_mut(&holder)) else {
                continue;
            };
            if assign {
                member.owned.insert(partition);
                sync.assigned.push(partition);
            } else if member.revoking.insert(partition) {
                sync.revoked.push(partition);
            }
        }
        syncs.into_iter().collect()
    }
}
