//! How busy the worker is: added up as it goes, told once a second.

use std::time::{Duration, Instant};

use genwatch_core::report::load::Load;

/// Adds up how its time is spent since the last report.
#[derive(Debug)]
pub(super) struct LoadMeter {
    /// How long the loop has slept.
    pub(super) slept: Duration,
    since: Instant,
    /// Until when these are added up.
    followed: Instant,
    /// Seconds of all lanes in which work was under way.
    lanes_busy: f64,
    /// Seconds in which a commit was under way.
    committing: f64,
    /// Seconds in which a partition was paused because the pool was full.
    full: f64,
    /// What the totals were at the last report.
    before: Totals,
}

/// What has been done since the worker's start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Committed records.
    pub(super) records: u64,
    /// Seconds that work has taken.
    pub(super) worked: f64,
    /// Readings whose work is finished.
    pub(super) finished: u64,
}

/// What is under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UnderWay {
    /// Lanes with work.
    pub(super) running: usize,
    /// Whether a commit is.
    pub(super) committing: bool,
    /// Whether the pool is full.
    pub(super) full: bool,
}

/// What bounds the worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    /// How many generators are processed at once, if there is work.
    pub(super) lanes: Option<usize>,
    /// Readings a second.
    pub(super) rate: Option<u32>,
}

impl LoadMeter {
    pub(super) fn new(now: Instant) -> LoadMeter {
        LoadMeter {
            slept: Duration::ZERO,
            since: now,
            followed: now,
            lanes_busy: 0.0,
            committing: 0.0,
            full: 0.0,
            before: Totals::default(),
        }
    }

    /// Adds the time since the last call. Call it in each turn of the loop, with what the last turn has left under way.
    pub(super) fn follow(&mut self, now: Instant, under_way: UnderWay) {
        let seconds = now.duration_since(self.followed).as_secs_f64();
        self.followed = now;
        let UnderWay { running, committing, full } = under_way;
        self.lanes_busy += running as f64 * seconds;
        self.committing += if committing { seconds } else { 0.0 };
        self.full += if full { seconds } else { 0.0 };
    }

    /// Returns the share of its capacity that the worker has used since the last call: of its loop, its lanes or its rate
    /// limit, whichever is fullest. Also returns the load since then, as far as it is known here.
    pub(super) fn take(&mut self, now: Instant, totals: Totals, limits: Limits) -> (f64, Load) {
        let seconds = now.duration_since(self.since).as_secs_f64().max(1e-3);
        let share = |part: f64| (part / seconds).clamp(0.0, 1.0);
        let finished = totals.finished.saturating_sub(self.before.finished);
        let worked = (totals.worked - self.before.worked).max(0.0);
        let lanes = limits.lanes.unwrap_or(0);
        let load = Load {
            loop_busy: share(seconds - self.slept.as_secs_f64()),
            lanes_busy: share(self.lanes_busy / lanes.max(1) as f64),
            work: if finished == 0 { 0.0 } else { worked / finished as f64 },
            lanes: lanes as u64,
            rate_limit: limits.rate,
            committing: share(self.committing),
            full: share(self.full),
            ..Load::default()
        };
        let processed = totals.records.saturating_sub(self.before.records) as f64;
        let of_limit = limits.rate.map_or(0.0, |limit| share(processed / f64::from(limit)));
        *self = LoadMeter { followed: self.followed, before: totals, ..LoadMeter::new(now) };
        (load.loop_busy.max(load.lanes_busy).max(of_limit), load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    /// Shows that the worker was so busy in ten seconds.
    #[track_caller]
    fn near(number: f64, wanted: f64) {
        assert!((number - wanted).abs() < 1e-6, "{number}, not {wanted}");
    }

    #[test]
    fn the_fullest_part_counts() {
        let begun = Instant::now();
        let busy = |running, records, limits| {
            let mut meter = LoadMeter { slept: Duration::from_secs(9), ..LoadMeter::new(begun) };
            meter.follow(begun + TEN, UnderWay { running, ..UnderWay::default() });
            meter.take(begun + TEN, Totals { records, ..Totals::default() }, limits).0
        };
        near(busy(0, 0, Limits { lanes: Some(64), rate: None }), 0.1);
        near(busy(1, 0, Limits { lanes: Some(1), rate: None }), 1.0);
        near(busy(32, 0, Limits { lanes: Some(64), rate: None }), 0.5);
        near(busy(0, 5000, Limits { lanes: None, rate: Some(1000) }), 0.5);
    }

    #[test]
    fn a_load_is_that_of_the_time_since_the_last_one() {
        let begun = Instant::now();
        let mut meter = LoadMeter::new(begun);
        let limits = Limits { lanes: Some(4), rate: None };
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        meter.follow(at(2), UnderWay { running: 4, committing: true, full: false });
        meter.follow(at(5), UnderWay { running: 2, committing: false, full: true });
        meter.follow(at(10), UnderWay::default());
        meter.slept = Duration::from_secs(4);
        let totals = Totals { records: 7, worked: 14.0, finished: 7 };
        let (_, load) = meter.take(at(10), totals, limits);
        near(load.loop_busy, 0.6);
        near(load.lanes_busy, 0.35);
        near(load.work, 2.0);
        near(load.committing, 0.2);
        near(load.full, 0.3);
        assert_eq!(load.lanes, 4);

        meter.follow(at(20), UnderWay { running: 4, committing: true, full: true });
        meter.slept = TEN;
        let (busy, load) = meter.take(at(20), totals, limits);
        near(busy, 1.0);
        near(load.loop_busy, 0.0);
        near(load.lanes_busy, 1.0);
        near(load.work, 0.0);
        near(load.committing, 1.0);
        near(load.full, 1.0);
    }

    #[test]
    fn without_work_there_are_no_lanes() {
        let begun = Instant::now();
        let mut meter = LoadMeter::new(begun);
        meter.follow(begun + TEN, UnderWay::default());
        let (busy, load) = meter.take(begun + TEN, Totals::default(), Limits { lanes: None, rate: Some(9) });
        near(busy, 1.0);
        assert_eq!(load, Load { loop_busy: 1.0, rate_limit: Some(9), ..Load::default() });
    }
}
