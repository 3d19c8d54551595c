//! Who held which partition when, from what workers say of themselves.
//!
//! A holding is one worker's time with one partition. Spans and gaps are derived from the holdings each time
//! they are shown, because what ends a holding may become known late: the former owner says a second later
//! when it gave the partition up, or never, if it was killed. So the order in which reports arrive doesn't
//! matter, and a restart that reads them again shows the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use genwatch_core::report::{Held, HeldPhase, Report};
use genwatch_core::types::{Millis, PartitionId};
use serde::Serialize;

/// How long holdings are kept.
pub const KEPT: i64 = 24 * 60 * 60 * 1000;
/// A shorter time without an owner is none.
const GAP: i64 = 50;
/// Holdings of one partition, at most: a group that flaps all day.
const HOLDINGS: usize = 1000;
/// The most partitions; a report can't name others.
const PARTITIONS: i32 = 100_000;

/// One worker's time with one partition.
#[derive(Clone, Debug)]
struct Holding {
    worker: Arc<str>,
    from: Millis,
    /// The phases and when they began, at least one.
    phases: Vec<(HeldPhase, Millis)>,
    /// The last report that it holds the partition, and when the next one was due.
    said: Millis,
    due: Millis,
    /// When it gave the partition up, as far as that is known.
    end: Option<Millis>,
}

/// The holdings of all partitions.
#[derive(Debug, Default)]
pub struct Timeline {
    rows: BTreeMap<PartitionId, Vec<Holding>>,
    /// The process of each worker by its start: another one under the same name holds nothing of the former.
    started: BTreeMap<Arc<str>, Millis>,
}

/// The timeline as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// Its begin.
    pub from: Millis,
    /// Its end.
    pub to: Millis,
    /// Partition by partition.
    pub rows: Vec<Row>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its number.
    pub partition: PartitionId,
    /// Oldest first; they don't overlap.
    pub spans: Vec<Span>,
}

/// A time in which one thing was true of a partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Span {
    /// The worker; `None` in a gap.
    pub owner: Option<String>,
    /// What happened.
    pub phase: &'static str,
    /// When it began.
    pub from: Millis,
    /// When it ended; `None`: it goes on.
    pub to: Option<Millis>,
}

/// Who holds a partition now.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// The worker.
    pub worker: String,
    /// What happens to the partition.
    pub phase: HeldPhase,
    /// When that began.
    pub since: Millis,
}

impl Timeline {
    /// Takes in a report of a worker of the group, and all partitions that it holds.
    pub fn report(&mut self, report: &Report, held: &BTreeSet<PartitionId>) {
        let worker: Arc<str> = report.worker.as_str().into();
        let before = self.started.insert(Arc::clone(&worker), report.since);
        if before.is_some_and(|before| before < report.since) {
            self.end_at_last_report(&worker);
        }
        let mine = |held: &&Held| held.topic.is_none();
        let told: BTreeMap<PartitionId, &Held> =
            report.partitions.iter().filter(mine).map(|held| (held.partition, held)).collect();
        let released = report.released.iter().filter(|released| released.topic.is_none());
        for released in released.filter(|released| is_partition(released.partition)) {
            self.released(&worker, released.partition, released.at);
        }
        for (id, holdings) in &mut self.rows {
            let Some(holding) = open_of(holdings, &worker) else { continue };
            if !held.contains(id) {
                // It doesn't say when.
                holding.end = Some(report.at);
            }
        }
        let due = report.due();
        for id in held.iter().filter(|id| is_partition(**id)) {
            self.holds(&worker, *id, told.get(id).copied(), report.at, due);
        }
    }

    fn holds(&mut self, worker: &Arc<str>, id: PartitionId, told: Option<&Held>, at: Millis, due: Millis) {
        let holdings = self.rows.entry(id).or_default();
        let begun = told.map(|held| held.assigned.unwrap_or(held.since));
        if let Some(open) = open_of(holdings, worker) {
            // Given up and taken again between two reports.
            if begun.is_some_and(|begun| begun > open.said) {
                open.end = Some(open.said);
            }
        }
        if open_of(holdings, worker).is_none() {
            let from = begun.unwrap_or(at);
            let mut phases = Vec::new();
            match told {
                Some(held) if held.assigned.is_some_and(|assigned| assigned < held.since) => {
                    phases.push((HeldPhase::Restoring, from));
                    phases.push((held.phase, held.since));
                }
                Some(held) => phases.push((held.phase, held.since.max(from))),
                // It was left out of the list, as there are many that are simply worked.
                None => phases.push((HeldPhase::Active, from)),
            }
            holdings.push(Holding { worker: Arc::clone(worker), from, phases, said: at, due, end: None });
            if holdings.len() > HOLDINGS {
                holdings.remove(0);
            }
        }
        let Some(open) = open_of(holdings, worker) else { return };
        if at >= open.said {
            (open.said, open.due) = (at, due);
        }
        let (phase, since) = told.map_or((HeldPhase::Active, at), |held| (held.phase, held.since));
        if open.phases.last().is_none_or(|(last, from)| *last != phase && since >= *from) {
            open.phases.push((phase, since));
        }
    }

    /// A worker gave a partition up at this time.
    fn released(&mut self, worker: &str, id: PartitionId, at: Millis) {
        let holdings = self.rows.entry(id).or_default();
        let last = holdings.iter_mut().rev().find(|holding| &*holding.worker == worker);
        // It may have taken the partition again since.
        if let Some(last) = last.filter(|last| last.from <= at && last.end.is_none_or(|end| end > at)) {
            last.end = Some(at);
        }
    }

    /// A worker has left, by its own account, at this time.
    pub fn left(&mut self, worker: &str, at: Millis) {
        self.started.remove(worker);
        for holdings in self.rows.values_mut() {
            if let Some(holding) = open_of(holdings, worker) {
                holding.end = Some(at.max(holding.from));
            }
        }
    }

    fn end_at_last_report(&mut self, worker: &str) {
        for holdings in self.rows.values_mut() {
            if let Some(holding) = open_of(holdings, worker) {
                holding.end = Some(holding.said);
            }
        }
    }

    /// Forgets what ended more than a day ago, and workers that hold nothing.
    pub fn forget(&mut self, now: Millis) {
        let oldest = Millis(now.0 - KEPT);
        for holdings in self.rows.values_mut() {
            holdings.retain(|holding| holding.end.unwrap_or(holding.said) >= oldest);
        }
        self.rows.retain(|_, holdings| !holdings.is_empty());
        let rows = &self.rows;
        let holds = |worker: &Arc<str>| rows.values().flatten().any(|holding| holding.worker == *worker);
        self.started.retain(|worker, since| since.0 >= oldest.0 || holds(worker));
    }

    /// Returns who holds a partition now; nobody, if its worker is overdue.
    #[must_use]
    pub fn owner(&self, id: PartitionId, now: Millis) -> Option<Owner> {
        let holdings = self.rows.get(&id)?;
        let open = holdings.iter().filter(|holding| holding.end.is_none() && now <= holding.due);
        let holding = open.max_by_key(|holding| holding.from)?;
        let (phase, since) = *holding.phases.last()?;
        Some(Owner { worker: holding.worker.to_string(), phase, since })
    }

    /// Returns when an open holding becomes overdue next: then what is shown changes without a report.
    #[must_use]
    pub fn next_due(&self) -> Option<Millis> {
        let open = self.rows.values().flatten().filter(|holding| holding.end.is_none());
        open.map(|holding| holding.due).min()
    }

    /// Returns spans and gaps from one time to another.
    #[must_use]
    pub fn show(&self, from: Millis, now: Millis) -> Shown {
        let row = |(id, holdings): (&PartitionId, &Vec<Holding>)| Row {
            partition: *id,
            spans: spans(holdings, from, now),
        };
        Shown { from, to: now, rows: self.rows.iter().map(row).collect() }
    }
}

/// The open holding of this worker among those of one partition.
fn open_of<'h>(holdings: &'h mut [Holding], worker: &str) -> Option<&'h mut Holding> {
    holdings.iter_mut().rev().find(|holding| holding.end.is_none() && &*holding.worker == worker)
}

fn is_partition(id: PartitionId) -> bool {
    (0..PARTITIONS).contains(&id.0)
}

/// Derives the spans of one partition.
fn spans(holdings: &[Holding], from: Millis, now: Millis) -> Vec<Span> {
    let mut sorted: Vec<&Holding> = holdings.iter().collect();
    sorted.sort_by_key(|holding| (holding.from, holding.end.is_none()));
    let mut spans = Vec::new();
    let mut heirs = sorted.iter().skip(1).map(|heir| heir.from);
    // Until when somebody held it.
    let mut until: Option<Millis> = None;
    for holding in &sorted {
        let end = end_of(holding, heirs.next(), now);
        if let Some(until) = until.filter(|until| holding.from.since(*until) >= GAP) {
            spans.push(Span { owner: None, phase: "gap", from: until, to: Some(holding.from) });
        }
        push_phases(&mut spans, holding, until.map_or(holding.from, |until| until.max(holding.from)), end);
        until = match end {
            Some(end) => Some(until.map_or(end, |until| until.max(end))),
            None => return clipped(spans, from),
        };
    }
    if let Some(until) = until.filter(|until| now.since(*until) >= GAP) {
        spans.push(Span { owner: None, phase: "gap", from: until, to: None });
    }
    clipped(spans, from)
}

/// Returns when a holding ended; `None`: it goes on.
fn end_of(holding: &Holding, heir: Option<Millis>, now: Millis) -> Option<Millis> {
    match (holding.end, heir) {
        // Whoever comes next has it, whatever the former one says.
        (Some(end), Some(heir)) => Some(end.min(heir)),
        (Some(end), None) => Some(end),
        // Killed: it held the partition as far as it said.
        (None, Some(heir)) if heir > holding.due => Some(holding.said),
        (None, Some(heir)) => Some(heir),
        (None, None) if now > holding.due => Some(holding.said),
        (None, None) => None,
    }
}

fn push_phases(spans: &mut Vec<Span>, holding: &Holding, begin: Millis, end: Option<Millis>) {
    for (index, (phase, since)) in holding.phases.iter().enumerate() {
        let from = (*since).max(begin);
        let next = holding.phases.get(index + 1).map(|(_, since)| *since);
        let to = match (next, end) {
            (Some(next), Some(end)) => Some(next.min(end)),
            (next, end) => next.or(end),
        };
        if to.is_none_or(|to| to > from) {
            let owner = Some(holding.worker.to_string());
            spans.push(Span { owner, phase: phase_name(*phase), from, to });
        }
    }
}

/// Leaves out what ended before.
fn clipped(mut spans: Vec<Span>, from: Millis) -> Vec<Span> {
    spans.retain(|span| span.to.is_none_or(|to| to > from));
    for span in &mut spans {
        span.from = span.from.max(from);
    }
    spans
}

/// The phase's name.
#[must_use]
pub fn phase_name(phase: HeldPhase) -> &'static str {
    match phase {
        HeldPhase::Restoring => "restoring",
        HeldPhase::Active => "active",
        HeldPhase::Draining => "draining",
        HeldPhase::Refused => "refused",
    }
}

#[cfg(test)]
mod tests {
    use genwatch_core::report::{Kind, Released};

    use super::*;

    const T: i64 = 1_766_400_000_000;

    /// What a worker says at this second: its partitions with phase, since and assigned, all in seconds.
    fn said(worker: &str, at: f64, held: &[(i32, HeldPhase, f64, Option<f64>)]) -> Report {
        let partitions = held.iter().map(|(id, phase, since, assigned)| Held {
            topic: None,
            partition: PartitionId(*id),
            phase: *phase,
            position: None,
            since: time(*since),
            assigned: assigned.map(time),
        });
        Report {
            worker: worker.to_owned(),
            kind: Kind::Worker,
            at: time(at),
            since: Millis(T),
            every: 1000,
            version: String::new(),
            host: String::new(),
            group: Some("g".to_owned()),
            not_ready: None,
            rate: 0.0,
            busy: 0.0,
            cpu: 0.0,
            load: None,
            records: 0,
            in_flight: 0,
            generators: 0,
            rebalances: 0,
            peer: None,
            from: None,
            to: None,
            held: String::new(),
            partitions: partitions.collect(),
            released: Vec::new(),
        }
    }

    fn time(seconds: f64) -> Millis {
        Millis(T + (seconds * 1000.0) as i64)
    }

    fn take(timeline: &mut Timeline, report: &Report) {
        let held = report.partitions.iter().map(|held| held.partition).collect();
        timeline.report(report, &held);
    }

    fn active(since: f64) -> (i32, HeldPhase, f64, Option<f64>) {
        (0, HeldPhase::Active, since, None)
    }

    /// The spans of partition 0 as text, in seconds.
    fn row(timeline: &Timeline, now: f64) -> Vec<String> {
        let shown = timeline.show(Millis(T), time(now));
        let seconds = |at: Millis| (at.0 - T) as f64 / 1000.0;
        let text = |span: &Span| {
            let owner = span.owner.as_deref().unwrap_or("-");
            let to = span.to.map_or("...".to_owned(), |to| seconds(to).to_string());
            format!("{owner} {} {}-{to}", span.phase, seconds(span.from))
        };
        shown.rows.first().map(|row| row.spans.iter().map(text).collect()).unwrap_or_default()
    }

    #[test]
    fn a_partition_that_is_restored_and_worked_has_both_phases() {
        let mut timeline = Timeline::default();
        take(&mut timeline, &said("a", 2.0, &[(0, HeldPhase::Active, 1.5, Some(1.0))]));
        take(&mut timeline, &said("a", 3.0, &[(0, HeldPhase::Active, 1.5, Some(1.0))]));
        assert_eq!(row(&timeline, 3.5), ["a restoring 1-1.5", "a active 1.5-..."]);
        take(&mut timeline, &said("a", 4.0, &[(0, HeldPhase::Draining, 3.6, Some(1.0))]));
        assert_eq!(row(&timeline, 4.0)[1..], ["a active 1.5-3.6", "a draining 3.6-..."]);
        assert_eq!(timeline.owner(PartitionId(0), time(4.0)).unwrap().phase, HeldPhase::Draining);
    }

    #[test]
    fn a_hand_over_has_a_gap_only_if_nobody_had_the_partition_for_a_while() {
        for (taken, gap) in [(5.02, false), (5.3, true)] {
            let mut timeline = Timeline::default();
            take(&mut timeline, &said("a", 4.0, &[active(1.0)]));
            // The heir reports first.
            take(&mut timeline, &said("b", 5.5, &[active(taken)]));
            let mut last = said("a", 5.9, &[]);
            last.released = vec![Released { topic: None, partition: PartitionId(0), at: time(5.0) }];
            take(&mut timeline, &last);
            let shown = row(&timeline, 6.0);
            assert_eq!(
                (shown[0].as_str(), shown.len()),
                ("a active 1-5", if gap { 3 } else { 2 }),
                "{shown:?}"
            );
            assert_eq!(shown.last().unwrap(), &format!("b active {taken}-..."));
            if gap {
                assert_eq!(shown[1], "- gap 5-5.3");
            }
        }
    }

    #[test]
    fn a_killed_worker_leaves_a_gap_from_its_last_report_to_its_heir() {
        let mut timeline = Timeline::default();
        take(&mut timeline, &said("a", 4.0, &[active(1.0)]));
        assert_eq!(row(&timeline, 5.0), ["a active 1-..."]);
        assert_eq!(row(&timeline, 7.5), ["a active 1-4", "- gap 4-..."]);
        assert_eq!(timeline.owner(PartitionId(0), time(7.5)), None);
        assert_eq!(timeline.next_due(), Some(time(7.0)));
        take(&mut timeline, &said("b", 14.5, &[(0, HeldPhase::Active, 14.2, Some(14.0))]));
        let shown = ["a active 1-4", "- gap 4-14", "b restoring 14-14.2", "b active 14.2-..."];
        assert_eq!(row(&timeline, 15.0), shown);
        // And an hour later, or after a restart.
        take(&mut timeline, &said("b", 3600.0, &[(0, HeldPhase::Active, 14.2, Some(14.0))]));
        assert_eq!(row(&timeline, 3600.5), shown);
    }

    #[test]
    fn who_leaves_says_so_and_then_nobody_has_the_partition() {
        let mut timeline = Timeline::default();
        take(&mut timeline, &said("a", 4.0, &[active(1.0)]));
        timeline.left("a", time(4.5));
        assert_eq!(row(&timeline, 4.52), ["a active 1-4.5"]);
        assert_eq!(row(&timeline, 10.0), ["a active 1-4.5", "- gap 4.5-..."]);
    }

    #[test]
    fn the_next_process_of_the_same_name_is_another_one() {
        let mut timeline = Timeline::default();
        take(&mut timeline, &said("a", 4.0, &[active(1.0)]));
        let mut again = said("a", 20.0, &[active(19.0)]);
        again.since = time(15.0);
        take(&mut timeline, &again);
        assert_eq!(row(&timeline, 20.0), ["a active 1-4", "- gap 4-19", "a active 19-..."]);
    }

    #[test]
    fn a_partition_that_left_and_came_back_between_two_reports_has_two_spans() {
        let mut timeline = Timeline::default();
        take(&mut timeline, &said("a", 4.0, &[active(1.0)]));
        let mut back = said("a", 5.0, &[active(4.8)]);
        back.released = vec![Released { topic: None, partition: PartitionId(0), at: time(4.2) }];
        take(&mut timeline, &back);
        take(&mut timeline, &back);
        assert_eq!(row(&timeline, 5.0), ["a active 1-4.2", "- gap 4.2-4.8", "a active 4.8-..."]);
    }

    #[test]
    fn partitions_that_a_report_left_out_are_worked() {
        let mut timeline = Timeline::default();
        let report = said("a", 2.0, &[]);
        timeline.report(&report, &BTreeSet::from([PartitionId(0), PartitionId(7)]));
        assert_eq!(row(&timeline, 2.5), ["a active 2-..."]);
        timeline.report(&said("a", 3.0, &[]), &BTreeSet::new());
        assert_eq!(row(&timeline, 3.2), ["a active 2-3", "- gap 3-..."]);
    }

    #[test]
    fn replayed_reports_change_nothing_and_absurd_partitions_take_no_memory() {
        let reports =
            [said("a", 2.0, &[active(1.0)]), said("a", 3.0, &[active(1.0)]), said("b", 9.0, &[active(8.0)])];
        let (mut once, mut twice) = (Timeline::default(), Timeline::default());
        reports.iter().for_each(|report| take(&mut once, report));
        reports.iter().for_each(|report| take(&mut twice, report));
        assert_eq!(row(&once, 10.0), row(&twice, 10.0));
        take(&mut once, &said("evil", 9.0, &[(i32::MAX, HeldPhase::Active, 1.0, None)]));
        assert_eq!(once.show(Millis(T), time(9.0)).rows.len(), 1);
        once.forget(Millis(T + KEPT + 3_600_000));
        assert!(once.rows.is_empty() && once.started.is_empty());
    }
}
