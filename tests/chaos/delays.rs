//! When alerts became visible: the time from handing a reading to the producer until a reader of committed records got
//! the alert.
//!
//! The test judges an order, because seconds mean little on a busy machine: an alert of another generator that was
//! called for while at least half of the slow one's work was left must be visible before the slow one's own. It has
//! that half for its own way. Only calm stretches count, in which nothing fails and nothing moves, and only those in
//! which alerts take less than that half anyway while the slow one has no work.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::fleet::{self, SLOW, SLOW_PARTITION, SLOW_WORK};
use crate::observer::Seen;

/// A stretch of the run, in time since its beginning.
pub type Stretch = Range<Duration>;

/// One alert: when it was called for and when it was seen.
#[derive(Clone, Debug)]
pub struct Alert {
    pub generator: String,
    pub partition: i32,
    pub produced: Duration,
    pub visible: Duration,
}

impl Alert {
    fn delay(&self) -> Duration {
        self.visible.saturating_sub(self.produced)
    }
}

/// The sorted delays of some alerts.
#[derive(Clone, Debug, Default)]
pub struct Delays(Vec<Duration>);

impl Delays {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The delay at this percentile; `None` without alerts.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        self.0.get((self.0.len() * percent).div_ceil(100).saturating_sub(1)).copied()
    }
}

/// How many alerts were late, and of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Late {
    pub of: usize,
    pub late: usize,
}

impl Late {
    fn count(&mut self, is_late: bool) {
        self.of += 1;
        self.late += usize::from(is_late);
    }

    fn is_more_than(self, percent: usize) -> bool {
        self.late * 100 > self.of * percent
    }
}

/// The alerts that waited for the slow generator's work, in all calm stretches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Alerts of other generators in its partition.
    pub beside: Late,
    pub elsewhere: Late,
    /// Stretches in which the machine was too busy to judge.
    pub too_busy: usize,
}

impl Waited {
    /// Why this isn't good enough. A blocked generator is blocked during all of the slow one's work: nearly all of its
    /// partition, or of its worker's partitions. A tenth may have met a hiccup of the machine.
    pub fn complaint(self) -> Option<String> {
        let slow = "for the slow generator's work";
        match self {
            Waited { beside: Late { of: 0, .. }, too_busy: 0, .. } => {
                Some("the slow generator had no work in any calm stretch".to_owned())
            }
            Waited { beside: Late { of, late }, .. } if self.beside.is_more_than(10) => {
                Some(format!("{late} of {of} alerts of its partition waited {slow}"))
            }
            Waited { elsewhere: Late { of, late }, .. } if self.elsewhere.is_more_than(10) => {
                Some(format!("{late} of {of} alerts of other partitions waited {slow}"))
            }
            _ => None,
        }
    }
}

/// All alerts of a run.
#[derive(Default)]
pub struct Alerts(Vec<Alert>);

impl Alerts {
    /// Adds alerts that were seen, and when each reading was produced. A reading that the producer's client wrote a
    /// second time has no such time.
    pub fn extend(&mut self, seen: Vec<Seen>, produced: &HashMap<(i32, i64), Duration>) {
        let alert = |seen: Seen| {
            let produced = *produced.get(&(seen.partition, seen.offset))?;
            Some(Alert { generator: seen.generator, partition: seen.partition, produced, visible: seen.at })
        };
        self.0.extend(seen.into_iter().filter_map(alert));
    }

    /// Delays of alerts called for in these stretches, except those of slow generators.
    pub fn delays(&self, stretches: &[Stretch]) -> Delays {
        self.delays_of(stretches, |alert| !fleet::is_slow(&alert.generator))
    }

    /// The same, for other generators in the slow one's partition.
    pub fn delays_beside_the_slow(&self, stretches: &[Stretch]) -> Delays {
        self.delays_of(stretches, |alert| {
            !fleet::is_slow(&alert.generator) && alert.partition == SLOW_PARTITION
        })
    }

    /// The same, for the slow one itself.
    pub fn delays_of_the_slow(&self, stretches: &[Stretch]) -> Delays {
        self.delays_of(stretches, |alert| alert.generator == SLOW)
    }

    fn delays_of(&self, stretches: &[Stretch], wanted: impl Fn(&Alert) -> bool) -> Delays {
        let inside = |alert: &&Alert| stretches.iter().any(|stretch| stretch.contains(&alert.produced));
        let mut delays: Vec<Duration> =
            self.0.iter().filter(inside).filter(|alert| wanted(alert)).map(Alert::delay).collect();
        delays.sort();
        Delays(delays)
    }

    /// The alerts that waited for the slow one's work in these stretches.
    pub fn waited(&self, calms: &[Stretch]) -> Waited {
        let mut waited = Waited::default();
        for calm in calms {
            let inside: Vec<&Alert> = self.0.iter().filter(|alert| calm.contains(&alert.produced)).collect();
            // On a worker without work it wasn't slow.
            let (slow, others): (Vec<&Alert>, Vec<&Alert>) =
                inside.into_iter().partition(|alert| fleet::is_slow(&alert.generator));
            let works: Vec<&&Alert> = slow.iter().filter(|alert| alert.delay() >= SLOW_WORK).collect();
            let mut control = Late::default();
            for alert in &others {
                let works = works.iter().any(|work| (work.produced..work.visible).contains(&alert.produced));
                if !works {
                    control.count(alert.delay() >= SLOW_WORK / 2);
                }
            }
            if control.is_more_than(5) {
                waited.too_busy += 1;
                continue;
            }
            for work in works {
                let since = work.visible.saturating_sub(SLOW_WORK).max(calm.start);
                let first_half = since..work.visible.saturating_sub(SLOW_WORK / 2);
                for alert in others.iter().filter(|alert| first_half.contains(&alert.produced)) {
                    let beside = alert.partition == SLOW_PARTITION;
                    let count = if beside { &mut waited.beside } else { &mut waited.elsewhere };
                    count.count(alert.visible >= work.visible);
                }
            }
        }
        waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Stretch = Duration::ZERO..Duration::from_secs(60);
    /// The slow one's work lasts from 20 s on.
    const FROM: u64 = 20_000;
    const TO: u64 = FROM + SLOW_WORK.as_millis() as u64;

    fn alert(generator: &str, partition: i32, produced: u64, visible: u64) -> Alert {
        let [produced, visible] = [produced, visible].map(Duration::from_millis);
        Alert { generator: generator.to_owned(), partition, produced, visible }
    }

    /// With the slow one's alert, and others that show that the machine is quick.
    fn with(alerts: impl IntoIterator<Item = Alert>) -> Alerts {
        let quick = (10..20).map(|at| alert("generator1", 3, at * 1000, at * 1000 + 50));
        Alerts([alert(SLOW, SLOW_PARTITION, FROM, TO)].into_iter().chain(quick).chain(alerts).collect())
    }

    fn while_it_works(partition: i32, visible: impl Fn(u64) -> u64) -> Vec<Alert> {
        (FROM..FROM + 2000).step_by(20).map(|at| alert("generator1", partition, at, visible(at))).collect()
    }

    #[test]
    fn who_is_visible_only_with_the_slow_one_has_waited() {
        for (partition, who) in [(SLOW_PARTITION, "of its partition"), (7, "of other partitions")] {
            let beside = while_it_works(SLOW_PARTITION, |at| at + 50);
            let prompt = with(while_it_works(partition, |at| at + 50).into_iter().chain(beside.clone()));
            assert_eq!(prompt.waited(&[CALM]).complaint(), None);
            let blocked = with(while_it_works(partition, |_| TO).into_iter().chain(beside)).waited(&[CALM]);
            assert_eq!(blocked.beside.late + blocked.elsewhere.late, 100);
            assert!(blocked.complaint().is_some_and(|complaint| complaint.contains(who)), "{blocked:?}");
        }
    }

    #[test]
    fn who_had_little_time_before_the_slow_one_was_done_is_not_judged() {
        let late = with([alert("generator1", 7, TO - 100, TO + 100)]);
        assert_eq!(late.waited(&[CALM]), Waited::default());
        assert!(Waited::default().complaint().is_some(), "a run that judged nothing proves nothing");
    }

    #[test]
    fn nobody_is_judged_on_a_busy_machine() {
        let blocked = while_it_works(SLOW_PARTITION, |_| TO);
        let busy = (0..10).map(|at| alert("generator1", 3, at * 1000, at * 1000 + 6000));
        let waited = with(blocked.into_iter().chain(busy)).waited(&[CALM]);
        assert_eq!(waited, Waited { too_busy: 1, ..Waited::default() });
        assert_eq!(waited.complaint(), None);
    }

    #[test]
    fn nobody_is_judged_outside_of_calm_stretches_or_while_the_slow_one_is_quick() {
        let blocked = while_it_works(SLOW_PARTITION, |_| TO);
        let elsewhere = Duration::from_secs(40)..Duration::from_secs(60);
        assert_eq!(with(blocked.clone()).waited(&[elsewhere]), Waited::default());
        let quick = alert(SLOW, SLOW_PARTITION, TO - 50, TO);
        assert_eq!(Alerts([quick].into_iter().chain(blocked).collect()).waited(&[CALM]).beside.of, 0);
    }

    #[test]
    fn percentiles_are_those_of_the_list() {
        let alerts = Alerts((1..=100).map(|n| alert("generator1", 1, 0, n)).collect());
        let delays = alerts.delays(&[CALM]);
        assert_eq!([50, 99, 100].map(|p| delays.percentile(p).unwrap().as_millis()), [50, 99, 100]);
        assert_eq!(Delays::default().percentile(50), None);
    }
}
