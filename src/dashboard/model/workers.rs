//! Workers, bridges and sinks: the last that each has said of itself, and what state that means.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;

use genwatch_core::ranges::parse;
use genwatch_core::report::{HeldPhase, Kind, Report};
use genwatch_core::types::{Millis, PartitionId};
use serde::Serialize;

use super::progress::tenth;

/// How long one that has left is still listed.
const LEFT_FOR: i64 = 10 * 60 * 1000;
/// How long one that is overdue is still listed.
const OVERDUE_FOR: i64 = 60 * 60 * 1000;
/// One that is overdue counts as gone after this long, once others hold its partitions.
const REPLACED_AFTER: i64 = 60 * 1000;
/// Over how many reports a rate is averaged.
const RATES: usize = 5;
/// More names than this are a fault.
const MOST: usize = 2000;
/// Partitions of one report, at most.
const PARTITIONS: i32 = 100_000;

/// All that have reported.
#[derive(Debug, Default)]
pub struct Workers {
    known: BTreeMap<String, Known>,
}

/// One that has reported.
#[derive(Debug)]
pub struct Known {
    /// Its last report.
    pub report: Report,
    /// The partitions of the main topic that it holds.
    pub held: BTreeSet<PartitionId>,
    /// When it left.
    pub left: Option<Millis>,
    /// Its rates by the last reports, oldest first: single ones jump.
    rates: VecDeque<f64>,
}

/// Its state in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Active,
    /// It has no partition.
    Idle,
    /// It restores a partition.
    Restoring,
    /// It gives partitions up.
    Draining,
    /// It says why it can't work.
    #[serde(rename = "not ready")]
    NotReady,
    /// It hasn't reported when it said it would.
    Overdue,
    /// It has left.
    Left,
}

/// One of them as it is shown.
#[derive(Debug, Serialize)]
pub struct Shown<'w> {
    worker: &'w str,
    kind: &'w Kind,
    state: State,
    at: Millis,
    since: Millis,
    version: &'w str,
    host: &'w str,
    group: Option<&'w str>,
    not_ready: Option<&'w str>,
    rate: f64,
    busy: f64,
    cpu: f64,
    records: u64,
    in_flight: u64,
    generators: u64,
    rebalances: u64,
    partitions: &'w BTreeSet<PartitionId>,
    peer: Option<&'w str>,
}

impl Known {
    /// Records a second, over its last reports.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rates.iter().sum::<f64>() / self.rates.len().max(1) as f64
    }

    /// Its state at this time.
    #[must_use]
    pub fn state(&self, now: Millis) -> State {
        let is_replaced =
            self.report.can_hold() && self.held.is_empty() && now.since(self.report.at) > REPLACED_AFTER;
        if self.left.is_some() || is_replaced && self.report.is_overdue(now) {
            State::Left
        } else if self.report.is_overdue(now) {
            State::Overdue
        } else if self.report.has(HeldPhase::Draining) {
            State::Draining
        } else if self.report.has(HeldPhase::Restoring) {
            State::Restoring
        } else if self.report.not_ready.is_some() {
            State::NotReady
        } else if self.report.is_idle() {
            State::Idle
        } else {
            State::Active
        }
    }

    /// It as it is shown.
    #[must_use]
    pub fn show(&self, now: Millis) -> Shown<'_> {
        let Known { report, held, .. } = self;
        Shown {
            worker: &report.worker,
            kind: &report.kind,
            state: self.state(now),
            at: report.at,
            since: report.since,
            version: &report.version,
            host: &report.host,
            group: report.group.as_deref(),
            not_ready: report.not_ready.as_deref(),
            rate: tenth(self.rate()),
            busy: report.busy,
            cpu: report.cpu,
            records: report.records,
            in_flight: report.in_flight,
            generators: report.generators,
            rebalances: report.rebalances,
            partitions: held,
            peer: report.peer.as_deref(),
        }
    }

    /// Whether it works, or is about to.
    #[must_use]
    pub fn is_there(&self, now: Millis) -> bool {
        !matches!(self.state(now), State::Left | State::Overdue)
    }
}

impl Workers {
    /// Takes in a report; returns the partitions that it holds.
    pub fn report(&mut self, report: Report) -> BTreeSet<PartitionId> {
        let mut held = ranges(&report.held);
        held.extend(report.partitions.iter().filter(|held| held.topic.is_none()).map(|held| held.partition));
        // What another one holds by now, one that is silent holds no more.
        for other in self.known.values_mut().filter(|other| other.report.worker != report.worker) {
            if other.report.group == report.group && other.report.is_overdue(report.at) {
                other.held.retain(|partition| !held.contains(partition));
            }
        }
        if self.known.len() < MOST || self.known.contains_key(&report.worker) {
            let before = self.known.remove(&report.worker).filter(|before| before.left.is_none());
            let mut rates = before.map(|before| before.rates).unwrap_or_default();
            rates.push_back(report.rate);
            if rates.len() > RATES {
                rates.pop_front();
            }
            let known = Known { held: held.clone(), left: None, rates, report };
            self.known.insert(known.report.worker.clone(), known);
        }
        held
    }

    /// One has left.
    pub fn left(&mut self, worker: &str, at: Millis) {
        if let Some(known) = self.known.get_mut(worker) {
            known.left = Some(at);
            known.held.clear();
        }
    }

    /// Forgets those that left, or died, a while ago.
    pub fn forget(&mut self, now: Millis) {
        self.known.retain(|_, known| match known.left {
            Some(left) => now.since(left) <= LEFT_FOR,
            None => now.since(known.report.at) <= OVERDUE_FOR.max(3 * known.report.every),
        });
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.known.values()
    }

    /// Whether some worker of this group has reported.
    #[must_use]
    pub fn has_worker_of(&self, group: &str) -> bool {
        self.iter().any(|known| is_worker_of(&known.report, group))
    }

    /// All of them as they are shown.
    #[must_use]
    pub fn show(&self, now: Millis) -> Vec<Shown<'_>> {
        self.iter().map(|known| known.show(now)).collect()
    }
}

/// Whether it is a report of a worker of this group.
#[must_use]
pub fn is_worker_of(report: &Report, group: &str) -> bool {
    report.kind == Kind::Worker && report.group.as_deref().is_none_or(|of| of == group)
}

/// Reads `0-3,7`; leaves out what isn't that.
#[must_use]
pub fn ranges(text: &str) -> BTreeSet<PartitionId> {
    let sensible = |range: &RangeInclusive<i32>| *range.start() >= 0 && *range.end() < PARTITIONS;
    parse(text).filter(sensible).flatten().map(PartitionId).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_766_400_000_000);

    fn report(more: &str) -> Report {
        let json = format!(
            r#"{{"worker":"w","kind":"worker","at":{NOW},"since":1,"every":1000,"version":"1","host":"h",
                "rate":1.0,"busy":0.1,"cpu":0.1,"records":1{more}}}"#
        );
        Report::from_json(json.as_bytes()).unwrap()
    }

    fn state(more: &str, later: i64) -> State {
        let mut workers = Workers::default();
        workers.report(report(more));
        workers.iter().next().unwrap().state(Millis(NOW.0 + later))
    }

    #[test]
    fn ranges_are_read_and_nonsense_is_left_out() {
        let read = |text| ranges(text).into_iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(read("0-3,7"), [0, 1, 2, 3, 7]);
        assert_eq!(read("0, 3, 5-6"), [0, 3, 5, 6]);
        assert!(read("").is_empty());
        assert!(read("x,-1,5-2,0-2000000000").is_empty());
    }

    #[test]
    fn a_state_is_the_most_telling_one() {
        let held = |phase: &str| {
            format!(r#","held":"3","partitions":[{{"partition":3,"phase":"{phase}","since":1}}]"#)
        };
        assert_eq!(state("", 0), State::Idle);
        assert_eq!(state(r#","not_ready":"waits for Kafka""#, 0), State::NotReady);
        assert_eq!(state(&held("active"), 0), State::Active);
        assert_eq!(state(&held("restoring"), 0), State::Restoring);
        assert_eq!(state(&held("draining"), 0), State::Draining);
        assert_eq!(state(&held("active"), 4000), State::Overdue);
        assert_eq!(serde_json::to_string(&State::NotReady).unwrap(), r#""not ready""#);
    }

    #[test]
    fn who_is_silent_has_left_once_others_hold_its_partitions() {
        let mut workers = Workers::default();
        workers.report(report(r#","held":"0-1""#));
        let heir = |at: i64, held: &str| {
            let held = format!(r#","held":"{held}""#);
            Report { worker: "heir".to_owned(), at: Millis(NOW.0 + at), ..report(&held) }
        };
        let state = |workers: &Workers, at| {
            workers.iter().find(|known| known.report.worker == "w").unwrap().state(Millis(NOW.0 + at))
        };
        workers.report(heir(500, "0"));
        workers.report(heir(10_000, "0"));
        assert_eq!(state(&workers, 100_000), State::Overdue, "one of its partitions is nobody's");
        workers.report(heir(11_000, "0-1"));
        assert_eq!(state(&workers, 12_000), State::Overdue, "a look at it may help");
        assert_eq!(state(&workers, 100_000), State::Left);
    }

    #[test]
    fn downsamplers_are_listed_and_no_workers_of_the_group() {
        let mut workers = Workers::default();
        let of = |worker: &str, kind: &str, more: &str| Report {
            worker: worker.to_owned(),
            kind: Kind::from(kind.to_owned()),
            ..report(more)
        };
        workers.report(of("d", "downsample", r#","group":"g_1m","held":"0-3""#));
        workers.report(of("m", "mirror", r#","group":"g","held":"0-3""#));
        assert!(!workers.has_worker_of("g") && !workers.has_worker_of("g_1m"));
        workers.report(of("w", "worker", r#","group":"g","held":"0-3""#));
        assert!(workers.has_worker_of("g") && !workers.has_worker_of("g_1m"));
        let shown = serde_json::to_value(workers.show(NOW)).unwrap();
        let kinds: Vec<_> = shown.as_array().unwrap().iter().map(|one| one["kind"].clone()).collect();
        assert_eq!(kinds, ["downsample", "mirror", "worker"]);
        // A silent one loses its partitions to its own group alone.
        let later = |worker: &str, kind: &str, more: &str| Report {
            at: Millis(NOW.0 + 60_000),
            ..of(worker, kind, more)
        };
        workers.report(later("w", "worker", r#","group":"g","held":"0-3""#));
        assert_eq!(workers.iter().find(|known| known.report.worker == "d").unwrap().held.len(), 4);
        workers.report(later("d2", "downsample", r#","group":"g_1m","held":"0-3""#));
        assert_eq!(workers.iter().find(|known| known.report.worker == "d").unwrap().held.len(), 0);
    }

    #[test]
    fn a_rate_is_that_of_the_last_reports() {
        let mut workers = Workers::default();
        for rate in [100.0, 1.0, 2.0, 3.0, 4.0, 5.0] {
            workers.report(Report { rate, ..report("") });
        }
        assert!((workers.iter().next().unwrap().rate() - 3.0).abs() < 1e-9);
    }

    #[test]
    fn who_left_is_listed_for_a_while() {
        let mut workers = Workers::default();
        workers.report(report(r#","held":"0""#));
        workers.left("w", Millis(NOW.0 + 10));
        assert_eq!(workers.iter().next().unwrap().state(NOW), State::Left);
        workers.forget(Millis(NOW.0 + 60_000));
        assert_eq!(workers.iter().count(), 1);
        workers.forget(Millis(NOW.0 + LEFT_FOR + 60_000));
        assert_eq!(workers.iter().count(), 0);
    }
}
