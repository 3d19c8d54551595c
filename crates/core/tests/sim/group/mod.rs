//! The group coordinator: members, generations, rebalances, session timeouts.
//!
//! As in Kafka, a rebalance by the classic protocol waits until every member has joined; one that takes too long is
//! thrown out. Each member gets its partitions that no other claims; the rest are withheld until their owner joins
//! without claiming them, or isn't a member any longer. Each rebalance is a new generation. Offset commits under an
//! older generation, or from a non-member, are refused. Like Kafka, it does not check *whose* partitions are
//! committed.
//! older one, or isn't a member, is refused. It does not look at *whose* partitions are committed: neither does Kafka.

mod kip848;

use std::collections::{BTreeMap, BTreeSet};

use kip848::Reconciliation;

/// Identifies one membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberId(pub u64);

#[derive(Debug)]
struct Member {
    heard_of: i64,
    instance: Option<usize>,
    /// Whether it has joined the current rebalance.
    joined: bool,
    claims: BTreeSet<i32>,
    /// The generation in which it commits; under KIP-848 its own epoch.
    epoch: u64,
    /// Only under KIP-848.
    reconciliation: Reconciliation,
}

impl Member {
    fn new(heard_of: i64, instance: Option<usize>, claims: BTreeSet<i32>) -> Member {
        Member {
            heard_of,
            instance,
            joined: true,
            claims,
            epoch: 0,
            reconciliation: Reconciliation::default(),
        }
    }
}

/// A complete rebalance.
#[derive(Debug)]
pub struct Rebalanced {
    /// The new generation.
    pub generation: u64,
    /// The partitions of each member.
    pub lists: BTreeMap<MemberId, Vec<i32>>,
    /// The members that were thrown out.
    pub late: Vec<MemberId>,
}

/// The coordinator of one group.
#[derive(Debug)]
pub struct Group {
    partitions: i32,
    generation: u64,
    members: BTreeMap<MemberId, Member>,
    ids: u64,
    /// Ids that haven't joined yet.
    pending: BTreeSet<MemberId>,
    /// The owner of each partition, until another gets it.
    owners: BTreeMap<i32, MemberId>,
    /// When the current rebalance began to wait for members.
    preparing: Option<i64>,
    /// How long it waits.
    patience: i64,
    /// Changed by the scheduler, so that partitions move although no member has come or gone.
    rotation: usize,
}

impl Group {
    /// A group without members; a rebalance waits for members for `patience`.
    pub fn new(partitions: i32, patience: i64) -> Group {
        Group {
            partitions,
            generation: 0,
            members: BTreeMap::new(),
            ids: 0,
            pending: BTreeSet::new(),
            owners: BTreeMap::new(),
            preparing: None,
            patience,
            rotation: 0,
        }
    }

    /// Returns an id for a new member.
    pub fn new_id(&mut self) -> MemberId {
        self.ids += 1;
        self.pending.insert(MemberId(self.ids));
        MemberId(self.ids)
    }

    /// Handles a JoinGroup request. A static member replaces its predecessor. Returns whether the id is known.
    pub fn join(&mut self, id: MemberId, instance: Option<usize>, claims: BTreeSet<i32>, now: i64) -> bool {
        if !self.members.contains_key(&id) && !self.pending.remove(&id) {
            return false;
        }
        if instance.is_some() {
            self.members.retain(|other, member| member.instance != instance || *other == id);
        }
        let epoch = self.members.get(&id).map_or(0, |member| member.epoch);
        self.members.insert(id, Member { epoch, ..Member::new(now, instance, claims) });
        self.preparing.get_or_insert(now);
        true
    }

    /// A member leaves.
    pub fn leave(&mut self, id: MemberId, now: i64) {
        if self.members.remove(&id).is_some() {
            self.owners.retain(|_, owner| *owner != id);
            self.preparing.get_or_insert(now);
        }
    }

    /// Handles a heartbeat. Returns whether the id is a member.
    pub fn heartbeat(&mut self, id: MemberId, now: i64) -> bool {
        let member = self.members.get_mut(&id);
        member.map(|member| member.heard_of = now).is_some()
    }

    /// Whether a rebalance waits for this member.
    pub fn awaits(&self, id: MemberId) -> bool {
        self.preparing.is_some() && self.members.get(&id).is_some_and(|member| !member.joined)
    }

    /// Evicts members without a heartbeat for too long.
    pub fn evict(&mut self, now: i64, session: i64) -> Vec<MemberId> {
        let silent = |(id, member): (&MemberId, &Member)| (now - member.heard_of > session).then_some(*id);
        let evicted: Vec<MemberId> = self.members.iter().filter_map(silent).collect();
        for id in &evicted {
            self.leave(*id, now);
        }
        evicted
    }

    /// Whether offsets may be committed under this membership and generation.
    pub fn accepts(&self, view: Option<(MemberId, u64)>) -> bool {
        let epoch = |id| self.members.get(&id).map(|member| member.epoch);
        view.is_some_and(|(id, generation)| epoch(id) == Some(generation))
    }

    /// Whether this membership is current.
    pub fn is_member(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    /// All members.
    pub fn members(&self) -> impl Iterator<Item = MemberId> {
        self.members.keys().copied()
    }

    /// The owner of a partition.
    pub fn owner(&self, partition: i32) -> Option<MemberId> {
        self.owners.get(&partition).copied()
    }

    /// Moves partitions although no member has come or gone.
    pub fn rotate(&mut self, now: i64) {
        self.rotation += 1;
        self.preparing.get_or_insert(now);
    }

    /// Completes the current rebalance, if every member has joined or the wait is over.
    pub fn rebalance(&mut self, now: i64) -> Option<Rebalanced> {
        let since = self.preparing?;
        let is_late = |(id, member): (&MemberId, &Member)| (!member.joined).then_some(*id);
        let late: Vec<MemberId> = self.members.iter().filter_map(is_late).collect();
        if !late.is_empty() && now - since <= self.patience {
            return None;
        }
        for id in &late {
            self.leave(*id, now);
        }
        self.preparing = None;
        self.generation += 1;
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        let mut lists: BTreeMap<MemberId, Vec<i32>> = ids.iter().map(|id| (*id, Vec::new())).collect();
        for partition in 0..self.partitions {
            let Some(target) = ids.get((partition as usize + self.rotation) % ids.len().max(1)) else {
                continue;
            };
            let claims =
                |(id, member): (&MemberId, &Member)| member.claims.contains(&partition).then_some(*id);
            let mut claimants = self.members.iter().filter_map(claims).collect::<Vec<_>>();
            // Of two claimants, the last owner wins.
            claimants.sort_by_key(|id| self.owners.get(&partition) != Some(id));
            match claimants.first() {
                Some(holder) if holder != target => {}
                _ => {
                    self.owners.insert(partition, *target);
                    lists.entry(*target).or_default().push(partition);
                }
            }
        }
        for (id, member) in &mut self.members {
            member.joined = false;
            member.epoch = self.generation;
            member.claims = lists[id].iter().copied().collect();
        }
        Some(Rebalanced { generation: self.generation, lists, late })
    }
}
