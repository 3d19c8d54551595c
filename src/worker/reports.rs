//! What the worker says of itself in `<group>_workers`.

use std::time::{Duration, Instant};

use genwatch_core::engine::{SlotStatus, SlotView};
use genwatch_core::report::HeldPhase;
use genwatch_core::report::load::{Load, TOP_MAX, TOP_SHARE_MIN, TopGenerator};
use genwatch_core::report::phases::Holding;
use genwatch_core::types::TopicPartition;

use super::load::{Limits, Totals, UnderWay};
use super::work::Work;
use super::{Observed, Worker, WorkerError};
use crate::service::reporter::{Activity, Identity, Reporter};

/// Interval of looking at the phases of partitions: the precision of a hand-over's times.
const FOLLOW_EVERY: Duration = Duration::from_millis(20);

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
        if self.phases_followed.elapsed() >= FOLLOW_EVERY {
            self.phases_followed = Instant::now();
            self.instruments.reporting.follow(self.engine.slots().map(holding));
        }
    }

    /// Adds up how the time since the last turn was spent.
    pub(super) fn follow_load(&mut self) {
        let pool = self.engine.pool();
        let under_way =
            UnderWay { running: pool.running(), committing: self.committing.is_some(), full: pool.is_full() };
        self.load.follow(Instant::now(), under_way);
    }

    pub(super) fn tell_activity(&mut self) {
        let (busy, load) = self.take_load();
        self.instruments.metrics.loaded(&load);
        let pool = self.engine.pool();
        self.instruments.reporting.tell(Activity {
            not_ready: self.instruments.context.health.ready().err(),
            records: self.summary.records,
            busy,
            load: Some(load),
            in_flight: pool.in_flight() as u64,
            generators: pool.generators() as u64,
            rebalances: self.summary.rebalances,
        });
    }

    fn take_load(&mut self) -> (f64, Load) {
        let work = &self.instruments.metrics.handler_seconds;
        let totals = Totals {
            records: self.summary.records,
            worked: work.get_sample_sum(),
            finished: work.get_sample_count(),
        };
        let limits = Limits { lanes: self.work.concurrency(), rate: self.config.rate_limit };
        let (busy, load) = self.load.take(Instant::now(), totals, limits);
        self.keys.tick();
        let top = self.keys.top(TOP_MAX, TOP_SHARE_MIN).into_iter();
        let load = Load {
            fetch_throttled: self.consumer.throttled(),
            produce_throttled: self.committer.throttled(),
            top: top.map(|(generator, share)| TopGenerator { generator, share }).collect(),
            ..load
        };
        (busy, load)
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
