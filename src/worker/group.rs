//! Passes rebalances and the restorer's answers to the engine, and changes of the assignment to librdkafka.

use std::time::Instant;

use genwatch_core::engine::Reported;
use genwatch_core::ranges::listed;
use genwatch_core::types::{Offset, PartitionId};
use genwatch_kafka::consumer::Rebalance;
use genwatch_kafka::restore::Heard;

use super::work::Work;
use super::{LOOP_SLEEP_MAX, Observed, Worker, WorkerError};

impl<H: Observed, W: Work<H>> Worker<H, W> {
    /// Passes librdkafka's rebalances to the engine and, where it matters, our member id.
    pub(super) fn follow_group(&mut self) {
        let rebalances = self.consumer.take_rebalances();
        let is_due = self.engine.asks_for_member() && self.member_asked.elapsed() >= LOOP_SLEEP_MAX;
        if is_due || !rebalances.is_empty() {
            self.ask_for_member();
        }
        if !rebalances.is_empty() {
            self.outside.heard();
        }
        for rebalance in rebalances {
            let (Rebalance::Assigned(partitions)
            | Rebalance::Revoked(partitions)
            | Rebalance::Lost(partitions)) = &rebalance;
            // Empty: the answer to a revocation, or nothing for us yet. Not worth a log line.
            let is_news = !partitions.is_empty();
            if is_news {
                self.summary.rebalances += 1;
                self.instruments.metrics.rebalances.inc();
            }
            let worker = &self.config.name;
            match rebalance {
                Rebalance::Assigned(partitions) => {
                    if is_news && !self.draining {
                        tracing::info!(worker, assigned = listed(&partitions), "rebalance");
                    }
                    self.engine.assigned(&partitions);
                }
                Rebalance::Revoked(partitions) => {
                    tracing::info!(worker, revoked = listed(&partitions), "rebalance");
                    self.engine.revoked(&partitions);
                }
                Rebalance::Lost(partitions) => {
                    tracing::warn!(
                        worker,
                        lost = listed(&partitions),
                        "rebalance: the group went on without us"
                    );
                    self.engine.lost(&partitions);
                }
            }
        }
    }

    pub(super) fn ask_for_member(&mut self) {
        self.member_asked = Instant::now();
        self.engine.member(self.consumer.handle().member());
    }

    /// Passes the restorer's answers on.
    pub(super) fn take_answers(&mut self) -> Result<(), WorkerError> {
        while let Some(heard) = self.restorer.heard() {
            match heard? {
                Heard::Answer(ask, answer) => self.engine.answered(ask, answer),
                Heard::Topics(found) => self.follow_topics(found),
            }
        }
        Ok(())
    }

    pub(super) fn start_fetching(&mut self, starts: &[(PartitionId, Offset)]) -> Result<(), WorkerError> {
        if starts.is_empty() {
            return Ok(());
        }
        let held: Vec<_> = self.engine.added().collect();
        self.consumer
            .add(starts, &held)
            .map_err(|error| WorkerError::Consumer { what: "partitions could not be started", error })
    }

    pub(super) fn seek(&mut self, partition: PartitionId, offset: Offset) {
        match self.consumer.seek(partition, offset) {
            Ok(()) => self.engine.sought(partition),
            // The engine asks again.
            Err(error) => tracing::debug!(%partition, %error, "seek failed"),
        }
    }

    pub(super) fn reassign(&mut self, partition: PartitionId, offset: Offset) {
        let held: Vec<_> = self.engine.added().collect();
        match self.consumer.reassign(partition, offset, &held) {
            Ok(()) => self.engine.sought(partition),
            // The engine asks again.
            Err(error) => tracing::debug!(%partition, %error, "reassignment failed"),
        }
    }

    /// Forgets a partition that isn't processed any more, or not for now.
    pub(super) fn gone(&mut self, partition: PartitionId) {
        self.progress.remove(&partition);
        self.instruments.metrics.forget(partition);
        if let Some(fleet) = &self.config.fleet {
            fleet.released(&self.config.name, partition);
        }
    }

    pub(super) fn report(
        &mut self,
        partition: PartitionId,
        told: Reported,
        dropped: &mut Vec<PartitionId>,
    ) -> Result<(), WorkerError> {
        let worker = &self.config.name;
        match told {
            Reported::Started { start, generators } => {
                tracing::debug!(worker, %partition, %start, generators, "restored");
            }
            Reported::Skipped { committed, low } => tracing::error!(
                worker,
                %partition,
                %committed,
                %low,
                "the committed offset is not in the log: going on from the earliest record"
            ),
            Reported::NewTopic { was, now, kept, forgotten } => tracing::warn!(
                worker,
                %partition,
                %was,
                %now,
                kept,
                forgotten,
                "the topic was deleted and recreated, or is a mirror: processing it from its first reading"
            ),
            Reported::StatesAhead { generators, start } => tracing::warn!(
                worker,
                %partition,
                %start,
                generators,
                "no worker has committed the offset that it begins at, and alarm states are ahead of it: readings that \
                 a generator's state covers are skipped; to process them again, use another --group"
            ),
            Reported::StatesBeyondTheEnd { generators, high } => tracing::error!(
                worker,
                %partition,
                %high,
                generators,
                "alarm states cover readings that the log does not have: it has lost its end (an unclean leader election?)"
            ),
            Reported::Refused(fault) if fault.is_of_the_topic() => {
                return Err(WorkerError::Refused { topic: self.topics.readings.clone(), partition, fault });
            }
            Reported::Refused(fault) => {
                let topic = &self.topics.readings;
                tracing::error!(
                    worker,
                    "partition {partition} of {topic} {fault}; it is not processed, the others are"
                );
                self.fault.get_or_insert((partition, fault));
            }
            Reported::Dropped => dropped.push(partition),
            Reported::Abandoned => {
                tracing::debug!(worker, %partition, "drain timeout: the rest is left to the next owner");
            }
        }
        Ok(())
    }

    pub(super) fn tell_dropped(&self, dropped: &[PartitionId]) {
        if !dropped.is_empty() {
            tracing::warn!(
                worker = self.config.name,
                dropped = listed(dropped),
                "uncommitted readings of these partitions are dropped; their next owner processes them"
            );
        }
    }

    /// Updates the readiness conditions.
    pub(super) fn show_status(&mut self) {
        let status = self.engine.status();
        let not_ready = &self.instruments.not_ready;
        not_ready.not_joined.set(!status.joined);
        not_ready.restoring.set(status.restoring);
        not_ready.refused.set(status.refused);
        not_ready.draining.set(status.draining);
        if status.draining && !self.draining {
            self.draining = true;
            let in_flight = self.engine.pool().in_flight();
            tracing::info!(worker = self.config.name, in_flight, "draining");
        }
        match (status.restoring, self.restoring) {
            (true, None) => self.restoring = Some(Instant::now()),
            (false, Some(since)) => {
                self.restoring = None;
                self.instruments.metrics.restore_seconds.set(since.elapsed().as_secs_f64());
            }
            _ => {}
        }
    }

    /// With `--exit-at-end`, a partition that couldn't be processed is a failure; otherwise it was only logged.
    pub(super) fn check_faults(&self) -> Result<(), WorkerError> {
        match self.fault.clone() {
            Some((partition, fault)) if self.config.exit_at_end => {
                Err(WorkerError::Refused { topic: self.topics.readings.clone(), partition, fault })
            }
            _ => Ok(()),
        }
    }
}
