//! What the sink says of itself in `<group>_workers`.

use std::time::{Duration, Instant};

use genwatch_core::report::HeldPhase;
use genwatch_core::report::phases::Holding;

use super::{Sink, Store};
use crate::service::reporter::{Activity, Reporting};

/// Interval of telling.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Where the sink tells, and how long it had nothing to do.
pub(super) struct Reports {
    reporting: Reporting,
    /// How long it has waited for records since it last told.
    pub(super) idle: Duration,
    told: Instant,
    rebalances: u64,
}

impl Reports {
    pub(super) fn new(reporting: Reporting) -> Reports {
        Reports { reporting, idle: Duration::ZERO, told: Instant::now(), rebalances: 0 }
    }

    pub(super) fn rebalanced(&mut self) {
        self.rebalances += 1;
    }

    /// Tells that nothing is held any more.
    pub(super) fn left(&self) {
        self.reporting.follow([]);
    }
}

impl<S: Store> Sink<'_, S> {
    pub(super) fn report(&mut self) {
        let since = self.reports.told.elapsed();
        if since < TELL_EVERY {
            return;
        }
        let busy = 1.0 - self.reports.idle.as_secs_f64() / since.as_secs_f64();
        (self.reports.idle, self.reports.told) = (Duration::ZERO, Instant::now());
        let phase = if self.draining.is_some() { HeldPhase::Draining } else { HeldPhase::Active };
        let holding = |place| Holding { place, phase, position: self.offsets.done(place) };
        self.reports.reporting.follow(self.offsets.places().map(holding));
        self.reports.reporting.tell(Activity {
            not_ready: self.context.health.ready().err(),
            records: self.summary.records,
            busy,
            load: None,
            in_flight: self.lanes.gathered() as u64,
            generators: 0,
            rebalances: self.reports.rebalances,
        });
    }
}
