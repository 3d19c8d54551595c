//! What the worker watches and tells: errors of the client, gauges, the watchdogs.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::assignment::Held;
use super::{TURN, Worker, WorkerError};
use crate::health::Obstacle;
use crate::kafka::admin::ClusterError;
use crate::kafka::consumer::ClientError;
use crate::kafka::ends::EndWatch;
use crate::log::PartitionId;

/// How often gauges are written and silence is looked for.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// A commit that takes this long waits for the cluster.
const BLOCKED_AFTER: Duration = Duration::from_secs(2);
/// Lag without progress for this long is a stall.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// A client-wide error is logged at most this often.
const ERROR_LOG_EVERY: Duration = Duration::from_secs(10);

impl Worker {
    /// Decides about an error of the consumer: most mend themselves.
    pub(super) fn judge(
        &mut self,
        partition: Option<PartitionId>,
        error: ClientError,
    ) -> Result<(), WorkerError> {
        match error.code {
            RDKafkaErrorCode::GroupAuthorizationFailed => {
                Err(WorkerError::GroupUnauthorized { group: self.config.group.clone() })
            }
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                Err(ClusterError::Unauthorized { topic: self.topics.readings.clone() }.into())
            }
            RDKafkaErrorCode::Fatal => {
                let error = self.consumer.fatal_error().unwrap_or(error);
                Err(WorkerError::Consumer { what: "the consumer cannot go on", error })
            }
            RDKafkaErrorCode::AutoOffsetReset => Err(WorkerError::Consumer {
                what: "the log was truncated below our position: restart with --on-out-of-range to choose where to go on",
                error,
            }),
            _ => {
                tracing::warn!(partition = partition.map(|p| p.0), %error, "the consumer reports");
                Ok(())
            }
        }
    }

    pub(super) fn log_client_errors(&mut self) {
        for error in self.consumer.take_errors() {
            if error.code == RDKafkaErrorCode::Fatal
                || self.error_logged.is_none_or(|at| at.elapsed() > ERROR_LOG_EVERY)
            {
                self.error_logged = Some(Instant::now());
                tracing::warn!(%error, "the connection to the cluster is disturbed; the client goes on trying");
            }
        }
    }

    /// Moves on over what is no record, now that none waits; a partition's end can be behind such a marker.
    pub(super) fn follow_positions(&mut self) {
        if self.positions_followed.elapsed() < TURN {
            return;
        }
        self.positions_followed = Instant::now();
        let working = |(id, held): (&PartitionId, &Held)| matches!(held, Held::Working { .. }).then_some(*id);
        let ids: Vec<PartitionId> = self.held.iter().filter_map(working).collect();
        for (id, position) in self.consumer.positions(&ids) {
            self.pool.reached(id, position);
        }
    }

    /// Looks for silent generators where it has become known how far the log goes.
    pub(super) fn watch_silence(&mut self) {
        let Some((asked, ends)) = self.ends.as_mut().and_then(EndWatch::answer) else { return };
        for (partition, end) in ends {
            self.pool.watch_silence(partition, end, asked);
        }
    }

    /// Writes gauges and runs the watchdogs, once a second.
    pub(super) fn observe(&mut self) {
        self.observers.health.turned();
        if self.observed.elapsed() < OBSERVE_EVERY {
            return;
        }
        self.observed = Instant::now();
        if self.committing.is_some_and(|begun| begun.elapsed() > BLOCKED_AFTER) {
            self.observers.health.set(Obstacle::CommitsWait, true);
        }
        if let Some(ends) = &mut self.ends {
            ends.ask(self.held.keys().copied().collect());
        }
        let metrics = &self.observers.metrics;
        metrics.in_flight.set(i64::try_from(self.pool.in_flight()).unwrap_or(i64::MAX));
        for (partition, records) in self.pool.take_record_counts() {
            metrics.records.with_label_values(&[&partition.to_string()]).inc_by(records);
        }
        let late = self.pool.take_late();
        for (rule, late) in self.pool.rules().as_slice().iter().zip(late) {
            metrics.late.with_label_values(&[&rule.name]).inc_by(late);
        }
        let handle = self.consumer.handle();
        for (partition, held) in &mut self.held {
            let Held::Working { progress, end } = held else {
                continue;
            };
            let committed = self.pool.committed_offset(*partition).unwrap_or(progress.0);
            if committed > progress.0 {
                *progress = (committed, Instant::now());
            }
            let log_end = handle.cached_end(*partition).unwrap_or(*end).max(*end);
            let lag = (log_end.0 - committed.0).max(0);
            let stalled = lag > 0 && progress.1.elapsed() >= STALLED_AFTER;
            if lag == 0 {
                progress.1 = Instant::now();
            }
            let label = partition.to_string();
            metrics.lag.with_label_values(&[&label]).set(lag);
            metrics.stalled.with_label_values(&[&label]).set(if stalled { 1.0 } else { 0.0 });
            if let Some(fleet) = &self.observers.fleet {
                fleet.holds(&self.config.name, *partition, committed, log_end);
            }
        }
    }
}
