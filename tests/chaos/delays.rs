//! When alerts became visible: from the moment that the producer was handed a reading to the moment that a reader of
//! committed records had the alert.
//!
//! What is judged is an order, as seconds mean little on a busy machine: an alert of another generator that was called for
//! while the slow one's work still had half of its time to go must be visible before the slow one's own. It has that half
//! for its own way. Only calm stretches are judged, in which nothing fails and nothing moves.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::fleet::{self, SLOW, SLOW_PARTITION, SLOW_WORK};
use crate::observer::Seen;

/// A stretch of the run, from its beginning.
pub type Stretch = Range<Duration>;

/// One alert's way.
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

/// The delays of some alerts, in order.
#[derive(Clone, Debug, Default)]
pub struct Delays(Vec<Duration>);

impl Delays {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The delay that so many percent don't exceed; `None` without alerts.
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        self.0.get((self.0.len() * percent).div_ceil(100).saturating_sub(1)).copied()
    }
}

/// What has to be visible before the slow generator's own alert, and how much of it wasn't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    pub judged: usize,
    pub waited: usize,
}

/// All alerts of a run.
pub struct Alerts(Vec<Alert>);

impl Alerts {
    /// Of what was seen, and when each reading was produced. A reading that the producer's client wrote a second time has no
    /// such time.
    pub fn new(seen: Vec<Seen>, produced: &HashMap<(i32, i64), Duration>) -> Alerts {
        let alert = |seen: Seen| {
            let produced = *produced.get(&(seen.partition, seen.offset))?;
            Some(Alert { generator: seen.generator, partition: seen.partition, produced, visible: seen.at })
        };
        Alerts(seen.into_iter().filter_map(alert).collect())
    }

    /// Delays of what was called for in these stretches, without that of slow generators.
    pub fn delays(&self, stretches: &[Stretch]) -> Delays {
        self.delays_of(stretches, |alert| !fleet::is_slow(&alert.generator))
    }

    /// The same, of the slow one's neighbours in its partition.
    pub fn delays_beside_the_slow(&self, stretches: &[Stretch]) -> Delays {
        self.delays_of(stretches, |alert| {
            !fleet::is_slow(&alert.generator) && alert.partition == SLOW_PARTITION
        })
    }

    /// The same, of the slow one itself.
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

    /// Who waited for the slow one's work in these stretches: of its partition, and of all others.
    pub fn waited(&self, calms: &[Stretch]) -> (Waited, Waited) {
        let (mut beside, mut elsewhere) = (Waited::default(), Waited::default());
        for calm in calms {
            // Where a worker without work had it, it wasn't slow.
            let ends = self.0.iter().filter(|alert| {
                alert.generator == SLOW && calm.contains(&alert.visible) && alert.delay() >= SLOW_WORK
            });
            for end in ends.map(|alert| alert.visible) {
                let half = end.saturating_sub(SLOW_WORK).max(calm.start)..end.saturating_sub(SLOW_WORK / 2);
                let others = self.0.iter().filter(|alert| !fleet::is_slow(&alert.generator));
                for alert in others.filter(|alert| half.contains(&alert.produced)) {
                    let count = if alert.partition == SLOW_PARTITION { &mut beside } else { &mut elsewhere };
                    count.judged += 1;
                    count.waited += usize::from(alert.visible >= end);
                }
            }
        }
        (beside, elsewhere)
    }
}

impl Waited {
    /// Why this isn't good enough: one in a hundred may have met a hiccup of the machine.
    pub fn complaint(self, who: &str) -> Option<String> {
        let Waited { judged, waited } = self;
        if judged == 0 {
            return Some(format!("no alert {who} was called for while the slow generator's work went on"));
        }
        (waited * 100 > judged)
            .then(|| format!("{waited} of {judged} alerts {who} waited for the slow generator's work"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Stretch = Duration::ZERO..Duration::from_secs(60);

    fn alert(generator: &str, partition: i32, produced: u64, visible: u64) -> Alert {
        let [produced, visible] = [produced, visible].map(Duration::from_millis);
        Alert { generator: generator.to_owned(), partition, produced, visible }
    }

    /// The slow one's work goes on from 10 s to 15 s.
    fn beside(alerts: impl IntoIterator<Item = Alert>) -> Alerts {
        Alerts([alert(SLOW, SLOW_PARTITION, 10_000, 15_000)].into_iter().chain(alerts).collect())
    }

    #[test]
    fn who_is_visible_only_with_the_slow_one_has_waited() {
        let prompt = |at| alert("generator1", SLOW_PARTITION, at, at + 50);
        let blocked = |at| alert("generator1", SLOW_PARTITION, at, 15_000);
        let count = |alerts: &Alerts| alerts.waited(&[CALM]).0;
        let all_prompt = beside((10_000..12_000).step_by(20).map(prompt));
        assert_eq!(count(&all_prompt), Waited { judged: 100, waited: 0 });
        assert_eq!(count(&all_prompt).complaint("beside it"), None);
        let all_blocked = beside((10_000..12_000).step_by(20).map(blocked));
        assert_eq!(count(&all_blocked), Waited { judged: 100, waited: 100 });
        assert!(count(&all_blocked).complaint("beside it").is_some());
    }

    #[test]
    fn who_had_little_time_before_the_slow_one_was_done_is_not_judged() {
        let late = beside([alert("generator1", 7, 14_900, 15_100)]);
        assert_eq!(late.waited(&[CALM]), (Waited::default(), Waited::default()));
        assert!(
            Waited::default().complaint("beside it").is_some(),
            "a run that judged nothing proves nothing"
        );
    }

    #[test]
    fn nobody_is_judged_outside_of_calm_stretches_or_while_the_slow_one_is_quick() {
        let blocked = [alert("generator1", 7, 10_100, 15_000)];
        let elsewhere = Duration::from_secs(20)..Duration::from_secs(60);
        assert_eq!(beside(blocked.clone()).waited(&[elsewhere]).1, Waited::default());
        let quick =
            Alerts([alert(SLOW, SLOW_PARTITION, 14_950, 15_000)].into_iter().chain(blocked).collect());
        assert_eq!(quick.waited(&[CALM]).1, Waited::default());
    }

    #[test]
    fn percentiles_are_those_of_the_list() {
        let alerts = Alerts((1..=100).map(|n| alert("generator1", 1, 0, n)).collect());
        let delays = alerts.delays(&[CALM]);
        assert_eq!([50, 99, 100].map(|p| delays.percentile(p).unwrap().as_millis()), [50, 99, 100]);
        assert_eq!(Delays::default().percentile(50), None);
    }
}
