//! What a run tells: markdown, printed and appended to a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::options::Options;
use crate::schedule::Kind;

/// What one fault came to.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// The longest time that some partition stood still, from its beginning to recovery.
    pub standstill: Duration,
    /// From its end until all that had been produced till then was committed; `None`: the next fault came first.
    pub recovery: Option<Duration>,
}

/// Figures of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub faults: BTreeMap<Kind, Vec<Observation>>,
    pub kills: usize,
    /// Workers that ended as the broker took them for their own double, and were replaced.
    pub fenced: usize,
    pub rebalances: [usize; 3],
    pub workers_started: usize,
    pub refused_commits: usize,
    pub producers_anew: usize,
    pub took: Duration,
    pub records: u64,
    /// Readings that the feed's own client wrote a second time.
    pub surplus: u64,
    pub alerts: usize,
    pub dead_letters: usize,
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
            "### Seed {}, {count} faults, {} protocol: {}\n\n\
             {} s; {} records, {} alerts, {} dead letters, {} states compared; {} kills, {} workers started; rebalances: {assigned} \
             assigned, {revoked} revoked, {lost} lost; {} commits refused and repeated, {} producers made anew; the longest gap of a \
             partition {} s.\n",
            options.seed,
            options.protocol.name(),
            self.verdict,
            self.took.as_secs(),
            self.records,
            self.alerts,
            self.dead_letters,
            self.states,
            self.kills,
            self.workers_started,
            self.refused_commits,
            self.producers_anew,
            seconds(gap),
        );
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
        let _ = writeln!(
            text,
            "| fault | times | a partition stood still: median, longest | recovered after: median, longest |\n|---|---|---|---|"
        );
        for (kind, observations) in &self.faults {
            let standstill: Vec<Duration> = observations.iter().map(|one| one.standstill).collect();
            let recovery: Vec<Duration> = observations.iter().filter_map(|one| one.recovery).collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                kind.name(),
                observations.len(),
                spread(standstill),
                spread(recovery)
            );
        }
        let gaps: Vec<String> =
            self.gaps.iter().map(|(id, gap)| format!("{id}: {}", seconds(*gap))).collect();
        let _ = writeln!(text, "\nThe longest gap of each partition, in seconds: {}.\n", gaps.join(", "));
        text
    }
}

/// Appends to the file, which is made when it's missing.
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

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}
