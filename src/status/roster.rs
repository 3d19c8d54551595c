//! What workers, bridges and sinks say of themselves: who is there, and who holds which partition.
//!
//! Must not know: clients, clocks.

use std::collections::BTreeMap;

use genwatch_core::ranges::parse;
use genwatch_core::report::{Held, HeldPhase, Kind, Report};
use genwatch_core::types::{Millis, PartitionId};

use super::document::Phase;

/// A process that is silent for so many milliseconds longer than it said is no owner any more: by then the group has
/// dropped it.
const DROPPED: i64 = 10_000;
/// A process that is silent for so many milliseconds isn't shown.
const FORGOTTEN: i64 = 15 * 60_000;

/// The last report of each process.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    group: String,
    reports: BTreeMap<String, Heard>,
}

#[derive(Clone, Debug)]
struct Heard {
    report: Report,
    /// When, by our clock: another machine's clock may differ.
    at: Millis,
}

impl Heard {
    /// How long it has been silent, in milliseconds.
    fn silence(&self, now: Millis) -> i64 {
        now.since(self.at).max(0)
    }

    fn is_overdue(&self, now: Millis) -> bool {
        self.report.is_overdue(Millis(self.report.at.0.saturating_add(self.silence(now))))
    }

    fn is_dropped(&self, now: Millis) -> bool {
        self.is_overdue(now) && self.silence(now) > self.report.every.saturating_add(DROPPED)
    }
}

/// A process, as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// What it does.
    pub state: WorkerState,
    /// Records a second.
    pub rate: f64,
    /// The share of its capacity that it uses, 0 to 1.
    pub busy: f64,
    /// Cores that it uses.
    pub cpu: f64,
    /// Its version.
    pub version: String,
    /// The partitions of the main topic that it holds, such as `0-3,7`.
    pub held: String,
    /// The reason not to be ready.
    pub not_ready: Option<String>,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerState {
    /// It is silent for longer than it said.
    Overdue,
    /// A partition of it can't be processed.
    Refused,
    /// It gives up partitions.
    Draining,
    /// It restores partitions.
    Restoring,
    /// It processes.
    Active,
    /// It holds nothing.
    Idle,
}

impl WorkerState {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            WorkerState::Overdue => "overdue",
            WorkerState::Refused => "refused",
            WorkerState::Draining => "draining",
            WorkerState::Restoring => "restoring",
            WorkerState::Active => "active",
            WorkerState::Idle => "idle",
        }
    }

    fn of(heard: &Heard, now: Millis) -> WorkerState {
        let report = &heard.report;
        if heard.is_overdue(now) {
            WorkerState::Overdue
        } else if report.has(HeldPhase::Refused) {
            WorkerState::Refused
        } else if report.has(HeldPhase::Draining) {
            WorkerState::Draining
        } else if report.has(HeldPhase::Restoring) {
            WorkerState::Restoring
        } else if report.is_idle() {
            WorkerState::Idle
        } else {
            WorkerState::Active
        }
    }
}

impl Roster {
    /// Creates the roster of a group: empty.
    #[must_use]
    pub fn new(group: &str) -> Roster {
        Roster { group: group.to_owned(), reports: BTreeMap::new() }
    }

    /// Takes in a record of `<group>_workers`, heard at this time by our clock. A record from before we listened was
    /// heard when it was said (`None`). One that is no report says nothing.
    pub fn hear(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, heard: Option<Millis>) {
        match value.map(Report::from_json) {
            Some(Ok(report)) => {
                let at = heard.unwrap_or(report.at);
                self.reports.insert(report.worker.clone(), Heard { report, at });
            }
            Some(Err(_)) => {}
            None => {
                let name = key.map(String::from_utf8_lossy);
                if let Some(name) = name {
                    self.reports.remove(name.as_ref());
                }
            }
        }
    }

    /// Whether a member of the group says what it holds.
    #[must_use]
    pub fn speaks(&self, now: Millis) -> bool {
        self.members().any(|heard| !heard.is_dropped(now))
    }

    fn members(&self) -> impl Iterator<Item = &Heard> {
        self.reports.values().filter(|heard| heard.report.group.as_ref() == Some(&self.group))
    }

    /// Who holds this partition, and what happens to it. `topic` is `None` for the main one. If two say so, the one
    /// that is heard and doesn't give it up.
    #[must_use]
    pub fn holder(
        &self,
        topic: Option<&str>,
        partition: PartitionId,
        now: Millis,
    ) -> Option<(&str, Option<Phase>)> {
        let holders = self.members().filter(|heard| !heard.is_dropped(now)).filter_map(|heard| {
            let one = |held: &&Held| held.topic.as_deref() == topic && held.partition == partition;
            let said = heard.report.partitions.iter().find(one).map(|held| Phase::from(held.phase));
            if said.is_none() && !(topic.is_none() && holds(&heard.report.held, partition)) {
                return None;
            }
            let phase = if heard.is_overdue(now) { Some(Phase::Overdue) } else { said };
            Some((heard, phase))
        });
        let doubtful = |phase: Option<Phase>| match phase {
            Some(Phase::Overdue) => 2,
            Some(Phase::Draining) => 1,
            _ => 0,
        };
        let best = holders.min_by_key(|(heard, phase)| (doubtful(*phase), std::cmp::Reverse(heard.at)));
        best.map(|(heard, phase)| (heard.report.worker.as_str(), phase))
    }

    /// All processes, by name, but for those that are silent for very long.
    #[must_use]
    pub fn workers(&self, now: Millis) -> Vec<WorkerStatus> {
        let shown = self.reports.values().filter(|heard| heard.silence(now) < FORGOTTEN);
        let worker = |heard: &Heard| {
            let state = WorkerState::of(heard, now);
            let report = &heard.report;
            // Old numbers say nothing.
            let number = |value: f64| if state == WorkerState::Overdue { 0.0 } else { value };
            WorkerStatus {
                name: report.worker.clone(),
                kind: report.kind.clone(),
                state,
                rate: number(report.rate),
                busy: number(report.busy),
                cpu: number(report.cpu),
                version: report.version.clone(),
                held: report.held.clone(),
                not_ready: report.not_ready.clone(),
            }
        };
        shown.map(worker).collect()
    }
}

/// Whether ranges such as `0-3,7` contain a partition.
fn holds(ranges: &str, partition: PartitionId) -> bool {
    parse(ranges).any(|range| range.contains(&partition.0))
}

/// Reports for tests.
#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::status) fn report(worker: &str, at: i64, held: &str) -> Report {
        Report {
            worker: worker.to_owned(),
            kind: Kind::Worker,
            at: Millis(at),
            since: Millis(0),
            every: 1000,
            version: "0.1.0".to_owned(),
            host: "h".to_owned(),
            group: Some("g".to_owned()),
            not_ready: None,
            rate: 500.0,
            busy: 0.5,
            cpu: 0.25,
            load: None,
            records: 7,
            in_flight: 0,
            generators: 0,
            rebalances: 0,
            peer: None,
            from: None,
            to: None,
            held: held.to_owned(),
            partitions: Vec::new(),
            released: Vec::new(),
        }
    }

    fn held(partition: i32, phase: HeldPhase) -> Held {
        let partition = PartitionId(partition);
        Held { topic: None, partition, phase, position: None, since: Millis(0), assigned: None }
    }

    fn hear(roster: &mut Roster, report: &Report) {
        roster.hear(Some(report.worker.as_bytes()), Some(&report.to_json()), None);
    }

    #[test]
    fn a_partition_belongs_to_who_says_so_and_is_heard() {
        let mut roster = Roster::new("g");
        let now = Millis(100_000);
        assert!(!roster.speaks(now));
        let mut gives_up = report("a", 99_500, "0-3");
        gives_up.partitions = vec![held(2, HeldPhase::Draining), held(3, HeldPhase::Active)];
        hear(&mut roster, &gives_up);
        let mut takes_over = report("b", 99_400, "2");
        takes_over.partitions = vec![held(2, HeldPhase::Restoring)];
        hear(&mut roster, &takes_over);
        let holder = |id| roster.holder(None, PartitionId(id), now);
        assert_eq!(holder(0), Some(("a", None)), "left out of the list, but held");
        assert_eq!(holder(2), Some(("b", Some(Phase::Restoring))));
        assert_eq!(holder(3), Some(("a", Some(Phase::Active))));
        assert_eq!(holder(4), None);
        assert_eq!(roster.holder(Some("other"), PartitionId(0), now), None, "held is about the main topic");
        assert!(roster.speaks(now));
    }

    #[test]
    fn who_is_silent_is_overdue_and_then_no_owner() {
        let mut roster = Roster::new("g");
        hear(&mut roster, &report("a", 100_000, "0"));
        let holder = |at| roster.holder(None, PartitionId(0), Millis(at));
        assert_eq!(holder(102_000), Some(("a", None)));
        assert_eq!(holder(104_000), Some(("a", Some(Phase::Overdue))));
        assert_eq!(holder(112_000), None);
        assert!(!roster.speaks(Millis(112_000)));
        assert_eq!(roster.workers(Millis(112_000))[0].state, WorkerState::Overdue);
        assert_eq!(roster.workers(Millis(100_000 + FORGOTTEN)), []);
    }

    #[test]
    fn who_is_of_another_group_or_kind_is_listed_and_owns_nothing() {
        let mut roster = Roster::new("g");
        let now = Millis(100_000);
        let of = |worker: &str, kind: &str, group: Option<&str>| Report {
            kind: Kind::from(kind.to_owned()),
            group: group.map(str::to_owned),
            ..report(worker, 99_500, "0-3")
        };
        hear(&mut roster, &of("d", "downsample", Some("g_1m")));
        hear(&mut roster, &of("r", "source", None));
        hear(&mut roster, &of("m", "mirror", None));
        assert!(!roster.speaks(now));
        assert_eq!(roster.holder(None, PartitionId(0), now), None);
        let listed = roster.workers(now);
        let kinds: Vec<&str> = listed.iter().map(|worker| worker.kind.as_str()).collect();
        assert_eq!(kinds, ["downsample", "mirror", "source"]);
        let mut minutes = Roster::new("g_1m");
        hear(&mut minutes, &of("d", "downsample", Some("g_1m")));
        assert_eq!(minutes.holder(None, PartitionId(0), now), Some(("d", None)), "status --group g_1m");
    }

    #[test]
    fn a_worker_whose_clock_differs_is_not_overdue() {
        let mut roster = Roster::new("g");
        let said = report("a", 5_000, "0");
        roster.hear(Some(b"a"), Some(&said.to_json()), Some(Millis(100_000)));
        assert_eq!(roster.workers(Millis(101_000))[0].state, WorkerState::Active);
    }

    #[test]
    fn a_worker_is_what_its_partitions_are() {
        let mut roster = Roster::new("g");
        for (name, phases) in [
            ("draining", vec![HeldPhase::Active, HeldPhase::Draining]),
            ("restoring", vec![HeldPhase::Active, HeldPhase::Restoring]),
            ("refused", vec![HeldPhase::Refused]),
            ("idle", vec![]),
        ] {
            let mut said = report(name, 100_000, if phases.is_empty() { "" } else { "0" });
            said.partitions = phases.into_iter().map(|phase| held(0, phase)).collect();
            hear(&mut roster, &said);
        }
        for worker in roster.workers(Millis(100_500)) {
            assert_eq!(worker.state.as_str(), worker.name);
        }
        roster.hear(Some(b"idle"), None, None);
        roster.hear(Some(b"x"), Some(b"no report"), None);
        assert_eq!(roster.workers(Millis(100_500)).len(), 3);
    }

    #[test]
    fn ranges_hold_what_they_name() {
        for (ranges, partition, is_in) in [
            ("0-3,7", 2, true),
            ("0-3,7", 7, true),
            ("0-3, 7", 7, true),
            ("0-3,7", 4, false),
            ("", 0, false),
            ("x-3", 2, false),
        ] {
            assert_eq!(holds(ranges, PartitionId(partition)), is_in, "{ranges} {partition}");
        }
    }
}
