//! What the worker says of itself in `<group>_workers`.

use std::time::{Duration, Instant};

use genwatch_core::engine::{SlotStatus, SlotView};
use genwatch_core::report::HeldPhase;
use genwatch_core::report::phases::Holding;
use genwatch_core::types::TopicPartition;

use super::work::Work;
use super::{Observed, Worker, WorkerError};
use crate::service::reporter::{Activity, Identity, Reporter};

/// Interval of looking at the phases of partitions: the precision of a hand-over's times.
const FOLLOW_EVERY: Duration = Duration::from_millis(20);

/// How busy the worker is.
#[derive(Debug)]
pub(super) struct Load {
    /// How long the loop has slept since the last report.
    pub(super) slept: Duration,
    since: Instant,
    records: u64,
    /// Seconds that work has taken, since the start.
    worked: f64,
    followed: Instant,
}

impl Load {
    pub(super) fn new(now: Instant) -> Load {
        Load { slept: Duration::ZERO, since: now, records: 0, worked: 0.0, followed: now }
    }

    /// Returns the share of its capacity that the worker has used since the last call: of its loop, its lanes or its
    /// rate limit, whichever is fullest.
    fn take(&mut self, now: Instant, records: u64, worked: f64, lanes: usize, limit: Option<u32>) -> f64 {
        let seconds = now.duration_since(self.since).as_secs_f64().max(1e-3);
        let of_loop = 1.0 - self.slept.as_secs_f64() / seconds;
        let of_lanes = (worked - self.worked) / (lanes.max(1) as f64 * seconds);
        let processed = records.saturating_sub(self.records) as f64;
        let of_limit = limit.map_or(0.0, |limit| processed / (f64::from(limit) * seconds));
        *self = Load { slept: Duration::ZERO, since: now, records, worked, followed: self.followed };
        of_loop.max(of_lanes).max(of_limit).clamp(0.0, 1.0)
    }
}

impl<H: Observed, W: Work<H>> Worker<H, W> {
    /// Begins to report. Not before the worker has found its topics: on a wrong cluster nothing is created.
    pub(super) fn start_reports(&self, reporter: &mut Reporter) -> Result<(), WorkerError> {
        let identity = Identity {
            worker: self.config.name.clone(),
            kind: H::KIND,
            group: Some(self.config.group.clone()),
            topics: vec![self.topics.readings.clone()],
            peer: None,
            to: H::reported_output(&self.topics),
        };
        reporter.start(&self.config.connection, &self.config.reports, identity)?;
        Ok(())
    }

    pub(super) fn follow_phases(&mut self) {
        if self.load.followed.elapsed() >= FOLLOW_EVERY {
            self.load.followed = Instant::now();
            self.instruments.reporting.follow(self.engine.slots().map(holding));
        }
    }

    pub(super) fn tell_activity(&mut self) {
        let records = self.summary.records;
        let worked = self.instruments.metrics.handler_seconds.get_sample_sum();
        let (lanes, limit) = (self.work.concurrency().unwrap_or(1), self.config.rate_limit);
        let busy = self.load.take(Instant::now(), records, worked, lanes, limit);
        let pool = self.engine.pool();
        self.instruments.reporting.tell(Activity {
            not_ready: self.instruments.context.health.ready().err(),
            records,
            busy,
            in_flight: pool.in_flight() as u64,
            generators: pool.generators() as u64,
            rebalances: self.summary.rebalances,
        });
    }
}

fn holding(slot: SlotView) -> Holding {
    Holding {
        place: TopicPartition { topic: 0, partition: slot.partition },
        phase: match slot.status {
            SlotStatus::Active => HeldPhase::Active,
            SlotStatus::Draining => HeldPhase::Draining,
            SlotStatus::Awaited => HeldPhase::Restoring,
            SlotStatus::Refused => HeldPhase::Refused,
        },
        position: slot.committed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_part_counts() {
        let begun = Instant::now();
        let later = begun + Duration::from_secs(10);
        let load = |slept| Load { slept: Duration::from_secs(slept), ..Load::new(begun) };
        let near = |busy: f64, wanted: f64| assert!((busy - wanted).abs() < 1e-6, "{busy}, not {wanted}");
        near(load(9).take(later, 0, 0.0, 64, None), 0.1);
        near(load(9).take(later, 5000, 10.0, 1, None), 1.0);
        near(load(9).take(later, 5000, 0.0, 64, Some(1000)), 0.5);
        let mut load = load(10);
        near(load.take(later, 0, 320.0, 64, None), 0.5);
        near(load.take(later + Duration::from_secs(10), 0, 320.0, 64, None), 1.0);
    }
}
