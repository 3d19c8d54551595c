//! `genwatch status`: how far the group is, partition by partition.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::{ClusterOptions, Failure};
use crate::kafka::admin::Cluster;
use crate::kafka::group::{Group, Progress};
use crate::log::{Millis, Offset, PartitionId};

/// A partition is judged by what it does in this time.
const LOOK: Duration = Duration::from_millis(1500);
/// A partition that is this close behind is keeping up.
const NEAR: Duration = Duration::from_secs(10);

/// Show how far the group is: per partition its owner, committed offset, end, lag, and a verdict.
///
/// Verdicts: OK (keeps up), BEHIND (works, but the oldest waiting reading is more than 10 s old), STALLED (has readings and
/// an owner, and commits nothing), UNOWNED (has readings and no owner).
#[derive(Debug, Args)]
pub struct Options {
    /// One JSON document (with --watch one a line).
    #[arg(long, env = "GENWATCH_JSON")]
    json: bool,

    /// Show it again every two seconds, until stopped.
    #[arg(long, env = "GENWATCH_WATCH")]
    watch: bool,

    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(Debug, Serialize)]
struct Status {
    group: String,
    topic: String,
    partitions: Vec<PartitionStatus>,
}

#[derive(Debug, Serialize)]
struct PartitionStatus {
    partition: PartitionId,
    owner: Option<String>,
    committed: Option<Offset>,
    end: Offset,
    lag: i64,
    time_lag_ms: i64,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verdict {
    Ok,
    Behind,
    Stalled,
    Unowned,
}

impl Verdict {
    fn of(before: &Progress, after: &Progress, owned: bool, time_lag: Duration) -> Verdict {
        match (after.lag(), owned) {
            (0, _) => Verdict::Ok,
            (_, false) => Verdict::Unowned,
            _ if after.committed <= before.committed && before.lag() > 0 && time_lag > LOOK => {
                Verdict::Stalled
            }
            _ if time_lag > NEAR => Verdict::Behind,
            _ => Verdict::Ok,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "OK",
            Verdict::Behind => "BEHIND",
            Verdict::Stalled => "STALLED",
            Verdict::Unowned => "UNOWNED",
        }
    }
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let stop = super::stop_on_signals()?;
    let connection = options.cluster.connection()?;
    let cluster = Cluster::connect(&connection)?;
    let group = Group::new(&connection, &cluster, &options.cluster.group, &options.cluster.topic)?;
    let mut out = std::io::stdout().lock();
    loop {
        let status = look(&group, options)?;
        if options.json {
            serde_json::to_writer(&mut out, &status)?;
            writeln!(out)?;
        } else {
            print(&mut out, &status)?;
        }
        out.flush()?;
        if !options.watch {
            return Ok(());
        }
        for _ in 0..20 {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn look(group: &Group<'_>, options: &Options) -> Result<Status, Failure> {
    let before = group.progress()?;
    let after = if before.values().any(|progress| progress.lag() > 0) {
        std::thread::sleep(LOOK);
        group.progress()?
    } else {
        before.clone()
    };
    let owners = group.owners()?;
    let waiting = group.oldest_waiting(&after)?;
    let partitions =
        after.iter().map(|(id, progress)| judge(*id, &before, progress, &owners, &waiting)).collect();
    Ok(Status { group: options.cluster.group.clone(), topic: options.cluster.topic.clone(), partitions })
}

fn judge(
    id: PartitionId,
    before: &BTreeMap<PartitionId, Progress>,
    after: &Progress,
    owners: &BTreeMap<PartitionId, String>,
    waiting: &BTreeMap<PartitionId, Millis>,
) -> PartitionStatus {
    let now = Millis(jiff::Timestamp::now().as_millisecond());
    let time_lag_ms = waiting.get(&id).map_or(0, |at| now.since(*at).max(0));
    let time_lag = Duration::from_millis(u64::try_from(time_lag_ms).unwrap_or(0));
    let owner = owners.get(&id).cloned();
    PartitionStatus {
        partition: id,
        verdict: Verdict::of(before.get(&id).unwrap_or(after), after, owner.is_some(), time_lag),
        owner,
        committed: after.committed,
        end: after.end,
        lag: after.lag(),
        time_lag_ms,
    }
}

fn print(out: &mut impl std::io::Write, status: &Status) -> std::io::Result<()> {
    let owners = status.partitions.iter().filter_map(|p| p.owner.as_deref());
    let width = owners.map(str::len).max().unwrap_or(0).max("OWNER".len());
    writeln!(out, "group {}, topic {}", status.group, status.topic)?;
    writeln!(
        out,
        "{:>9}  {:width$}  {:>12}  {:>12}  {:>10}  {:>9}  VERDICT",
        "PARTITION", "OWNER", "COMMITTED", "END", "LAG", "TIME LAG"
    )?;
    for p in &status.partitions {
        writeln!(
            out,
            "{:>9}  {:width$}  {:>12}  {:>12}  {:>10}  {:>8.1}s  {}",
            p.partition,
            p.owner.as_deref().unwrap_or("-"),
            p.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
            p.end,
            p.lag,
            p.time_lag_ms as f64 / 1000.0,
            p.verdict.as_str()
        )?;
    }
    let total: i64 = status.partitions.iter().map(|p| p.lag).sum();
    writeln!(out, "lag in all: {total}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(committed: Option<i64>, end: i64) -> Progress {
        Progress { start: Offset(0), end: Offset(end), committed: committed.map(Offset) }
    }

    #[test]
    fn a_verdict_tells_standstill_from_slowness() {
        let (short, long) = (Duration::from_secs(3), Duration::from_secs(60));
        let verdict = |before, after, owned, time_lag| Verdict::of(&before, &after, owned, time_lag);
        let at = progress;
        assert_eq!(verdict(at(Some(10), 10), at(Some(10), 10), false, Duration::ZERO), Verdict::Ok);
        assert_eq!(verdict(at(Some(5), 10), at(Some(5), 10), false, short), Verdict::Unowned);
        assert_eq!(verdict(at(Some(5), 10), at(Some(5), 10), true, short), Verdict::Stalled);
        assert_eq!(verdict(at(Some(5), 10), at(Some(6), 10), true, short), Verdict::Ok);
        assert_eq!(verdict(at(Some(5), 10), at(Some(6), 10), true, long), Verdict::Behind);
        assert_eq!(verdict(at(None, 10), at(None, 10), true, long), Verdict::Stalled);
    }
}
