//! Revocations and losses that the client waits for an answer to.
//!
//! Any call that unassigns answers the open one, whatever it lists (`rd_kafka_cgrp_handle_assign_op`, librdkafka
//! 2.12.1), so they are answered one after another, and we unassign for no other reason.

use std::collections::{BTreeSet, VecDeque};

use crate::types::{Mono, PartitionId};

#[derive(Debug)]
struct Open {
    /// Partitions that aren't released yet.
    waiting: BTreeSet<PartitionId>,
    /// The partitions to unassign: those that the client fetches.
    listed: Vec<PartitionId>,
    /// When running readings are forgotten, and when uncommitted work is dropped.
    run_by: Option<Mono>,
    commit_by: Option<Mono>,
}

/// All open ones, oldest first.
#[derive(Debug, Default)]
pub(super) struct Rebalances(VecDeque<Open>);

impl Rebalances {
    pub(super) fn open(
        &mut self,
        waiting: BTreeSet<PartitionId>,
        listed: Vec<PartitionId>,
        run_by: Mono,
        commit_by: Mono,
    ) {
        self.0.push_back(Open { waiting, listed, run_by: Some(run_by), commit_by: Some(commit_by) });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn released(&mut self, id: PartitionId) {
        for open in &mut self.0 {
            open.waiting.remove(&id);
        }
    }

    /// Returns the partitions to unassign, for each one that can be answered now.
    pub(super) fn answers(&mut self) -> Vec<Vec<PartitionId>> {
        let mut answers = Vec::new();
        while self.0.front().is_some_and(|open| open.waiting.is_empty()) {
            answers.extend(self.0.pop_front().map(|open| open.listed));
        }
        answers
    }

    /// Waits for no partition any more: we leave the group whatever is still held.
    pub(super) fn wait_no_longer(&mut self) {
        self.0.iter_mut().for_each(|open| open.waiting.clear());
    }

    /// Partitions whose drain has become overdue since the last call, and those whose last commit has.
    pub(super) fn overdue(&mut self, now: Mono) -> (Vec<PartitionId>, Vec<PartitionId>) {
        let (mut run, mut commit) = (Vec::new(), Vec::new());
        for open in &mut self.0 {
            if open.run_by.take_if(|by| now >= *by).is_some() {
                run.extend(&open.waiting);
            }
            if open.commit_by.take_if(|by| now >= *by).is_some() {
                commit.extend(&open.waiting);
            }
        }
        (run, commit)
    }
}
