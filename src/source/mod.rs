//! The service that produces the rows of a query to a topic, each row once.
//!
//! The path of a row: a scan goes over the time from the floor to now in slices ([`slices`]). The database answers one
//! slice at a time ([`influx`], on a thread of its own: [`reading`]), and each row becomes a record ([`record`]). Rows
//! that have been produced are skipped ([`seen`]). New ones pass the steps of `--transform`
//! ([`transforming`](self)), and what becomes of them ([`outgoing`]), the cursor and their digests are committed in
//! one transaction ([`progress`](self)).
//!
//! Guarantees, for readers of committed records: each version of a row that a scan sees is in the topic once, whatever
//! ends this process or Kafka's. A row is found if it arrives in the database while it is at most `rescan` older than
//! the newest row that was produced. What counts is the time of rows, not of a clock: a database that gets an hour's
//! rows an hour late loses none.
//!
//! Memory: one transaction's rows (8 MiB), what waits between the threads, and the digests of the rows within `rescan`.

pub mod config;
pub mod cursor;
pub mod influx;
pub mod metrics;
pub mod outgoing;
mod progress;
pub mod reading;
pub mod record;
pub mod seen;
pub mod slices;
mod taken;
pub mod time;
mod transforming;

pub use config::{SourceConfig, SourceError, SourceSummary};

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use genwatch_core::report::Kind;
use genwatch_core::types::Millis;
use genwatch_kafka::admin::{Cluster, ClusterError, TopicPlan};
use genwatch_kafka::clock;
use genwatch_kafka::topics::Role;

use crate::service::backoff::Backoff;
use crate::service::reporter::{Activity, Identity, Reporter, Reporting};
use crate::service::{Context, Health, LogLimiter, NotReady};
use influx::client::{AskError, Refused};
use metrics::SourceMetrics;
use outgoing::Target;
use progress::{Committed, Names, Progress, Writing};
use reading::{Piece, Reading};
use record::SourceRow;
use seen::Observed;
use slices::{Slice, Slices};
use taken::{Counts, Taken};
use time::Nanos;
use transforming::{Transformed, Transforming};

/// The longest wait of one turn of the loop.
const LOOP_SLEEP_MAX: Duration = Duration::from_millis(50);
/// Interval of commits that say only that this process is there: so a process that was replaced notices.
const ALIVE_EVERY: Duration = Duration::from_secs(10);
/// Interval of reports.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Runs until a stop request, or until the end if configured so.
///
/// # Errors
/// When a topic is missing, Kafka or the database refuses us, the query can't be polled, or another process takes over.
pub fn run(config: SourceConfig, context: Context) -> Result<SourceSummary, SourceError> {
    let metrics = SourceMetrics::register(&context.metrics)?;
    let not_ready = Conditions::register(&context.health);
    let cluster = Arc::new(Cluster::connect(&config.connection)?);
    if let Some(like) = &config.create_like {
        create_topic(&cluster, &config.to_topic, like)?;
    }
    let (transforming, limits) = Transforming::new(&config, &cluster)?;
    for step in transforming.iter().flat_map(Transforming::steps) {
        metrics.dead_letters.with_label_values(&[step.label()]);
    }
    let url = config.client.url().to_owned();
    let fixed = config.transform.iter().flat_map(|transform| transform.fixed_targets());
    let dead_letters = config.transform.is_some().then(|| config.dead_letters.clone());
    let names = Names {
        name: config.name,
        to_topic: config.to_topic.clone(),
        cursors: config.cursors,
        query: config.client.digest(),
        targets: fixed.map(|(topic, _)| topic.to_owned()).chain(dead_letters.clone()).collect(),
        dead_letters: dead_letters.unwrap_or_default(),
    };
    let (connection, group) = (config.connection.clone(), &config.group);
    let kafka_away = not_ready.kafka_away.clone();
    let writing = Writing { group, connection, limits, cluster, kafka_away };
    let begun = Progress::begin(names, writing, context.clone(), config.from)?;
    let Some(progress) = begun else { return Ok(SourceSummary::default()) };
    not_ready.starting.set(false);
    tracing::info!(database = url, topic = config.to_topic, "producing the rows of the query");
    let reading = Reading::start(config.client)?;
    // Dropped last: the source's tombstone is its last word.
    let mut reporter = Reporter::default();
    let identity = Identity {
        worker: config.worker,
        kind: Kind::Source,
        group: Some(config.group.clone()),
        topics: vec![config.to_topic.clone()],
        peer: Some(url),
        to: Some(config.to_topic),
    };
    reporter.start(&config.connection, &config.reports, identity)?;
    let source = Source {
        reports: Reports::new(reporter.reporting()),
        slices: Slices::new(config.align),
        progress,
        reading,
        transforming,
        context,
        metrics,
        not_ready,
        every: config.every,
        rescan: config.rescan,
        exit_at_end: config.exit_at_end,
        taken: Taken::default(),
        works: false,
        committed: Instant::now(),
        backoff: Backoff::default(),
        log: LogLimiter::default(),
        begun: Instant::now(),
        summary: SourceSummary::default(),
    };
    source.run()
}

/// Creates the topic that the rows go to, if it is missing.
fn create_topic(cluster: &Cluster, topic: &str, like: &str) -> Result<(), ClusterError> {
    if cluster.topic(topic)?.is_none() {
        let partitions = cluster.require(like)?;
        let plan = TopicPlan::like_its_cluster(cluster, topic, partitions, Role::Readings.config())?;
        if cluster.create(&plan)? {
            tracing::info!(topic, partitions, "created the topic of rows");
        }
    }
    Ok(())
}

/// The loop and its state.
struct Source {
    progress: Progress,
    reading: Reading,
    /// `None` without `--transform`.
    transforming: Option<Transforming>,
    slices: Slices,
    reports: Reports,
    context: Context,
    metrics: SourceMetrics,
    not_ready: Conditions,
    every: Duration,
    rescan: Duration,
    exit_at_end: bool,
    /// What became of new rows since the last commit.
    taken: Taken,
    /// Whether a scan has ever been complete: the query works.
    works: bool,
    /// When something was last committed.
    committed: Instant,
    backoff: Backoff,
    log: LogLimiter<&'static str>,
    begun: Instant,
    summary: SourceSummary,
}

/// Reasons not to be ready, the most telling first.
struct Conditions {
    /// The cursor isn't read and claimed yet.
    starting: NotReady,
    /// The last query wasn't answered.
    database_away: NotReady,
    /// The last transaction failed.
    kafka_away: NotReady,
}

impl Conditions {
    fn register(health: &Health) -> Conditions {
        Conditions {
            starting: health.register("the cursor is not read yet", true),
            database_away: health.register("the database does not answer the query", false),
            kafka_away: health.register("Kafka takes no transaction", false),
        }
    }
}

/// How reading a slice ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SliceEnd {
    /// It is read and committed.
    Done,
    /// Read it again, perhaps in parts.
    Again,
    /// The source stops.
    Stopped,
}

impl From<Committed> for SliceEnd {
    fn from(committed: Committed) -> SliceEnd {
        match committed {
            Committed::Done => SliceEnd::Done,
            Committed::Again => SliceEnd::Again,
            Committed::Stopped => SliceEnd::Stopped,
        }
    }
}

impl Source {
    fn run(mut self) -> Result<SourceSummary, SourceError> {
        while !self.context.is_stopping() {
            let begun = Instant::now();
            if !self.scan()? || self.exit_at_end {
                break;
            }
            self.stay_alive()?;
            self.wait(self.every.saturating_sub(begun.elapsed()));
        }
        self.summary.cursor = self.progress.cursor.cursor;
        Ok(self.summary)
    }

    /// Reads everything from the floor to now; returns `false` if the source stops.
    fn scan(&mut self) -> Result<bool, SourceError> {
        let end = Nanos::from(clock::now());
        let mut at = self.progress.cursor.floor;
        if end < at {
            self.warn(
                "clock",
                format!("{end} by this machine's clock"),
                "the cursor is in the future: waiting",
            );
        }
        while let Some(slice) = self.slices.at(at, end) {
            match self.read(slice)? {
                SliceEnd::Done => at = slice.stop,
                SliceEnd::Again => {}
                SliceEnd::Stopped => return Ok(false),
            }
        }
        // Not after each slice: a shorter one may succeed where the next one fails.
        self.backoff = Backoff::default();
        self.works = true;
        Ok(true)
    }

    /// Reads a slice, and commits what is new in it.
    fn read(&mut self, slice: Slice) -> Result<SliceEnd, SourceError> {
        let begun = Instant::now();
        self.progress.seen.begin();
        self.taken.clear();
        let (mut newest, mut repeats, mut taken) = (self.progress.cursor.cursor, 0, 0);
        let pieces = self.reading.ask(slice);
        loop {
            self.turn();
            if self.context.is_stopping() {
                return Ok(SliceEnd::Stopped);
            }
            match pieces.recv_timeout(LOOP_SLEEP_MAX) {
                Ok(Piece::Rows(rows)) => {
                    let now = clock::now();
                    for row in rows {
                        newest = newest.max(row.time);
                        match self.take(row, now) {
                            Took::New => {}
                            Took::Repeat => repeats += 1,
                            Took::Later => return Ok(self.kafka_does_not_say()),
                        }
                    }
                }
                Ok(Piece::End) => break,
                Ok(Piece::Failed(error)) => return self.failed(error, slice),
                Err(RecvTimeoutError::Timeout) => {
                    self.reports.idle += LOOP_SLEEP_MAX;
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(SliceEnd::Again),
            }
            if self.taken.is_full() {
                if self.slices.shrink(slice) {
                    return Ok(SliceEnd::Again);
                }
                // The cursor stays: rows of other series, with earlier times, are still to come.
                taken += self.taken.rows();
                match self.commit(self.progress.cursor.cursor)? {
                    Committed::Done => {}
                    other => return Ok(other.into()),
                }
            }
        }
        self.answered(begun);
        taken += self.taken.rows();
        let is_replaced = self.progress.seen.complete();
        self.summary.repeats += repeats;
        self.metrics.repeats.inc_by(repeats);
        // A row that was filtered out has to be remembered, too.
        if self.taken.rows() > 0 || is_replaced || newest > self.progress.cursor.cursor {
            match self.commit(newest)? {
                Committed::Done => {}
                other => return Ok(other.into()),
            }
        }
        self.slices.took(taken);
        Ok(SliceEnd::Done)
    }

    /// Takes a row, as the steps leave it if it is new.
    fn take(&mut self, row: SourceRow, now: Millis) -> Took {
        // By the row as it came: steps may change in a file, and what is known must stay known.
        let observed = self.progress.seen.observe(row.time, row.digest);
        if observed == Observed::Known {
            return Took::Repeat;
        }
        let is_late = row.time < self.progress.cursor.cursor;
        let transformed = match &mut self.transforming {
            Some(transforming) => transforming.apply(row, now),
            None => Transformed::Record(row.into()),
        };
        match transformed {
            Transformed::Record(record) => self.taken.add(record, observed, is_late),
            Transformed::Filtered => self.taken.counts.filtered += 1,
            Transformed::Later => return Took::Later,
        }
        Took::New
    }

    /// Waits, and reads the slice again.
    fn kafka_does_not_say(&mut self) -> SliceEnd {
        self.error("kafka");
        self.not_ready.kafka_away.set(true);
        let reason = "no answer about the topic of a route".to_owned();
        self.warn("target", reason, "Kafka does not say whether a topic exists: waiting");
        let wait = self.backoff.wait(None, chance());
        self.wait(wait);
        if self.context.is_stopping() { SliceEnd::Stopped } else { SliceEnd::Again }
    }

    /// Commits the new rows, in the order of their times.
    fn commit(&mut self, newest: Nanos) -> Result<Committed, SourceError> {
        let begun = Instant::now();
        self.taken.records.sort_by_key(|record| record.time);
        let floor = self.slices.bound(newest.before(self.rescan));
        let Taken { records, counts, .. } = &self.taken;
        let committed = self.progress.commit(records, counts.filtered, newest, floor)?;
        match committed {
            Committed::Done => {
                self.count();
                self.summary.commits += 1;
                self.summary.seconds = self.begun.elapsed().as_secs_f64();
                self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
                self.committed = Instant::now();
            }
            Committed::Again => self.error("kafka"),
            Committed::Stopped => {}
        }
        self.taken.clear();
        Ok(committed)
    }

    /// Counts what was committed.
    fn count(&mut self) {
        let Counts { rows, late, corrections, filtered } = self.taken.counts;
        self.summary.rows += rows;
        self.summary.late += late;
        self.summary.corrections += corrections;
        self.summary.filtered += filtered;
        self.metrics.rows.inc_by(rows);
        self.metrics.late.inc_by(late);
        self.metrics.corrections.inc_by(corrections);
        self.metrics.filtered.inc_by(filtered);
        for record in &self.taken.records {
            if let Target::DeadLetters { step } = &record.target {
                self.summary.dead_letters += 1;
                self.metrics.dead_letters.with_label_values(&[step]).inc();
            }
        }
    }

    fn error(&mut self, kind: &str) {
        self.summary.errors += 1;
        self.metrics.errors.with_label_values(&[kind]).inc();
    }

    fn answered(&mut self, begun: Instant) {
        self.not_ready.database_away.set(false);
        self.summary.queries += 1;
        self.metrics.queries.inc();
        self.metrics.query_seconds.observe(begun.elapsed().as_secs_f64());
    }

    /// Waits, if asking again can help.
    fn failed(&mut self, error: AskError, slice: Slice) -> Result<SliceEnd, SourceError> {
        let (kind, after, reason) = match error {
            AskError::Refused(refused @ Refused::Untrusted { .. }) if self.works => {
                ("database", None, refused.to_string())
            }
            AskError::Refused(refused) => return Err(refused.into()),
            // A query that never worked is wrong; one that did may do so again.
            AskError::Query(reason) if self.exit_at_end || !self.works => {
                return Err(Refused::Query { reason }.into());
            }
            AskError::Query(reason) => ("query", None, reason),
            AskError::Wait { after, reason } => ("database", after, reason),
            AskError::Left => return Ok(SliceEnd::Again),
        };
        self.error(kind);
        self.not_ready.database_away.set(true);
        self.warn(kind, reason, "the database does not answer the query: waiting");
        // It may have been too much.
        self.slices.shrink(slice);
        let wait = self.backoff.wait(after, chance());
        self.wait(wait);
        Ok(if self.context.is_stopping() { SliceEnd::Stopped } else { SliceEnd::Again })
    }

    fn warn(&mut self, about: &'static str, reason: String, message: &str) {
        if let Some(silent) = self.log.allow(about, Instant::now()) {
            tracing::warn!(reason, more_since_the_last_line = silent, "{message}");
        }
    }

    /// Between scans: looks whether the topics are there, and whether this process is still the owner.
    fn stay_alive(&mut self) -> Result<(), SourceError> {
        if self.committed.elapsed() < ALIVE_EVERY || self.context.is_stopping() {
            return Ok(());
        }
        match self.progress.check_topics() {
            // The commit waits for it.
            Err(SourceError::Client(_) | SourceError::Cluster(ClusterError::Unreachable { .. })) => {}
            checked => checked?,
        }
        self.progress.seen.begin();
        self.taken.clear();
        self.commit(self.progress.cursor.cursor)?;
        Ok(())
    }

    fn wait(&mut self, duration: Duration) {
        let deadline = Instant::now() + duration;
        while !self.context.is_stopping() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.turn();
            let step = left.min(LOOP_SLEEP_MAX);
            std::thread::sleep(step);
            self.reports.idle += step;
        }
    }

    /// What each turn of the loop does.
    fn turn(&mut self) {
        self.context.health.heartbeat();
        if self.reports.told.elapsed() < TELL_EVERY {
            return;
        }
        let cursor = self.progress.cursor.cursor.0 as f64 / 1e9;
        self.metrics.cursor.set(cursor);
        self.metrics.lag.set(clock::now().0 as f64 / 1e3 - cursor);
        self.metrics.remembered.set(i64::try_from(self.progress.seen.len()).unwrap_or(i64::MAX));
        self.reports.tell(Activity {
            not_ready: self.context.health.ready().err(),
            records: self.summary.rows,
            in_flight: self.taken.records.len() as u64,
            ..Activity::default()
        });
    }
}

/// A number between 0 and 1.
fn chance() -> f64 {
    f64::from(RandomState::new().hash_one(()) as u32) / f64::from(u32::MAX)
}

/// What a row of an answer was.
enum Took {
    /// A new one.
    New,
    /// One that is known.
    Repeat,
    /// A new one, but Kafka doesn't say whether its topic exists.
    Later,
}

/// What the source says of itself.
struct Reports {
    reporting: Reporting,
    idle: Duration,
    told: Instant,
}

impl Reports {
    fn new(reporting: Reporting) -> Reports {
        Reports { reporting, idle: Duration::ZERO, told: Instant::now() }
    }

    fn tell(&mut self, activity: Activity) {
        let busy = 1.0 - self.idle.as_secs_f64() / self.told.elapsed().as_secs_f64();
        (self.idle, self.told) = (Duration::ZERO, Instant::now());
        self.reporting.tell(Activity { busy: busy.clamp(0.0, 1.0), ..activity });
    }
}
