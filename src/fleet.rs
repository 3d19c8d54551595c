//! The live view of the fleet: which worker holds which partition, its progress, and whether generators are processed
//! in order. The workers of one process write it, observers (the demo's table) read it; no decision depends on it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use genwatch_core::types::{Offset, PartitionId};

/// The live view, the only map that threads share.
#[derive(Debug, Default)]
pub struct FleetView {
    partitions: DashMap<PartitionId, PartitionView>,
    generators: DashMap<String, (PartitionId, Offset)>,
    out_of_order: AtomicU64,
    records: AtomicU64,
}

/// The state of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// The worker that holds it; `None` while it changes hands.
    pub owner: Option<String>,
    /// The committed offset.
    pub committed: Offset,
    /// The end of the log that the owner last saw.
    pub end: Offset,
    /// Records committed since the start.
    pub records: u64,
}

impl Default for PartitionView {
    fn default() -> Self {
        PartitionView { owner: None, committed: Offset(0), end: Offset(0), records: 0 }
    }
}

impl FleetView {
    /// Notes that a reading's processing begins; its generator's earlier readings must have been processed before.
    pub fn worked(&self, generator: &str, partition: PartitionId, offset: Offset) {
        match self.generators.get_mut(generator) {
            Some(mut last) => {
                if last.0 == partition && offset <= last.1 {
                    self.out_of_order.fetch_add(1, Ordering::Relaxed);
                }
                *last = (partition, offset);
            }
            None => {
                self.generators.insert(generator.to_owned(), (partition, offset));
            }
        }
    }

    /// Notes that a worker holds a partition.
    pub fn holds(&self, replica: &str, partition: PartitionId, committed: Offset, end: Offset) {
        let mut view = self.partitions.entry(partition).or_default();
        view.owner = Some(replica.to_owned());
        view.committed = view.committed.max(committed);
        view.end = view.end.max(end);
    }

    /// Notes that a worker committed records of a partition.
    pub fn committed(&self, replica: &str, partition: PartitionId, offset: Offset, records: u64) {
        let mut view = self.partitions.entry(partition).or_default();
        view.owner = Some(replica.to_owned());
        view.committed = view.committed.max(offset);
        view.end = view.end.max(offset);
        view.records += records;
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// Notes that a worker gave a partition back.
    pub fn released(&self, replica: &str, partition: PartitionId) {
        if let Some(mut view) = self.partitions.get_mut(&partition)
            && view.owner.as_deref() == Some(replica)
        {
            view.owner = None;
        }
    }

    /// Notes that a worker has gone.
    pub fn left(&self, replica: &str) {
        for mut view in self.partitions.iter_mut() {
            if view.owner.as_deref() == Some(replica) {
                view.owner = None;
            }
        }
    }

    /// Returns the partitions, by number.
    #[must_use]
    pub fn partitions(&self) -> BTreeMap<PartitionId, PartitionView> {
        self.partitions.iter().map(|view| (*view.key(), view.value().clone())).collect()
    }

    /// Returns the records committed by all workers.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// Returns how many readings were processed after a later one of their generator.
    #[must_use]
    pub fn out_of_order(&self) -> u64 {
        self.out_of_order.load(Ordering::Relaxed)
    }

    /// Returns the number of generators seen.
    #[must_use]
    pub fn generators(&self) -> usize {
        self.generators.len()
    }
}
