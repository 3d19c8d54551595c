//! The live view of the fleet: which replica holds which partition, how far it is, and whether generators are worked in
//! order. Replicas of one process write it, observers (the demo's table) read it; nobody decides by it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use genwatch_core::types::{Offset, PartitionId};

/// The live view. The one map that threads share.
#[derive(Debug, Default)]
pub struct FleetView {
    partitions: DashMap<PartitionId, PartitionView>,
    generators: DashMap<String, (PartitionId, Offset)>,
    out_of_order: AtomicU64,
    records: AtomicU64,
}

/// What is known of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// The replica that holds it; `None` while it changes hands.
    pub owner: Option<String>,
    /// The committed offset.
    pub committed: Offset,
    /// The end of the log, as the owner last saw it.
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
    /// A reading has begun to be worked; its generator's earlier ones must have been worked before.
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

    /// A replica holds a partition.
    pub fn holds(&self, replica: &str, partition: PartitionId, committed: Offset, end: Offset) {
        let mut view = self.partitions.entry(partition).or_default();
        view.owner = Some(replica.to_owned());
        view.committed = view.committed.max(committed);
        view.end = view.end.max(end);
    }

    /// A replica has committed records of a partition.
    pub fn committed(&self, replica: &str, partition: PartitionId, offset: Offset, records: u64) {
        let mut view = self.partitions.entry(partition).or_default();
        view.owner = Some(replica.to_owned());
        view.committed = view.committed.max(offset);
        view.end = view.end.max(offset);
        view.records += records;
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// A replica has given a partition back.
    pub fn released(&self, replica: &str, partition: PartitionId) {
        if let Some(mut view) = self.partitions.get_mut(&partition)
            && view.owner.as_deref() == Some(replica)
        {
            view.owner = None;
        }
    }

    /// A replica has gone.
    pub fn left(&self, replica: &str) {
        for mut view in self.partitions.iter_mut() {
            if view.owner.as_deref() == Some(replica) {
                view.owner = None;
            }
        }
    }

    /// The partitions, by number.
    #[must_use]
    pub fn partitions(&self) -> BTreeMap<PartitionId, PartitionView> {
        self.partitions.iter().map(|view| (*view.key(), view.value().clone())).collect()
    }

    /// Records committed by all replicas.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    /// How often a reading was worked after a later one of its generator.
    #[must_use]
    pub fn out_of_order(&self) -> u64 {
        self.out_of_order.load(Ordering::Relaxed)
    }

    /// How many generators have been seen.
    #[must_use]
    pub fn generators(&self) -> usize {
        self.generators.len()
    }
}
