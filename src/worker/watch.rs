//! Monitoring: client errors, gauges, watchdogs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use genwatch_core::engine::{Notice, SlotStatus, SlotView};
use genwatch_core::ranges::listed;
use genwatch_core::types::{Offset, PartitionId};
use genwatch_kafka::admin::ClusterError;
use genwatch_kafka::error::{ClientError, ErrorKind};

use super::work::Work;
use super::{LOOP_SLEEP_MAX, Observed, Worker, WorkerError};

/// Interval of writing gauges and looking for silent generators.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);
/// A commit that takes this long waits for the cluster.
const BLOCKED_AFTER: Duration = Duration::from_secs(2);
/// Lag without progress for this long is a stall, and so is a leader without an answer.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// How many milliseconds a generator without an alarm state is remembered after its last reading: long enough for a
/// fleet that reports every few seconds, short enough where every message has an id of its own.
const FORGET_IDLE: i64 = 30_000;
/// A client-wide error is logged at most this often.
const ERROR_LOG_EVERY: Duration = Duration::from_secs(10);

impl<H: Observed, W: Work<H>> Worker<H, W> {
    /// Judges an error of the consumer: most go away by themselves.
    pub(super) fn judge(
        &mut self,
        place: Option<(PartitionId, Offset)>,
        error: ClientError,
    ) -> Result<(), WorkerError> {
        match (error.kind(), place) {
            (ErrorKind::GroupUnauthorized, _) => {
                Err(WorkerError::GroupUnauthorized { group: self.config.group.clone() })
            }
            (ErrorKind::TopicUnauthorized, _) => {
                Err(ClusterError::Unauthorized { topic: self.topics.readings.clone() }.into())
            }
            (ErrorKind::Fatal, _) => {
                let error = self.consumer.fatal_error().unwrap_or(error);
                Err(WorkerError::Consumer { what: "the consumer cannot go on", error })
            }
            (_, place) => {
                if let Some(more) = self.notices_log.allow(error.number(), Instant::now()) {
                    let partition = place.map(|(partition, _)| partition.0);
                    tracing::warn!(partition, %error, more_since_the_last_line = more, "the consumer reports");
                }
                if let Some((partition, offset)) = place {
                    self.engine.notice(partition, offset, notice_of(&error));
                }
                Ok(())
            }
        }
    }

    pub(super) fn log_client_errors(&mut self) {
        for error in self.consumer.take_errors() {
            if error.kind() == ErrorKind::Fatal
                || self.error_logged.is_none_or(|at| at.elapsed() > ERROR_LOG_EVERY)
            {
                self.error_logged = Some(Instant::now());
                tracing::warn!(%error, "the connection to the cluster is disturbed; the client keeps trying");
            }
        }
    }

    /// Skips transaction markers and the like, now that no record waits; a partition's end can be behind one.
    pub(super) fn follow_positions(&mut self) {
        if self.positions_followed.elapsed() < LOOP_SLEEP_MAX {
            return;
        }
        self.positions_followed = Instant::now();
        let processed = self.engine.slots().filter(is_processed);
        let ids: Vec<PartitionId> = processed.map(|slot| slot.partition).collect();
        for (id, position) in self.consumer.positions(&ids) {
            self.engine.position(id, position);
        }
    }

    /// Takes in the ends of the logs, and looks for generators that are silent up to there.
    pub(super) fn take_ends(&mut self) {
        let Some((asked, ends)) = self.ends.answer() else { return };
        for (partition, end) in ends {
            self.log_ends.insert(partition, (Some(end), Instant::now()));
            self.engine.end(partition, end, asked);
        }
    }

    /// Writes gauges and runs the watchdogs, once a second.
    pub(super) fn observe(&mut self) {
        self.instruments.context.health.heartbeat();
        if self.observed.elapsed() < OBSERVE_EVERY {
            return;
        }
        self.observed = Instant::now();
        if self.committing.is_some_and(|begun| begun.elapsed() > BLOCKED_AFTER) {
            self.instruments.not_ready.commits_wait.set(true);
        } else if !self.engine.is_committing() && self.engine.next_commit().is_none() {
            // The refused records may have been dropped since: then nothing waits.
            self.instruments.not_ready.commits_wait.set(false);
        }
        let held: BTreeSet<PartitionId> = self.engine.slots().map(|slot| slot.partition).collect();
        self.log_ends.retain(|id, _| held.contains(id));
        self.ends.ask(held.into_iter().collect());
        self.engine.forget_idle(FORGET_IDLE);
        self.take_counts();
        let metrics = &self.instruments.metrics;
        metrics.generators.set(i64::try_from(self.engine.pool().generators()).unwrap_or(i64::MAX));
        metrics.in_flight.set(i64::try_from(self.engine.pool().in_flight()).unwrap_or(i64::MAX));
        for (partition, records) in self.engine.pool_mut().take_record_counts() {
            metrics.records.with_label_values(&[&partition.to_string()]).inc_by(records);
        }
        let mut unanswered = Vec::new();
        for slot in self.engine.slots() {
            // A partition that has never started has no committed offset; it isn't processed.
            let committed = slot.committed.unwrap_or(Offset(0));
            let (moved, since) =
                self.progress.entry(slot.partition).or_insert_with(|| (committed, Instant::now()));
            if committed > *moved {
                (*moved, *since) = (committed, Instant::now());
            }
            let (told, heard) = *self.log_ends.entry(slot.partition).or_insert((None, Instant::now()));
            let log_end = told.max(slot.end);
            let lag = log_end.map_or(0, |end| (end.0 - committed.0).max(0));
            let is_processed = is_processed(&slot);
            if lag == 0 && is_processed {
                *since = Instant::now();
            }
            let is_unanswered = heard.elapsed() >= STALLED_AFTER;
            if is_unanswered {
                unanswered.push(slot.partition);
            }
            let stalled =
                slot.status == SlotStatus::Refused || is_unanswered || since.elapsed() >= STALLED_AFTER;
            let label = slot.partition.to_string();
            if slot.committed.is_some() {
                metrics.lag.with_label_values(&[&label]).set(lag);
            }
            metrics.stalled.with_label_values(&[&label]).set(if stalled { 1.0 } else { 0.0 });
            if let (Some(fleet), Some(log_end), true) = (&self.config.fleet, log_end, is_processed) {
                fleet.holds(&self.config.name, slot.partition, committed, log_end);
            }
        }
        self.tell_leaders_away(&unanswered);
        self.tell_activity();
    }

    /// Takes over what the handler has counted.
    pub(super) fn take_counts(&mut self) {
        let counts = self.engine.pool_mut().take_counts();
        self.handler.counted(&self.instruments.own, &counts);
        self.summary.counts.resize(counts.len(), 0);
        for (total, count) in self.summary.counts.iter_mut().zip(&counts) {
            *total += count;
        }
    }

    fn tell_leaders_away(&mut self, partitions: &[PartitionId]) {
        let away = !partitions.is_empty();
        self.instruments.not_ready.leader_away.set(away);
        if away == std::mem::replace(&mut self.leader_away, away) {
            return;
        }
        if away {
            tracing::warn!(
                partitions = listed(partitions),
                "no answer from the leaders of these partitions for {} s: cannot fetch their readings or lag",
                STALLED_AFTER.as_secs()
            );
        } else {
            tracing::info!("the leaders of all partitions answer again");
        }
    }
}

fn is_processed(slot: &SlotView) -> bool {
    matches!(slot.status, SlotStatus::Active | SlotStatus::Draining)
}

/// Returns the meaning of an error in place of a record for its partition.
fn notice_of(error: &ClientError) -> Notice {
    match error.kind() {
        ErrorKind::OutOfRange => Notice::OutOfRange,
        ErrorKind::Unreadable => Notice::Unreadable(error.to_string()),
        _ => Notice::Transient,
    }
}
