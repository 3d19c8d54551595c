//! The report of a run: markdown, printed and appended to a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::delays::{Delays, Stretch, Waited};
use crate::faults::Revocations;
use crate::fleet::{SLOW_PARTITION, SLOW_WORK};
use crate::options::{Delivery, Options};
use crate::schedule::Kind;

/// The outcome of one fault.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The longest time that any partition stood still, from the fault's beginning to recovery.
    pub standstill: Duration,
    /// From its end until everything produced by then was committed; `None`: the next fault came first.
    pub recovery: Option<Duration>,
    /// From its beginning to recovery, or to the next fault.
    pub stretch: Stretch,
}

/// When alerts became visible while nothing failed.
#[derive(Debug, Default)]
pub struct Visible {
    pub calms: usize,
    /// Without the slow generators' own alerts.
    pub all: Delays,
    pub beside_the_slow: Delays,
    pub of_the_slow: Delays,
    pub waited: Waited,
}

/// Figures of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub faults: BTreeMap<Kind, Vec<Observation>>,
    /// From reading to visible alert, by the kind of fault at the time.
    pub delays: BTreeMap<Kind, Delays>,
    pub visible: Visible,
    pub kills: usize,
    pub revocations: Revocations,
    /// Workers that ended because the broker fenced their name, and were replaced.
    pub fenced: usize,
    pub rebalances: [usize; 3],
    pub workers_started: usize,
    pub refused_commits: usize,
    pub producers_anew: usize,
    /// Clients that didn't rejoin by themselves.
    pub clients_anew: usize,
    pub took: Duration,
    pub records: u64,
    /// Readings that the feed's own client wrote a second time.
    pub surplus: u64,
    pub partitions: i32,
    pub alerts: usize,
    pub dead_letters: usize,
    pub aggregates: usize,
    /// Readings too late for their window.
    pub late: u64,
    /// At-least-once.
    pub repeated_alerts: usize,
    pub repeated_letters: usize,
    pub repeated_aggregates: usize,
    pub states: usize,
    pub gaps: BTreeMap<i32, Duration>,
    pub verdict: String,
}

impl Report {
    pub fn to_markdown(&self, options: &Options) -> String {
        let mut text = String::new();
        let count: usize = self.faults.values().map(Vec::len).sum();
        let [assigned, revoked, lost] = self.rebalances;
        let gap = self.gaps.values().max().copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "### Seed {}, {count} faults, {} protocol, {}: {}\n\n\
             {} s; {} records in {} partitions, {} alerts, {} dead letters, {} states, {} aggregates compared ({} readings were too late); {} kills, {} workers started; \
             rebalances: {assigned} assigned, {revoked} revoked, {lost} lost; {} commits refused and repeated, {} producers and {} consumers recreated; \
             {} of {} workers stopped while they gave partitions back; the longest gap of a partition {} s.\n",
            options.seed,
            options.protocol.name(),
            options.delivery.name(),
            self.verdict,
            self.took.as_secs(),
            self.records,
            self.partitions,
            self.alerts,
            self.dead_letters,
            self.states,
            self.aggregates,
            self.late,
            self.kills,
            self.workers_started,
            self.refused_commits,
            self.producers_anew,
            self.clients_anew,
            self.revocations.met,
            self.revocations.tried,
            seconds(gap),
        );
        if options.delivery == Delivery::AtLeastOnce {
            let _ = writeln!(
                text,
                "{} alerts, {} dead letters and {} aggregates are repeats, each the same as the first.\n",
                self.repeated_alerts, self.repeated_letters, self.repeated_aggregates
            );
        }
        if self.surplus > 0 {
            let _ = writeln!(
                text,
                "{} readings are in the log twice: the feed's client wrote them so.\n",
                self.surplus
            );
        }
        if self.fenced > 0 {
            let _ = writeln!(
                text,
                "{} workers ended, fenced by their own name, and were replaced.\n",
                self.fenced
            );
        }
        let _ = writeln!(text, "{}", self.visible.to_markdown());
        let _ = writeln!(
            text,
            "| fault | times | a partition stood still: median, longest | recovered after: median, longest | \
             an alert visible after: median, 99 %, longest |\n|---|---|---|---|---|"
        );
        for (kind, observations) in &self.faults {
            let standstill: Vec<Duration> = observations.iter().map(|one| one.standstill).collect();
            let recovery: Vec<Duration> = observations.iter().filter_map(|one| one.recovery).collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                kind.name(),
                observations.len(),
                spread(standstill),
                spread(recovery),
                self.delays.get(kind).map_or("-".to_owned(), percentiles)
            );
        }
        let gaps: Vec<String> =
            self.gaps.iter().map(|(id, gap)| format!("{id}: {}", seconds(*gap))).collect();
        let _ = writeln!(text, "\nThe longest gap of each partition, in seconds: {}.\n", gaps.join(", "));
        text
    }
}

impl Visible {
    fn to_markdown(&self) -> String {
        let Waited { beside, elsewhere, too_busy } = self.waited;
        let mut text = format!(
            "While nothing failed ({} stretches) alerts became visible after (median, 99 %, longest) {}, of {}; in partition \
             {SLOW_PARTITION}, which has the slow generator, after {}, of {}; the slow one's own after {}. While its work of {} s went \
             on, {} of {} alerts of its partition waited for it, and {} of {} of the other partitions.",
            self.calms,
            percentiles(&self.all),
            self.all.len(),
            percentiles(&self.beside_the_slow),
            self.beside_the_slow.len(),
            percentiles(&self.of_the_slow),
            SLOW_WORK.as_secs(),
            beside.late,
            beside.of,
            elsewhere.late,
            elsewhere.of,
        );
        if too_busy > 0 {
            let _ = write!(text, " In {too_busy} stretches the machine was too busy to tell.");
        }
        text.push('\n');
        text
    }
}

/// Appends to the file, and creates it if it's missing.
pub fn append(path: &Path, text: &str) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .unwrap_or_else(|error| panic!("the report can't be written to {}: {error}", path.display()));
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    match times.last() {
        None => "-".to_owned(),
        Some(longest) => format!("{} s, {} s", seconds(times[times.len() / 2]), seconds(*longest)),
    }
}

fn percentiles(delays: &Delays) -> String {
    let each: Vec<String> = [50, 99, 100]
        .into_iter()
        .filter_map(|percent| delays.percentile(percent))
        .map(|delay| format!("{:.2} s", delay.as_secs_f64()))
        .collect();
    if each.is_empty() { "-".to_owned() } else { each.join(", ") }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
