//! Partitions come and go: from assignment through restore to work, from revocation through drain to release.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Worker, WorkerError};
use crate::health::Obstacle;
use crate::kafka::config::ranges;
use crate::kafka::consumer::Rebalance;
use crate::kafka::restore::{Restored, RestoredPartition};
use crate::log::{Offset, PartitionId};
use crate::pool::Pool;

/// With `--exit-at-end`, how long a replica without partitions waits for some.
const EMPTY_HANDED: Duration = Duration::from_secs(10);

/// A partition that is ours.
#[derive(Debug)]
pub(super) enum Held {
    /// Its state is on its way, by this request.
    Restoring(u64),
    /// It's being worked.
    Working {
        /// The end it had when it was assigned.
        end: Offset,
        /// The committed offset when the watchdog last saw it move, and when.
        progress: (Offset, Instant),
    },
}

/// A revocation under way.
#[derive(Debug)]
pub(super) struct Revocation {
    /// Partitions that have not drained yet.
    pub(super) waiting: BTreeSet<PartitionId>,
    /// The partitions to remove when all have.
    pub(super) added: Vec<PartitionId>,
    /// When the rest is abandoned.
    pub(super) deadline: Instant,
}

/// For `--exit-at-end`.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// When the group last said what is ours, after the first time.
    pub(super) assigned: Option<Instant>,
}

impl Worker {
    /// Answers what librdkafka wants about the assignment.
    pub(super) fn serve_rebalances(&mut self) -> Result<(), WorkerError> {
        for rebalance in self.consumer.take_rebalances() {
            let (Rebalance::Assigned(partitions)
            | Rebalance::Revoked(partitions)
            | Rebalance::Lost(partitions)) = &rebalance;
            if !partitions.is_empty() {
                self.summary.rebalances += 1;
                self.observers.metrics.rebalances.inc();
            }
            match rebalance {
                Rebalance::Assigned(partitions) => self.assigned(partitions)?,
                Rebalance::Revoked(partitions) => {
                    let deadline = Instant::now() + self.config.drain_timeout;
                    self.give_back(&partitions, deadline, Pool::revoke);
                    tracing::info!(worker = self.config.name, revoked = ranges(&partitions), "rebalance");
                }
                Rebalance::Lost(partitions) => {
                    self.observers.health.set(Obstacle::NotJoined, true);
                    self.give_back(&partitions, Instant::now(), Pool::lose);
                    if self.held.keys().all(|partition| partitions.contains(partition)) {
                        self.committer.abandon();
                    }
                    tracing::warn!(
                        worker = self.config.name,
                        lost = ranges(&partitions),
                        "rebalance: the group went on without us; what was not committed is dropped"
                    );
                }
            }
        }
        Ok(())
    }

    pub(super) fn assigned(&mut self, partitions: Vec<PartitionId>) -> Result<(), WorkerError> {
        self.ending.assigned = Some(Instant::now());
        self.observers.health.set(Obstacle::NotJoined, false);
        let answer =
            if partitions.is_empty() { self.consumer.add(&[]) } else { self.consumer.acknowledge_assigned() };
        answer.map_err(|error| WorkerError::Consumer { what: "the assignment was not taken", error })?;
        // An answer to a revocation, or nothing for us yet: not worth a line.
        if partitions.is_empty() || self.draining.is_some() {
            return Ok(());
        }
        tracing::info!(worker = self.config.name, assigned = ranges(&partitions), "rebalance");
        self.requests += 1;
        for partition in &partitions {
            self.held.insert(*partition, Held::Restoring(self.requests));
        }
        self.observers.health.set(Obstacle::Restoring, true);
        self.restorer.request(self.requests, partitions);
        Ok(())
    }

    /// Starts to give partitions back; they are removed from the assignment when the pool has released them.
    pub(super) fn give_back(
        &mut self,
        partitions: &[PartitionId],
        deadline: Instant,
        how: impl Fn(&mut Pool, PartitionId),
    ) {
        let mut waiting = BTreeSet::new();
        for partition in partitions {
            match self.held.get(partition) {
                Some(Held::Working { .. }) => {
                    waiting.insert(*partition);
                }
                Some(&Held::Restoring(request)) => {
                    self.held.remove(partition);
                    let same = |held: &Held| matches!(held, Held::Restoring(other) if *other == request);
                    if !self.held.values().any(same) {
                        self.restorer.cancel(request);
                    }
                }
                None => {}
            }
        }
        let added = partitions.iter().copied().filter(|partition| self.added.contains(partition)).collect();
        let revoked: Vec<PartitionId> = waiting.iter().copied().collect();
        self.revocations.push(Revocation { waiting, added, deadline });
        for partition in revoked {
            how(&mut self.pool, partition);
        }
    }

    /// Starts the partitions whose state has arrived.
    pub(super) fn start_restored(&mut self) -> Result<(), WorkerError> {
        while let Some(Restored { request, outcome, took }) = self.restorer.answer() {
            let wanted = |held: &Held| matches!(held, Held::Restoring(number) if *number == request);
            if !self.held.values().any(wanted) {
                continue;
            }
            let mut restored = outcome?;
            restored.retain(|restored| self.held.get(&restored.partition).is_some_and(wanted));
            let starts: Vec<_> =
                restored.iter().map(|restored| (restored.partition, restored.start)).collect();
            if let Err(error) = self.consumer.add(&starts) {
                if !self.consumer.assignment_lost() {
                    return Err(WorkerError::Consumer { what: "partitions could not be started", error });
                }
                // The loss is on its way to us as a rebalance.
                self.held.retain(|_, held| !wanted(held));
                continue;
            }
            let generators: usize = restored.iter().map(|restored| restored.states.len()).sum();
            tracing::debug!(worker = self.config.name, ?starts, generators, ?took, "restored");
            self.observers.metrics.restore_seconds.set(took.as_secs_f64());
            for RestoredPartition { partition, start, end, states } in restored {
                self.added.insert(partition);
                self.held.insert(partition, Held::Working { end, progress: (start, Instant::now()) });
                self.pool.assign(partition, start, states);
            }
        }
        let restoring = self.held.values().any(|held| matches!(held, Held::Restoring(_)));
        self.observers.health.set(Obstacle::Restoring, restoring);
        Ok(())
    }

    /// Gives back the partitions of the oldest revocation, once all of them have drained.
    pub(super) fn remove_drained(&mut self) -> Result<(), WorkerError> {
        while self.revocations.first().is_some_and(|revocation| revocation.waiting.is_empty()) {
            let revocation = self.revocations.remove(0);
            self.added.retain(|partition| !revocation.added.contains(partition));
            self.consumer.remove(&revocation.added).map_err(|error| WorkerError::Consumer {
                what: "partitions could not be given back",
                error,
            })?;
        }
        Ok(())
    }

    /// Starts the drain of everything when told to stop, or when the end has been reached.
    pub(super) fn begin_drain_if_told(&mut self) {
        let told = self.observers.stop.load(Ordering::Relaxed);
        if self.draining.is_some() || !(told || self.has_reached_end()) {
            return;
        }
        tracing::info!(worker = self.config.name, in_flight = self.pool.in_flight(), "draining");
        self.observers.health.set(Obstacle::Draining, true);
        self.draining = Some(Instant::now() + self.config.drain_timeout);
        // What is still being restored would be started after the drain has begun, and nobody would revoke it.
        self.held.retain(|_, held| matches!(held, Held::Working { .. }));
        for partition in self.pool.partitions().collect::<Vec<_>>() {
            self.pool.revoke(partition);
        }
    }

    pub(super) fn has_reached_end(&self) -> bool {
        let Some(assigned) = self.ending.assigned.filter(|_| self.config.exit_at_end) else {
            return false;
        };
        let reached = |(partition, held): (&PartitionId, &Held)| match held {
            Held::Restoring(_) => false,
            Held::Working { end, .. } => self.pool.committed_offset(*partition) >= Some(*end),
        };
        if self.held.is_empty() { assigned.elapsed() > EMPTY_HANDED } else { self.held.iter().all(reached) }
    }

    /// Abandons what hasn't drained in time: it will be worked again by the next owner.
    pub(super) fn give_up_overdue(&mut self) {
        let now = Instant::now();
        let stopping = self.draining.is_some_and(|deadline| now >= deadline);
        let mut overdue: Vec<PartitionId> = Vec::new();
        for revocation in self.revocations.iter_mut().filter(|revocation| now >= revocation.deadline) {
            overdue.extend(&revocation.waiting);
            revocation.deadline = now + self.config.drain_timeout;
        }
        if stopping {
            overdue.extend(self.pool.partitions());
            self.committer.give_up();
        }
        for partition in overdue {
            self.pool.abandon(partition);
        }
    }

    pub(super) fn is_done(&self) -> bool {
        let Some(deadline) = self.draining else {
            return false;
        };
        let drained = self.pool.partitions().next().is_none();
        // A commit that the cluster doesn't take can't hold us for ever.
        drained || Instant::now() > deadline + 3 * Duration::from_secs(1)
    }
}
