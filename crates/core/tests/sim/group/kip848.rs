//! The coordinator by KIP-848: it decides on assignments, and reconciles each member separately.
//!
//! It gives a member what the member may have now. A member has given up partitions when its heartbeat says so, and
//! only then moves to the next epoch; partitions that others haven't given up yet follow later.
//! (`CurrentAssignmentBuilder`, Kafka 4)

use std::collections::BTreeSet;

use super::{Group, Member, MemberId};

/// One member's reconciliation.
#[derive(Debug, Default)]
pub(super) struct Reconciliation {
    /// The partitions that it may have now.
    assigned: BTreeSet<i32>,
    /// The partitions that it must still give up.
    revoking: BTreeSet<i32>,
    /// The partitions that it will have.
    target: BTreeSet<i32>,
}

/// The answer to a heartbeat.
#[derive(Debug)]
pub struct Heartbeat {
    /// The member's epoch.
    pub epoch: u64,
    /// The member's partitions, if they have changed.
    pub assigned: Option<BTreeSet<i32>>,
}

impl Group {
    /// Handles a heartbeat of a joining member, or one with the member's partitions after its reconciliation. `None`:
    /// it isn't a member.
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

    /// Advances a member's reconciliation. Returns whether its partitions have changed.
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

    /// Decides on new assignments if a member has come or gone. Returns whether it did.
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
