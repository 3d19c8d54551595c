//! The lag of one partition over time: rates, trend, when it will be gone, and a verdict.
//!
//! The method is Burrow's (LinkedIn): judge by a window of observations, never by a threshold on lag, because how much
//! lag is bad depends on the topic. The page and `status --watch` share it.

use std::collections::VecDeque;

use serde::Serialize;

use crate::types::{Millis, Offset};

/// How long observations are kept, in milliseconds.
pub const WINDOW: i64 = 30_000;
/// A verdict takes observations over this long, in milliseconds.
const EVIDENCE: i64 = 1_500;
/// A partition whose oldest waiting record is this old, in milliseconds, doesn't keep up.
const NEAR: i64 = 10_000;

/// One look at a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub at: Millis,
    /// The next offset to process: the committed one, or the log's start.
    pub next: Offset,
    /// The end of the log.
    pub end: Offset,
    /// The age of the oldest waiting record in milliseconds; 0 if none waits.
    pub time_lag: i64,
}

impl Look {
    /// The records that wait.
    #[must_use]
    pub fn lag(&self) -> i64 {
        (self.end.0 - self.next.0).max(0)
    }
}

/// Looks at one partition, newest last.
#[derive(Clone, Debug, Default)]
pub struct LagTrack(VecDeque<Look>);

/// Where the lag goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trend {
    /// It shrinks.
    Falling,
    /// It stays as it is.
    Steady,
    /// It grows.
    Growing,
}

/// When the lag will be gone if nothing changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Eta {
    /// There is none, or not more than what is under way.
    Now,
    /// In so many seconds.
    Seconds(f64),
    /// Never: no more is processed than arrives.
    Never,
}

/// What to think of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It keeps up.
    Ok,
    /// It makes progress, but the oldest waiting record is more than 10 s old.
    Behind,
    /// It has records and an owner, and nothing is committed.
    Stalled,
    /// It has records, and no owner.
    Unowned,
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "OK",
            Verdict::Behind => "BEHIND",
            Verdict::Stalled => "STALLED",
            Verdict::Unowned => "UNOWNED",
        }
    }

    /// Judges by two looks, the second at least 1.5 s after the first.
    #[must_use]
    pub fn of(before: &Look, after: &Look, owned: bool) -> Verdict {
        match (after.lag(), owned) {
            (0, _) => Verdict::Ok,
            (_, false) => Verdict::Unowned,
            _ if after.next <= before.next && before.lag() > 0 && after.time_lag > EVIDENCE => {
                Verdict::Stalled
            }
            _ if after.time_lag > NEAR => Verdict::Behind,
            _ => Verdict::Ok,
        }
    }
}

impl LagTrack {
    /// Adds a look. One that is not newer than the last is ignored; a log that begins again (its end is lower) begins
    /// the track again.
    pub fn push(&mut self, look: Look) {
        if let Some(last) = self.0.back() {
            if look.at <= last.at {
                return;
            }
            if look.end < last.end {
                self.0.clear();
            }
        }
        self.0.push_back(look);
        while self.0.front().is_some_and(|first| look.at.since(first.at) > WINDOW) {
            self.0.pop_front();
        }
    }

    /// The last look.
    #[must_use]
    pub fn last(&self) -> Option<&Look> {
        self.0.back()
    }

    /// The first look within so many milliseconds before the last, and the last.
    fn span(&self, millis: i64) -> Option<(&Look, &Look)> {
        let last = self.0.back()?;
        let first = self.0.iter().find(|look| last.at.since(look.at) <= millis)?;
        (last.at > first.at).then_some((first, last))
    }

    fn per_second(&self, span: i64, of: impl Fn(&Look) -> Offset) -> f64 {
        let Some((first, last)) = self.span(span) else { return 0.0 };
        let seconds = last.at.since(first.at) as f64 / 1000.0;
        ((of(last).0 - of(first).0) as f64 / seconds).max(0.0)
    }

    /// Records committed a second, over the last ten seconds.
    #[must_use]
    pub fn processed(&self) -> f64 {
        self.per_second(RATE_SPAN, |look| look.next)
    }

    /// Records committed a second over all that is kept, for a group that commits every few seconds.
    #[must_use]
    pub fn processed_slowly(&self) -> f64 {
        self.per_second(WINDOW, |look| look.next)
    }

    /// Records that arrive a second, over the last ten seconds.
    #[must_use]
    pub fn arrivals(&self) -> f64 {
        self.per_second(RATE_SPAN, |look| look.end)
    }

    /// Where the lag goes: by the means of the first and the second half of the window, as single looks jump with
    /// every commit. What arrives in a second isn't a trend.
    #[must_use]
    pub fn trend(&self) -> Trend {
        let half = self.0.len() / 2;
        if half < 2 {
            return Trend::Steady;
        }
        let mean = |looks: &mut dyn Iterator<Item = &Look>| {
            let (mut sum, mut count) = (0.0, 0.0);
            for look in looks {
                sum += look.lag() as f64;
                count += 1.0;
            }
            sum / count
        };
        let before = mean(&mut self.0.iter().take(half));
        let after = mean(&mut self.0.iter().skip(self.0.len() - half));
        let noise = self.arrivals().max(self.processed()).max(before * 0.02).max(5.0);
        if after > before + noise {
            Trend::Growing
        } else if after < before - noise {
            Trend::Falling
        } else {
            Trend::Steady
        }
    }

    /// When the lag will be gone: lag / (processed - arrivals), this partition alone. A group is done when its slowest
    /// partition is: see [`last_of`].
    #[must_use]
    pub fn eta(&self) -> Eta {
        let Some(last) = self.last() else { return Eta::Now };
        let (processed, arrivals) = (self.processed(), self.arrivals());
        // Less than a second's worth is what is under way.
        if last.lag() as f64 <= processed.max(1.0) {
            return Eta::Now;
        }
        let gain = processed - arrivals;
        // The two rates are equal but for noise.
        if gain <= processed * 0.005 { Eta::Never } else { Eta::Seconds(last.lag() as f64 / gain) }
    }

    /// What to think of the partition.
    #[must_use]
    pub fn verdict(&self, owned: bool) -> Verdict {
        let Some(last) = self.0.back() else { return Verdict::Ok };
        // The last one that is old enough; with none, nothing shows a standstill yet.
        let before = self.0.iter().rev().find(|look| last.at.since(look.at) >= STALL_SPAN);
        match before {
            Some(before) => Verdict::of(before, last, owned),
            None if last.lag() > 0 && !owned => Verdict::Unowned,
            None if last.time_lag > NEAR => Verdict::Behind,
            None => Verdict::Ok,
        }
    }

    /// Lags, oldest first, with the times of the looks.
    pub fn lags(&self) -> impl Iterator<Item = (Millis, i64)> {
        self.0.iter().map(|look| (look.at, look.lag()))
    }
}

/// Over how many milliseconds rates are measured.
const RATE_SPAN: i64 = 10_000;
/// No progress for so many milliseconds is a standstill: commits may be seconds apart.
const STALL_SPAN: i64 = 5_000;

/// When the last of these partitions is done: a group isn't faster than its slowest partition.
#[must_use]
pub fn last_of(etas: impl IntoIterator<Item = Eta>) -> Eta {
    etas.into_iter().fold(Eta::Now, |slowest, eta| match (slowest, eta) {
        (Eta::Never, _) | (_, Eta::Never) => Eta::Never,
        (Eta::Seconds(a), Eta::Seconds(b)) => Eta::Seconds(a.max(b)),
        (Eta::Seconds(a), Eta::Now) | (Eta::Now, Eta::Seconds(a)) => Eta::Seconds(a),
        (Eta::Now, Eta::Now) => Eta::Now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second: so many records processed and arrived each second, from this lag.
    fn track(seconds: i64, lag: i64, processed: i64, arrivals: i64) -> LagTrack {
        let mut track = LagTrack::default();
        for second in 0..=seconds {
            let (next, end) = (processed * second, lag + arrivals * second);
            let time_lag = if end > next { 20_000 } else { 0 };
            let at = Millis(1_000_000 + second * 1000);
            track.push(Look { at, next: Offset(next), end: Offset(end.max(next)), time_lag });
        }
        track
    }

    #[test]
    fn the_canonical_story() {
        // 1,000 readings a second arrive, one instance handles 500.
        let alone = track(20, 10_000, 500, 1000);
        assert_eq!((alone.processed(), alone.arrivals()), (500.0, 1000.0));
        assert_eq!((alone.trend(), alone.eta()), (Trend::Growing, Eta::Never));
        assert_eq!(alone.verdict(true), Verdict::Behind);
        // Three handle 1,500.
        let helped = track(10, 100_000, 1500, 1000);
        assert_eq!(helped.trend(), Trend::Falling);
        assert_eq!(helped.eta(), Eta::Seconds(95_000.0 / 500.0));
    }

    #[test]
    fn verdicts_tell_standstill_from_slowness() {
        assert_eq!(track(10, 0, 100, 100).verdict(true), Verdict::Ok);
        assert_eq!(track(10, 5, 0, 0).verdict(true), Verdict::Stalled);
        assert_eq!(track(10, 5, 0, 0).verdict(false), Verdict::Unowned);
        assert_eq!(track(1, 5, 0, 0).verdict(false), Verdict::Unowned, "seen at once");
        assert_ne!(track(1, 5, 0, 0).verdict(true), Verdict::Stalled, "a second shows no standstill");
        assert_eq!(LagTrack::default().verdict(false), Verdict::Ok);
    }

    #[test]
    fn a_steady_lag_is_no_trend_and_never_gone() {
        let steady = track(30, 10_000, 1000, 1000);
        assert_eq!((steady.trend(), steady.eta()), (Trend::Steady, Eta::Never));
        assert_eq!(track(30, 0, 1000, 1000).eta(), Eta::Now);
    }

    #[test]
    fn a_group_is_done_when_its_slowest_partition_is() {
        assert_eq!(last_of([]), Eta::Now);
        assert_eq!(last_of([Eta::Seconds(3.0), Eta::Now, Eta::Seconds(9.0)]), Eta::Seconds(9.0));
        assert_eq!(last_of([Eta::Seconds(3.0), Eta::Never]), Eta::Never);
    }

    #[test]
    fn a_log_that_begins_again_begins_the_track_again() {
        let mut track = track(10, 10_000, 500, 1000);
        track.push(Look { at: Millis(1_011_000), next: Offset(0), end: Offset(3), time_lag: 10 });
        assert_eq!(track.lags().count(), 1);
        assert_eq!(track.processed(), 0.0);
    }
}
