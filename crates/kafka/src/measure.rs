//! Watches a group for some time, as the advisor needs it: how far it gets, what its workers say of themselves, and
//! which keys the readings have.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use genwatch_core::plan::seen::{KeySample, Place, Seen};
use genwatch_core::report::Report;
use genwatch_core::types::{Millis, PartitionId};

use super::admin::Cluster;
use super::config::Connection;
use super::group::{Group, GroupError, Progress};
use super::topic_reader::{StartAt, TopicReader, TopicReaderError};

/// How many readings the sample of keys has.
const SAMPLE: i64 = 100_000;
/// How long the sample may take.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Whoever is there has reported within this time, in milliseconds: the topic keeps the reports of a day.
const RECENT: i64 = 60_000;
/// How long one look at the reports waits for the next one.
const LOOK: Duration = Duration::from_millis(200);

/// Where to look.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// How the cluster is reached.
    pub connection: &'a Connection,
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The group.
    pub group: &'a str,
    /// The topic of its readings.
    pub topic: &'a str,
    /// The topic in which its workers say what they do.
    pub workers: &'a str,
}

/// Why a group can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The cluster or the topic is missing.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A topic can't be read.
    #[error(transparent)]
    Reader(#[from] TopicReaderError),
}

/// Watches the group for `span`, or until `go_on` says no: it is called several times a second, with the time that is
/// left.
///
/// # Errors
/// When a topic is missing or the cluster doesn't answer.
pub fn measure(
    subject: Subject<'_>,
    span: Duration,
    go_on: impl FnMut(Duration) -> bool,
) -> Result<Seen, MeasureError> {
    let group = subject.group()?;
    let mut reports = Reports::of(subject)?;
    let before = group.progress()?;
    let seconds = look_for(span, go_on, |wait| reports.listen(wait))?;
    let after = group.progress()?;
    let arrived =
        |(id, now): (&PartitionId, &Progress)| (*id, before.get(id).map_or(0, |then| now.end.0 - then.end.0));
    let mut weights: BTreeMap<PartitionId, i64> = after.iter().map(arrived).collect();
    if weights.values().sum::<i64>() == 0 {
        weights = after.iter().map(|(id, now)| (*id, now.end.0 - now.start.0)).collect();
    }
    let keys = sample(subject, &weights)?;
    let place = |progress: &Progress| Place { next: progress.next(), end: progress.end };
    let both =
        |(id, now): (&PartitionId, &Progress)| (*id, (place(before.get(id).unwrap_or(now)), place(now)));
    Ok(Seen { seconds, partitions: after.iter().map(both).collect(), reports: reports.heard, keys })
}

/// Looks again and again, for so long at a time, for `span` or until `go_on` says no; returns how many seconds it took.
fn look_for<E>(
    span: Duration,
    mut go_on: impl FnMut(Duration) -> bool,
    mut look: impl FnMut(Duration) -> Result<(), E>,
) -> Result<f64, E> {
    let begun = Instant::now();
    loop {
        let left = span.saturating_sub(begun.elapsed());
        if left.is_zero() || !go_on(left) {
            return Ok(begun.elapsed().as_secs_f64());
        }
        look(LOOK.min(left))?;
    }
}

/// Whether workers of the group say what they do.
///
/// # Errors
/// As [`measure`].
pub fn has_workers(subject: Subject<'_>) -> Result<bool, MeasureError> {
    Ok(!Reports::of(subject)?.heard.is_empty())
}

/// Counts the readings that are produced, a second, for `span` or until `go_on` says no.
///
/// # Errors
/// As [`measure`].
pub fn arrival(
    subject: Subject<'_>,
    span: Duration,
    go_on: impl FnMut(Duration) -> bool,
) -> Result<f64, MeasureError> {
    let group = subject.group()?;
    let end = || -> Result<i64, GroupError> { Ok(group.progress()?.values().map(|now| now.end.0).sum()) };
    let before = end()?;
    let sleep = |wait| {
        std::thread::sleep(wait);
        Ok::<(), MeasureError>(())
    };
    let seconds = look_for(span, go_on, sleep)?;
    Ok((end()? - before).max(0) as f64 / seconds.max(1e-3))
}

impl<'a> Subject<'a> {
    fn group(&self) -> Result<Group<'a>, GroupError> {
        Ok(Group::new(self.connection, self.cluster, self.group, self.topic)?)
    }
}

/// What the workers of the group say.
struct Reports<'a> {
    subject: Subject<'a>,
    /// The first worker of a group creates the topic.
    reader: Option<TopicReader>,
    heard: BTreeMap<String, Vec<Report>>,
}

impl<'a> Reports<'a> {
    /// The last report from before, of each worker that is there.
    fn of(subject: Subject<'a>) -> Result<Reports<'a>, TopicReaderError> {
        let mut reports = Reports { subject, reader: None, heard: BTreeMap::new() };
        reports.open()?;
        let deadline = Instant::now() + SAMPLE_TIMEOUT;
        while reports.reader.as_ref().is_some_and(|reader| !reader.at_end()) && Instant::now() < deadline {
            reports.listen(LOOK)?;
        }
        let now = super::clock::now();
        reports.heard.retain(|_, said| said.last().is_some_and(|last| !last.is_overdue(now)));
        reports.heard.values_mut().for_each(|said| drop(said.drain(..said.len() - 1)));
        Ok(reports)
    }

    fn open(&mut self) -> Result<(), TopicReaderError> {
        let Subject { connection, cluster, workers, .. } = self.subject;
        if cluster.topic(workers)?.is_some() {
            let since = Millis(super::clock::now().0 - RECENT);
            self.reader = Some(TopicReader::new(connection, cluster, workers, StartAt::Time(since))?);
        }
        Ok(())
    }

    /// Takes in what is said within this time.
    fn listen(&mut self, wait: Duration) -> Result<(), TopicReaderError> {
        let Reports { subject, reader: Some(reader), heard } = self else {
            std::thread::sleep(wait);
            return self.open();
        };
        reader.read(wait, |record| -> Result<(), TopicReaderError> {
            let name = record.key.map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default();
            match record.value.map(Report::from_json) {
                Some(Ok(report)) if report.group.as_deref() == Some(subject.group) => {
                    heard.entry(name).or_default().push(report);
                }
                Some(_) => {}
                // It has left.
                None => drop(heard.remove(&name)),
            }
            Ok(())
        })
    }
}

/// The keys of the last readings of each partition, in the shares of these weights: what has arrived, or what there is.
fn sample(subject: Subject<'_>, weights: &BTreeMap<PartitionId, i64>) -> Result<KeySample, MeasureError> {
    let Subject { connection, cluster, topic, .. } = subject;
    let all: i64 = weights.values().sum();
    let part = (SAMPLE as f64 / all.max(1) as f64).min(1.0);
    let mut keys = KeySample::default();
    let deadline = Instant::now() + SAMPLE_TIMEOUT;
    for (partition, weight) in weights {
        let records = (*weight as f64 * part).ceil() as i64;
        if records <= 0 {
            continue;
        }
        let mut reader = TopicReader::of_partitions(
            connection,
            cluster,
            topic,
            &[*partition],
            StartAt::Beginning,
            records,
        )?;
        while !reader.at_end() && Instant::now() < deadline {
            reader.read(LOOK, |record| -> Result<(), TopicReaderError> {
                if let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) {
                    keys.add(key);
                }
                Ok(())
            })?;
        }
    }
    Ok(keys)
}
