//! What the advisor is told: how far the group got in the last half minute, and what its workers said of themselves.
//!
//! [`Watched`] keeps that much and no more; [`Advice`] is the plan that the pure planner makes of it. Keys aren't
//! sampled here: the fullest generators are those that the workers name, and the partitions of another number are
//! estimated. `genwatch topics plan` reads a sample.

use std::collections::{BTreeMap, VecDeque};

use genwatch_core::plan::seen::{Place, Seen};
use genwatch_core::plan::{self, Plan, PlanError};
use genwatch_core::report::Report;
use genwatch_core::types::{Millis, PartitionId};
use serde::Serialize;

use super::progress::Bounds;

/// For how long the group is watched, in milliseconds.
const SPAN: i64 = 30_000;
/// Less says nothing: workers report once a second, and commit in between.
const LEAST: i64 = 5_000;
/// More names than this are a fault.
const MOST: usize = 2000;

/// The last half minute of a group.
#[derive(Debug, Default)]
pub struct Watched {
    /// Oldest first: the last one from before, and those of the time.
    looks: VecDeque<(Millis, BTreeMap<PartitionId, Place>)>,
    /// The same of each worker.
    reports: BTreeMap<String, VecDeque<Report>>,
}

/// `/api/plan`.
#[derive(Debug, Serialize)]
pub struct Advice {
    at: Millis,
    /// For how long the group was watched.
    seconds: f64,
    #[serde(flatten)]
    plan: Plan,
    sentences: [String; 2],
}

/// The event `plan`, and its part of a snapshot.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum PlanEvent {
    /// The plan for the rate that arrives.
    Advice(Box<Advice>),
    /// Why there is none.
    None {
        /// In words.
        error: String,
    },
}

impl From<Result<Advice, NoAdvice>> for PlanEvent {
    fn from(told: Result<Advice, NoAdvice>) -> PlanEvent {
        match told {
            Ok(advice) => PlanEvent::Advice(Box::new(advice)),
            Err(reason) => PlanEvent::None { error: reason.to_string() },
        }
    }
}

/// Why there is nothing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAdvice {
    /// It has just begun.
    #[error("the group is watched for only {0} s so far: it takes {least} s", least = LEAST / 1000)]
    TooSoon(i64),
    /// The planner finds nothing in it.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl Watched {
    /// Takes in the report of a worker of the group.
    pub fn report(&mut self, report: &Report) {
        if self.reports.len() >= MOST && !self.reports.contains_key(&report.worker) {
            return;
        }
        let reports = self.reports.entry(report.worker.clone()).or_default();
        // Another process under the name counts from zero.
        if reports.back().is_some_and(|last| last.since != report.since || report.at < last.at) {
            reports.clear();
        }
        // Its phases don't matter here, and take most of the room.
        reports.push_back(Report { partitions: Vec::new(), released: Vec::new(), ..report.clone() });
        drop_old(reports, |report| report.at);
    }

    /// A worker has left.
    pub fn left(&mut self, worker: &str) {
        self.reports.remove(worker);
    }

    /// Takes in what the brokers tell of the group.
    pub fn look(&mut self, at: Millis, bounds: &BTreeMap<PartitionId, Bounds>) {
        let places: BTreeMap<PartitionId, Place> =
            bounds.iter().map(|(id, bounds)| (*id, Place { next: bounds.next(), end: bounds.end })).collect();
        let is_another = |(_, before): &(Millis, BTreeMap<PartitionId, Place>)| {
            before.len() != places.len()
                || before.iter().any(|(id, before)| places.get(id).is_none_or(|place| place.end < before.end))
        };
        if self.looks.back().is_some_and(is_another) {
            self.looks.clear();
        }
        self.looks.push_back((at, places));
        drop_old(&mut self.looks, |(at, _)| *at);
    }

    /// The log began again.
    pub fn begin_again(&mut self) {
        self.looks.clear();
    }

    /// Forgets who is silent for long.
    pub fn forget(&mut self, now: Millis) {
        self.reports.retain(|_, reports| reports.back().is_some_and(|last| now.since(last.due()) <= SPAN));
    }

    /// What the planner is told.
    #[must_use]
    pub fn seen(&self, now: Millis) -> Seen {
        let (Some((begun, before)), Some((ended, after))) = (self.looks.front(), self.looks.back()) else {
            return Seen::default();
        };
        let both =
            |(id, place): (&PartitionId, &Place)| (*id, (before.get(id).copied().unwrap_or(*place), *place));
        let is_there = |(_, reports): &(&String, &VecDeque<Report>)| {
            reports.back().is_some_and(|last| !last.is_overdue(now))
        };
        let told =
            |(name, reports): (&String, &VecDeque<Report>)| (name.clone(), reports.iter().cloned().collect());
        Seen {
            seconds: ended.since(*begun) as f64 / 1000.0,
            partitions: after.iter().map(both).collect(),
            reports: self.reports.iter().filter(is_there).map(told).collect(),
            ..Seen::default()
        }
    }

    /// The plan for `target_rate` readings a second; for the rate that arrives if there is none.
    ///
    /// # Errors
    /// When there is nothing to say yet.
    pub fn advice(&self, target_rate: Option<f64>, now: Millis) -> Result<Advice, NoAdvice> {
        let seen = self.seen(now);
        if seen.reports.is_empty() {
            return Err(PlanError::NoWorkers.into());
        }
        let watched = (seen.seconds * 1000.0) as i64;
        if watched < LEAST {
            return Err(NoAdvice::TooSoon(watched / 1000));
        }
        let plan = plan::plan(&seen.measurements(), target_rate)?;
        Ok(Advice { at: now, seconds: seen.seconds, sentences: plan.sentences(), plan })
    }
}

/// Of what is older than the span, only the last one is kept.
fn drop_old<T>(kept: &mut VecDeque<T>, at: impl Fn(&T) -> Millis) {
    let Some(newest) = kept.back().map(&at) else { return };
    while kept.get(1).is_some_and(|second| newest.since(at(second)) >= SPAN) {
        kept.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use genwatch_core::types::Offset;

    use super::*;

    const NOW: i64 = 1_766_400_000_000;

    fn said(worker: &str, second: i64, held: &str) -> Report {
        let json = serde_json::json!({
            "worker": worker, "kind": "worker", "at": NOW + second * 1000, "since": NOW, "every": 1000,
            "version": "1", "host": "h", "rate": 200.0, "busy": 1.0, "cpu": 0.1, "records": 200 * second,
            "held": held, "load": {"lanes": 1, "work": 0.005, "lanes_busy": 1.0, "cores": 2.0, "loop": 0.01},
        });
        serde_json::from_value(json).unwrap()
    }

    /// One partition of which `done` readings a second are processed and 300 arrive.
    fn look(watched: &mut Watched, second: i64, done: i64) {
        let bounds = Bounds {
            start: Offset(0),
            end: Offset(20_000 + 300 * second),
            committed: Some(Offset(done * second)),
        };
        watched.look(Millis(NOW + second * 1000), &BTreeMap::from([(PartitionId(0), bounds)]));
    }

    fn after(seconds: i64) -> (Watched, Millis) {
        let mut watched = Watched::default();
        for second in 0..=seconds {
            look(&mut watched, second, 200);
            watched.report(&said("w", second, "0"));
        }
        (watched, Millis(NOW + seconds * 1000))
    }

    #[test]
    fn the_last_half_minute_is_what_counts() {
        let (watched, now) = after(100);
        let seen = watched.seen(now);
        assert_eq!(seen.seconds, 30.0);
        let (before, end) = seen.partitions[&PartitionId(0)];
        assert_eq!((before.next, end.next), (Offset(200 * 70), Offset(200 * 100)));
        assert_eq!((before.end, end.end), (Offset(20_000 + 300 * 70), Offset(20_000 + 300 * 100)));
        let reports: Vec<i64> =
            seen.reports["w"].iter().map(|report| report.at.since(Millis(NOW)) / 1000).collect();
        assert_eq!((reports[0], reports.len()), (70, 31), "the last one from before, and those of the time");
    }

    #[test]
    fn a_serial_worker_is_bound_by_its_work() {
        let (watched, now) = after(40);
        let advice = serde_json::to_value(watched.advice(None, now).unwrap()).unwrap();
        assert_eq!(advice["measured"]["rate"], 200.0);
        assert_eq!(advice["measured"]["arrival"], 300.0);
        assert_eq!(advice["sentences"].as_array().unwrap().len(), 2);
        assert_eq!(advice["target_rate"], 300.0);
        assert_eq!(advice["drain_seconds"], serde_json::Value::Null, "more arrives than it can do");
        assert_eq!(
            serde_json::to_value(watched.advice(Some(900.0), now).unwrap()).unwrap()["target_rate"],
            900.0
        );
    }

    #[test]
    fn there_is_nothing_to_say_too_soon_or_of_nobody() {
        let (watched, now) = after(3);
        assert_eq!(watched.advice(None, now).unwrap_err(), NoAdvice::TooSoon(3));
        assert_eq!(
            NoAdvice::TooSoon(3).to_string(),
            "the group is watched for only 3 s so far: it takes 5 s"
        );
        let (mut watched, now) = after(40);
        let later = Millis(now.0 + 4000);
        assert_eq!(
            watched.advice(None, later).unwrap_err(),
            NoAdvice::Plan(PlanError::NoWorkers),
            "it is overdue"
        );
        watched.left("w");
        assert_eq!(watched.advice(None, now).unwrap_err(), NoAdvice::Plan(PlanError::NoWorkers));
    }

    #[test]
    fn another_log_or_another_process_begins_again() {
        let (mut watched, _) = after(40);
        watched.look(
            Millis(NOW + 41_000),
            &BTreeMap::from([(PartitionId(0), Bounds { start: Offset(0), end: Offset(5), committed: None })]),
        );
        assert_eq!(watched.looks.len(), 1);
        watched.report(&Report { since: Millis(NOW + 40_500), ..said("w", 41, "0") });
        assert_eq!(watched.reports["w"].len(), 1);
        watched.forget(Millis(NOW + 120_000));
        assert!(watched.reports.is_empty());
    }
}
