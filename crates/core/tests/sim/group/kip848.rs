//! The coordinator by KIP-848: it decides who is to have what, and reconciles each member with that by itself.
//!
//! A member is told what it may have at the moment; what it is to give up it has given up when its heartbeat says so, and only
//! then it comes to the next epoch; what others haven't given up yet it gets later. (`CurrentAssignmentBuilder`, Kafka 4)

use std::collections::BTreeSet;

use super::{Group, Member, MemberId};

/// One member's reconciliation.
#[derive(Debug, Default)]
pub(super) struct Reconciliation {
    /// What it may have.
    assigned: BTreeSet<i32>,
    /// What it hasn't given up yet.
    revoking: BTreeSet<i32>,
    /// What it is to have.
    target: BTreeSet<i32>,
}

/// The answer to a heartbeat.
#[derive(Debug)]
pub struct Heartbeat {
    /// The member's epoch.
    pub epoch: u64,
    /// What the member may have, where that has changed.
    pub assigned: Option<BTreeSet<i32>>,
}

impl Group {
    /// A heartbeat that acts: of a member that joins, or with what it has when it has reconciled itself. `None`: it isn't a
    /// member.
    pub fn reconcile(
        &mut self,
        id: MemberId,
        joins: bool,
        owned: Option<&BTreeSet<i32>>,
        now: i64,
    ) -> Option<Heartbeat> {
        if joins && !self.members.contains_key(&id) {
            self.pending.remove(&id);
            self.members.insert(id, Member::new(now, None, BTreeSet::new()));
            self.preparing.get_or_insert(now);
        }
        let changed = self.advance(id, owned)?;
        let member = self.members.get_mut(&id)?;
        member.heard_of = now;
        let assigned = (changed || joins).then(|| member.reconciliation.assigned.clone());
        Some(Heartbeat { epoch: member.epoch, assigned })
    }

    /// Whether what the member may have has changed.
    fn advance(&mut self, id: MemberId, owned: Option<&BTreeSet<i32>>) -> Option<bool> {
        let others = self.members.iter().filter(|(other, _)| **other != id);
        let held = |member: &Member| {
            let Reconciliation { assigned, revoking, .. } = &member.reconciliation;
            assigned.union(revoking).copied().collect::<Vec<_>>()
        };
        let taken: BTreeSet<i32> = others.flat_map(|(_, member)| held(member)).collect();
        let generation = self.generation;
        let member = self.members.get_mut(&id)?;
        let Reconciliation { assigned, revoking, target } = &mut member.reconciliation;
        if owned.is_some_and(|owned| owned.is_disjoint(revoking)) {
            revoking.clear();
        }
        if !revoking.is_empty() {
            return Some(false);
        }
        let before = assigned.clone();
        *revoking = assigned.difference(target).copied().collect();
        if revoking.is_empty() {
            assigned.extend(target.difference(&taken));
            member.epoch = generation;
            for partition in assigned.iter() {
                self.owners.insert(*partition, id);
            }
        } else {
            assigned.retain(|partition| target.contains(partition));
        }
        Some(*assigned != before)
    }

    /// Decides anew who is to have what, if somebody has come or gone. Whether it did.
    pub fn assign(&mut self) -> bool {
        if self.preparing.take().is_none() {
            return false;
        }
        self.generation += 1;
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        for (index, member) in self.members.values_mut().enumerate() {
            let is_its = |partition: &i32| (*partition as usize + self.rotation) % ids.len() == index;
            member.reconciliation.target = (0..self.partitions).filter(is_its).collect();
        }
        true
    }
}
