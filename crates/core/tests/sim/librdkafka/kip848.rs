//! The client by KIP-848: heartbeats say what it may have, and it reconciles itself with that, one change after
//! another. (`rd_kafka_cgrp_consumer_serve`, `rd_kafka_cgrp_handle_ConsumerGroupHeartbeat`)

use std::collections::BTreeSet;

use super::{Client, Membership, Rebalance};
use crate::group::Group;

/// The state of its reconciliation.
#[derive(Debug, Default)]
pub(super) struct Reconciliation {
    /// `rkcg_current_assignment`: the assignment of ours that the coordinator knows.
    current: BTreeSet<i32>,
    /// `rkcg_target_assignment`: the assignment that we are moving to, until it is acknowledged.
    target: Option<BTreeSet<i32>>,
    /// `rkcg_next_target_assignment`.
    next: Option<BTreeSet<i32>>,
    /// The coordinator doesn't know us: `RD_KAFKA_CGRP_CONSUMER_F_WAIT_REJOIN`.
    fenced: bool,
}

impl Reconciliation {
    pub(super) fn is_done(&self) -> bool {
        self.target.is_none() && self.next.is_none() && !self.fenced
    }
}

impl Client {
    /// The coordinator has refused a heartbeat: while a rebalance is unanswered, nothing is reported.
    pub(super) fn fenced(&mut self) {
        self.reconciliation.fenced = true;
    }

    /// Sends a heartbeat, and handles its answer.
    pub(super) fn serve(&mut self, group: &mut Group, now: i64) {
        if self.reconciliation.fenced {
            if self.open.is_none() {
                self.reconciliation.fenced = false;
                self.revoke_all(Rebalance::Lost);
                if self.open.is_none() {
                    self.reset();
                }
            }
            return;
        }
        if self.open.is_some() {
            return;
        }
        let id = *self.member.get_or_insert_with(|| group.new_id());
        let joins = self.join == Membership::Init;
        let acknowledged = self.reconciliation.target.clone().filter(|_| !joins);
        let Some(heartbeat) = group.reconcile(id, joins, acknowledged.as_ref(), now) else {
            self.fenced();
            return;
        };
        self.generation = Some(heartbeat.epoch);
        let Reconciliation { current, target, next, .. } = &mut self.reconciliation;
        if let Some(assigned) = heartbeat.assigned {
            let known = target.as_ref().unwrap_or(current);
            *next = (assigned != *known).then_some(assigned);
        }
        if let Some(acknowledged) = acknowledged {
            (*current, *target) = (acknowledged, None);
        }
        if target.is_none()
            && let Some(assigned) = next.take().filter(|assigned| assigned != current)
        {
            *target = Some(assigned.clone());
            self.join = Membership::Steady;
            self.synced(&assigned.into_iter().collect::<Vec<_>>());
        }
    }

    /// `rd_kafka_cgrp_consumer_reset`: joins again, with the same id.
    pub(super) fn reset(&mut self) {
        self.reconciliation = Reconciliation::default();
        self.generation = Some(0);
        self.join = Membership::Init;
    }
}
