//! `genwatch status`: the group's progress, partition by partition.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;
use genwatch_core::types::{Millis, Offset, PartitionId};
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::config::Connection;
use genwatch_kafka::error::Chain;
use genwatch_kafka::group::{Group, GroupError, Progress};
use serde::Serialize;

use super::terminal::printable;
use super::{ClusterOptions, Failure};

/// The observation time on which a partition's verdict is based.
const LOOK: Duration = Duration::from_millis(1500);
/// How often `--watch` shows the status.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How often an outage is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);
/// A partition this close behind keeps up.
const NEAR: Duration = Duration::from_secs(10);

/// Show the group's progress: per partition its owner, committed offset, end, lag, and a verdict.
///
/// Shows --topic, and the other topics that the group commits to: for a sink (--group genwatch_influx) alerts and
/// aggregates too.
///
/// Verdicts: OK (keeps up), BEHIND (makes progress, but the oldest waiting record is more than 10 s old), STALLED (has
/// records and an owner, but commits nothing), UNOWNED (has records, but no owner).
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// One JSON document (with --watch one a line).
    #[arg(long, env = "GENWATCH_JSON")]
    json: bool,

    /// Show it every two seconds, with the time, until stopped. Waits out an outage of Kafka.
    #[arg(long, env = "GENWATCH_WATCH")]
    watch: bool,

    #[command(flatten)]
    cluster: ClusterOptions,
}

#[derive(Debug, Serialize)]
struct Status {
    group: String,
    #[serde(flatten)]
    main: TopicStatus,
    /// The other topics that the group commits to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    other_topics: Vec<TopicStatus>,
    /// Time of the observation; only with `--watch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Millis>,
}

#[derive(Debug, Serialize)]
struct TopicStatus {
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
    let looks = looks(options.cluster.connection()?, options.clone())?;
    let mut out = std::io::stdout().lock();
    let mut seen = false;
    let mut complained: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let status = match looks.recv_timeout(Duration::from_millis(100)) {
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Ok(Err(error)) if seen => {
                if complained.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY) {
                    tracing::warn!(reason = %Chain(&error), "the group's status is unknown: asking again");
                    complained = Some(Instant::now());
                }
                continue;
            }
            Ok(status) => status?,
        };
        if options.json {
            serde_json::to_writer(&mut out, &status)?;
            writeln!(out)?;
        } else {
            if seen {
                writeln!(out)?;
            }
            print(&mut out, &status)?;
        }
        out.flush()?;
        (seen, complained) = (true, None);
    }
    Ok(())
}

/// Asks once, or repeatedly with `--watch`, on its own thread: a request may take ten seconds while Kafka is away, and
/// Ctrl-C must not wait for it. The thread ends when the receiver is gone, or with the process.
fn looks(connection: Connection, options: Options) -> std::io::Result<Receiver<Result<Status, GroupError>>> {
    // At most one is ahead of what is printed.
    let (sender, receiver) = sync_channel(1);
    let look_on = move |sender: &SyncSender<_>| -> Result<(), GroupError> {
        let cluster = Cluster::connect(&connection)?;
        let group = Group::new(&connection, &cluster, &options.cluster.group, &options.cluster.topic)?;
        while sender.send(look(&group, &options)).is_ok() && options.watch {
            std::thread::sleep(WATCH_EVERY);
        }
        Ok(())
    };
    std::thread::Builder::new().name("looks".to_owned()).spawn(move || {
        if let Err(error) = look_on(&sender) {
            let _ = sender.send(Err(error));
        }
    })?;
    Ok(receiver)
}

fn look(group: &Group<'_>, options: &Options) -> Result<Status, GroupError> {
    let topics = options.cluster.topics();
    let others = topics.all().into_iter().map(|(name, _)| name).filter(|name| *name != group.topic());
    let mut candidates = Vec::new();
    for other in others.map(|name| group.on(name)) {
        if other.sees_topic()? {
            candidates.push((other.has_committed()?, other));
        }
    }
    // This comes first: it names a missing topic, and shows that the coordinator answers. librdkafka can fail an
    // assertion when asked for members while the coordinator doesn't answer.
    group.has_committed()?;
    let owners = group.owners()?;
    let mut groups = vec![group.on(group.topic())];
    let read = |(committed, other): &(bool, Group<'_>)| *committed || owners.contains_key(other.topic());
    groups.extend(candidates.into_iter().filter(read).map(|(_, other)| other));
    let progress = || groups.iter().map(Group::progress).collect::<Result<Vec<_>, _>>();
    let before = progress()?;
    let after = if before.iter().flat_map(BTreeMap::values).any(|progress| progress.lag() > 0) {
        std::thread::sleep(LOOK);
        progress()?
    } else {
        before.clone()
    };
    let (nobody, mut statuses) = (BTreeMap::new(), Vec::new());
    for ((group, before), after) in groups.iter().zip(&before).zip(&after) {
        let owners = owners.get(group.topic()).unwrap_or(&nobody);
        let waiting = group.oldest_waiting(after)?;
        let partitions = after.iter().map(|(id, progress)| judge(*id, before, progress, owners, &waiting));
        statuses.push(TopicStatus { topic: group.topic().to_owned(), partitions: partitions.collect() });
    }
    let main = statuses.remove(0);
    Ok(Status {
        group: options.cluster.group.clone(),
        main,
        other_topics: statuses,
        at: options.watch.then(|| Millis(jiff::Timestamp::now().as_millisecond())),
    })
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
    let topics: Vec<&TopicStatus> = std::iter::once(&status.main).chain(&status.other_topics).collect();
    let names: Vec<&str> = topics.iter().map(|of| of.topic.as_str()).collect();
    if let Some(at) = status.at.and_then(|at| jiff::Timestamp::from_millisecond(at.0).ok()) {
        write!(out, "{}  ", at.strftime("%Y-%m-%dT%H:%M:%SZ"))?;
    }
    let several = names.len() > 1;
    writeln!(out, "group {}, topic{} {}", status.group, if several { "s" } else { "" }, names.join(", "))?;
    // One topic needs no column.
    let wide = if several { names.iter().map(|name| name.len()).max().unwrap_or(0) + 2 } else { 0 };
    let column = |text: &str| if several { format!("{text:wide$}") } else { String::new() };
    let rows = || topics.iter().flat_map(|of| of.partitions.iter().map(|p| (of.topic.as_str(), p)));
    // Any member of the group chooses its own client id.
    let owner = |p: &PartitionStatus| printable(p.owner.as_deref().unwrap_or("-")).into_owned();
    let width = rows().map(|(_, p)| owner(p).chars().count()).max().unwrap_or(0).max("OWNER".len());
    writeln!(
        out,
        "{}{:>9}  {:width$}  {:>12}  {:>12}  {:>10}  {:>9}  VERDICT",
        column("TOPIC"),
        "PARTITION",
        "OWNER",
        "COMMITTED",
        "END",
        "LAG",
        "TIME LAG"
    )?;
    for (topic, p) in rows() {
        writeln!(
            out,
            "{}{:>9}  {:width$}  {:>12}  {:>12}  {:>10}  {:>8.1}s  {}",
            column(topic),
            p.partition,
            owner(p),
            p.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
            p.end,
            p.lag,
            p.time_lag_ms as f64 / 1000.0,
            p.verdict.as_str()
        )?;
    }
    let total: i64 = rows().map(|(_, p)| p.lag).sum();
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

    #[test]
    fn a_client_id_with_escape_sequences_is_shown_and_not_done() {
        let mut partition = judge(
            PartitionId(0),
            &BTreeMap::new(),
            &progress(Some(1), 1),
            &BTreeMap::new(),
            &BTreeMap::new(),
        );
        partition.owner = Some("me\u{1b}[2J\nOK".to_owned());
        let main = TopicStatus { topic: "t".to_owned(), partitions: vec![partition] };
        let status = Status { group: "g".to_owned(), main, other_topics: vec![], at: None };
        let mut shown = Vec::new();
        print(&mut shown, &status).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains("me\\u{1b}[2J\\u{a}OK  "), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert_eq!(shown.lines().count(), 4, "{shown}");
    }
}
