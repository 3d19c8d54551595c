//! The runtime of a sink: records from Kafka to a [`Store`], such as InfluxDB ([`influx`]).
//!
//! The path of a record, in `Sink::run`: the sink takes it in from the group's partitions
//! ([`genwatch_kafka::subscriber`]), appends it to a batch in the store's form ([`batch`], in [`lanes`]), writes the
//! batch ([`writer`], on threads of its own), and commits the offset after the acknowledgement ([`offsets`]).
//!
//! Guarantees: each record that makes a point is written at least once, and a repeat overwrites itself if the store
//! supports that. A committed offset is never ahead of an acknowledged write. Each lane holds one batch under way and
//! one that fills; all lanes share two full batches per lane. When those are full, the sink pauses its partitions, and
//! keeps polling Kafka.
//!
//! A record that a step of `--transform` fails on goes to the dead letters (`dead_letters`), which are durable before
//! the offset is committed.
//!
//! If a partition goes while its batch is under way, the batch is written and not committed: the next owner writes the
//! same points.

pub mod batch;
pub mod config;
mod dead_letters;
pub mod influx;
pub mod lanes;
pub mod metrics;
pub mod offsets;
mod reports;
mod starts;
pub mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
pub mod writer;

pub use config::{SinkConfig, SinkError, SinkSummary};
pub use store::{NotWritten, Skipped, SourceRecord, Store, StoreRefusal, WriteAnswer};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genwatch_core::engine::start::OnOutOfRange;
use genwatch_core::ranges::listed;
use genwatch_core::report::Kind;
use genwatch_core::types::{Offset, PartitionId, TopicPartition};
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::consumer::Rebalance;
use genwatch_kafka::error::Chain;
use genwatch_kafka::subscriber::{self, SubscribedRecord, Subscriber};
use prometheus::IntCounter;

use crate::service::reporter::{Identity, Reporter};
use crate::service::{Context, Health, LogLimiter, NotReady};
use batch::Origin;
use dead_letters::DeadLetters;
use lanes::WriteLanes;
use metrics::SinkMetrics;
use offsets::OffsetTracker;
use reports::Reports;
use writer::Writers;

/// The longest wait of one turn of the loop.
const LOOP_SLEEP_MAX: Duration = Duration::from_millis(50);
/// The most records taken in in one turn.
const BURST: usize = 1000;
/// Below this the sink waits for the writers without a pause and without polling: a pause costs fetching again.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// Interval of asking for positions, and of repeating a refused commit.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// How long a drain waits for the store: `docker stop` kills after ten seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a drain waits for the last commit.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a sink that should stop at the end waits for a partition if it has none.
const NO_ASSIGNMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of probing brokers that were down.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Runs until a stop request, or until the end if configured so.
///
/// # Errors
/// When a topic is missing, Kafka or the store refuses us, retention has overtaken us, or the last commit fails.
pub fn run<S: Store>(config: SinkConfig<S>, context: Context) -> Result<SinkSummary, SinkError> {
    let metrics = SinkMetrics::register(&context.metrics)?;
    let not_ready = Conditions::register(&context.health);
    let cluster = Cluster::connect(&config.connection)?;
    let (topics, store) = (config.topics, Arc::new(config.store));
    let bounds = if config.exit_at_end { Some(subscriber::bounds(&cluster, &topics)?) } else { None };
    let dead_letters = config.dead_letters.map(|topic| {
        DeadLetters::new(&config.connection, &cluster, topic, topics.clone(), config.name.clone())
    });
    let dead_letters = dead_letters.transpose()?;
    let subscriber = Subscriber::new(&config.connection, &cluster, &config.group, topics.clone())?;
    drop(cluster);
    let (group, address) = (&config.group, store.address());
    tracing::info!(group, topics = topics.join(", "), address, "writing to {}", store.name());
    let records = topics.iter().map(|topic| metrics.records.with_label_values(&[topic])).collect();
    let writers = Writers::start(
        config.connections,
        Arc::clone(&store),
        topics.clone(),
        metrics.clone(),
        not_ready.store_away.clone(),
    )?;
    // Dropped last: the sink's tombstone is its last word.
    let mut reporter = Reporter::default();
    let identity = Identity {
        worker: config.name,
        kind: Kind::Sink,
        group: Some(config.group.clone()),
        topics: topics.clone(),
        peer: Some(store.address().to_owned()),
        to: None,
    };
    reporter.start(&config.connection, &config.reports, identity)?;
    let sink = Sink {
        reports: Reports::new(reporter.reporting()),
        subscriber: &subscriber,
        lanes: WriteLanes::new(writers, config.connections, config.batch, config.linger),
        store,
        context,
        metrics,
        not_ready,
        topics,
        records,
        on_out_of_range: config.on_out_of_range,
        ending: bounds.map(Ending::new),
        offsets: OffsetTracker::default(),
        dead_letters,
        full: None,
        paused: false,
        draining: None,
        followed: Instant::now(),
        down: None,
        refused_commit: None,
        skip_log: LogLimiter::default(),
        failure_log: LogLimiter::default(),
        commit_log: LogLimiter::default(),
        broker_log: LogLimiter::default(),
        first: None,
        summary: SinkSummary::default(),
    };
    sink.run()
}

/// The loop and its state.
struct Sink<'a, S> {
    subscriber: &'a Subscriber,
    reports: Reports,
    lanes: WriteLanes,
    store: Arc<S>,
    context: Context,
    metrics: SinkMetrics,
    not_ready: Conditions,
    topics: Vec<String>,
    /// Records taken in, by topic.
    records: Vec<IntCounter>,
    on_out_of_range: OnOutOfRange,
    ending: Option<Ending>,
    offsets: OffsetTracker,
    /// `None` if there are no transformations.
    dead_letters: Option<DeadLetters>,
    /// Since when there is no room for a record.
    full: Option<Instant>,
    paused: bool,
    /// The deadline of the drain, once it has begun.
    draining: Option<Instant>,
    followed: Instant,
    /// Since when no broker answers, and when the sink last asked one.
    down: Option<(Instant, Instant)>,
    refused_commit: Option<Instant>,
    skip_log: LogLimiter<(usize, &'static str)>,
    failure_log: LogLimiter<String>,
    commit_log: LogLimiter<()>,
    broker_log: LogLimiter<()>,
    first: Option<Instant>,
    summary: SinkSummary,
}

/// Reasons not to be ready, the most telling first.
struct Conditions {
    /// The sink drains.
    draining: NotReady,
    /// The group has given no assignment, or taken it all back.
    not_joined: NotReady,
    /// The store takes no points for now.
    store_away: NotReady,
    /// No broker of Kafka answers.
    brokers_away: NotReady,
}

impl Conditions {
    fn register(health: &Health) -> Conditions {
        Conditions {
            draining: health.register("draining", false),
            not_joined: health.register("not joined the group yet", true),
            store_away: health.register("writes wait for the database", false),
            brokers_away: health.register("no broker of Kafka answers", false),
        }
    }
}

/// The bounds of the log when the sink started; it stops at the ends.
struct Ending {
    starts: BTreeMap<TopicPartition, Offset>,
    ends: BTreeMap<TopicPartition, Offset>,
    assigned: Option<Instant>,
}

impl Ending {
    fn new(bounds: BTreeMap<TopicPartition, (Offset, Offset)>) -> Ending {
        Ending {
            starts: bounds.iter().map(|(place, (start, _))| (*place, *start)).collect(),
            ends: bounds.iter().map(|(place, (_, end))| (*place, *end)).collect(),
            assigned: None,
        }
    }
}

impl<S: Store> Sink<'_, S> {
    fn run(mut self) -> Result<SinkSummary, SinkError> {
        while !self.is_done() {
            self.context.health.heartbeat();
            self.begin_to_drain()?;
            self.take_outcomes(Duration::ZERO)?;
            self.follow_dead_letters()?;
            self.hand_over()?;
            self.take_in()?;
            self.follow_positions()?;
            self.follow_brokers();
            self.commit();
            self.report();
        }
        self.settle()?;
        self.reports.left();
        Ok(self.summary)
    }

    fn take_in(&mut self) -> Result<(), SinkError> {
        if self.draining.is_some() || self.is_full() {
            return self.wait_for_the_writers();
        }
        let mut wait = LOOP_SLEEP_MAX.min(self.lanes.linger());
        // One look at the clock per burst.
        let mut now = None;
        for _ in 0..BURST {
            let asked = Instant::now();
            let record = self.subscriber.poll(wait)?;
            if record.is_none() {
                self.reports.idle += asked.elapsed();
            }
            // Before the record: its partition may have just been assigned.
            self.follow_rebalances()?;
            let Some(record) = record else { break };
            self.take(&record, *now.get_or_insert_with(Instant::now))?;
            if self.is_full() {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn take(&mut self, record: &SubscribedRecord<'_>, now: Instant) -> Result<(), SinkError> {
        let (place, offset) = (record.place, record.offset());
        let Some(epoch) = self.offsets.take_in(place, offset) else { return Ok(()) };
        self.first.get_or_insert(now);
        self.summary.records += 1;
        self.records[place.topic].inc();
        let origin = Origin { place, offset };
        let source = SourceRecord {
            topic: place.topic,
            partition: place.partition,
            key: record.key(),
            value: record.value(),
            at: record.timestamp(),
            offset,
            headers: record,
        };
        let append = |text: &mut String| self.store.append(&source, text);
        match self.lanes.take_in(origin, epoch, now, append) {
            Ok(()) => {}
            Err(NotWritten::Skipped(skipped)) => self.skip(origin, &skipped, now),
            Err(NotWritten::Filtered) => {
                self.summary.filtered += 1;
                self.metrics.filtered.with_label_values(&[&self.topics[place.topic]]).inc();
            }
            Err(NotWritten::Failed(failure)) => self.fail(record, epoch, &failure, now)?,
        }
        Ok(())
    }

    /// Whether there is no room for another record.
    fn is_full(&self) -> bool {
        self.lanes.is_full() || self.dead_letters.as_ref().is_some_and(DeadLetters::is_full)
    }

    fn skip(&mut self, origin: Origin, skipped: &Skipped, now: Instant) {
        let topic = &self.topics[origin.place.topic];
        self.summary.skipped += 1;
        self.metrics.skipped.with_label_values(&[topic.as_str(), skipped.label]).inc();
        if let Some(silent) = self.skip_log.allow((origin.place.topic, skipped.label), now) {
            tracing::warn!(
                topic,
                partition = origin.place.partition.0,
                offset = origin.offset.0,
                reason = skipped.reason,
                silent,
                "a record makes no point: skipped"
            );
        }
    }

    /// Waits for the writers. Serves the group meanwhile, once the partitions are paused.
    fn wait_for_the_writers(&mut self) -> Result<(), SinkError> {
        let full = *self.full.get_or_insert_with(Instant::now);
        if !self.paused && (self.draining.is_some() || full.elapsed() >= PAUSE_AFTER) {
            self.pause()?;
        }
        self.take_outcomes(LOOP_SLEEP_MAX)?;
        if self.paused {
            // Paused partitions give nothing; if one does anyway, take it in.
            if let Some(record) = self.subscriber.poll(Duration::ZERO)? {
                self.follow_rebalances()?;
                self.take(&record, Instant::now())?;
            }
            self.follow_rebalances()?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), SinkError> {
        self.subscriber.pause(&self.offsets.places().collect::<Vec<_>>())?;
        self.paused = true;
        Ok(())
    }

    /// Hands gathered batches to free writers, when due.
    fn hand_over(&mut self) -> Result<(), SinkError> {
        // At the end there's nothing to linger for.
        let all_is_here = self.ending.as_ref().is_some_and(|ending| self.offsets.has_taken_in(&ending.ends));
        self.lanes.hand_over(self.draining.is_some() || all_is_here);
        if self.is_full() {
            return Ok(());
        }
        self.full = None;
        if self.paused && self.draining.is_none() {
            self.subscriber.resume(&self.offsets.places().collect::<Vec<_>>())?;
            self.paused = false;
        }
        Ok(())
    }

    /// Takes all written batches, waiting up to `wait` for the first.
    fn take_outcomes(&mut self, mut wait: Duration) -> Result<(), SinkError> {
        while let Some(written) = self.lanes.outcome(wait)? {
            self.offsets.written(written.batch.until());
            self.summary.points += (written.batch.points() - written.refused) as u64;
            self.summary.skipped += written.refused as u64;
            self.summary.writes += written.writes;
            self.summary.retries += written.retries;
            self.summary.seconds = self.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
            self.lanes.reuse(written);
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn follow_rebalances(&mut self) -> Result<(), SinkError> {
        for change in self.subscriber.take_rebalances() {
            match change {
                Rebalance::Assigned(places) => {
                    self.not_ready.not_joined.set(false);
                    if let Some(ending) = &mut self.ending {
                        ending.assigned = Some(Instant::now());
                    }
                    if places.is_empty() {
                        continue;
                    }
                    self.offsets.assigned(&places);
                    self.reports.rebalanced();
                    self.apply_pause(&places)?;
                    tracing::info!(assigned = self.names(&places), "rebalance");
                }
                Rebalance::Revoked(places) => {
                    self.offsets.removed(&places);
                    tracing::info!(revoked = self.names(&places), "rebalance");
                }
                Rebalance::Lost(places) => {
                    self.offsets.removed(&places);
                    self.not_ready.not_joined.set(true);
                    tracing::warn!(
                        lost = self.names(&places),
                        "rebalance: the group went on without us; uncommitted records are written again"
                    );
                }
            }
        }
        Ok(())
    }

    /// Pauses or resumes newly assigned partitions: one that was paused when it left comes back paused.
    fn apply_pause(&self, places: &[TopicPartition]) -> Result<(), SinkError> {
        if self.paused {
            self.subscriber.pause(places)?
        } else {
            self.subscriber.resume(places)?
        }
        Ok(())
    }

    /// `emergency_generators 0-2, emergency_generators_alerts 1`
    fn names(&self, places: &[TopicPartition]) -> String {
        let of_topic = |(number, topic): (usize, &String)| {
            let own = |place: &&TopicPartition| place.topic == number;
            let partitions: Vec<PartitionId> =
                places.iter().filter(own).map(|place| place.partition).collect();
            (!partitions.is_empty()).then(|| format!("{topic} {}", listed(&partitions)))
        };
        self.topics.iter().enumerate().filter_map(of_topic).collect::<Vec<_>>().join(", ")
    }

    /// Advances over transaction markers behind the last record, which librdkafka never hands out: they are no lag,
    /// and the end of a partition can be behind one. Also finds a start for partitions that have none.
    fn follow_positions(&mut self) -> Result<(), SinkError> {
        if self.followed.elapsed() < FOLLOW_EVERY {
            return Ok(());
        }
        self.followed = Instant::now();
        if self.subscriber.has_lost_its_place() && self.down.is_none() {
            return self.find_starts();
        }
        for (place, position) in self.subscriber.positions() {
            if !self.lanes.holds(place) {
                self.offsets.read_through(place, position);
            }
        }
        let unknown = self.offsets.unknown();
        let Some(ending) = self.ending.as_ref().filter(|_| !unknown.is_empty()) else { return Ok(()) };
        match self.subscriber.committed(&unknown) {
            Ok(committed) => {
                for place in unknown {
                    let start = committed.get(&place).or(ending.starts.get(&place)).copied();
                    self.offsets.begins(place, start.unwrap_or(Offset(0)));
                }
            }
            // The next turn asks again.
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot fetch the group's committed offsets")
            }
        }
        Ok(())
    }

    /// Probes the brokers: the client only repeats that all are down, and doesn't report that one answers again.
    fn follow_brokers(&mut self) {
        let told = self.subscriber.take_brokers_down();
        match self.down {
            None if !told => return,
            Some((_, asked)) if asked.elapsed() < PROBE_EVERY => return,
            _ => {}
        }
        let answers = self.subscriber.brokers_answer();
        let now = Instant::now();
        self.not_ready.brokers_away.set(!answers);
        if answers {
            if let Some((since, _)) = self.down.take() {
                tracing::info!(seconds = since.elapsed().as_secs_f64(), "the brokers answer again");
            }
            return;
        }
        let since = self.down.map_or(now, |(since, _)| since);
        self.down = Some((since, now));
        // By then the client has tried to connect again, and its reason is the lasting one.
        if since.elapsed() >= PROBE_EVERY && self.broker_log.allow((), now).is_some() {
            let reason = self.subscriber.last_broker_error();
            tracing::warn!(reason, seconds = since.elapsed().as_secs(), "no broker answers: waiting");
        }
    }

    fn commit(&mut self) {
        for answer in self.subscriber.take_commits() {
            self.answered(answer.err().map(|error| error.to_string()));
        }
        if self.refused_commit.is_some_and(|at| at.elapsed() < FOLLOW_EVERY) {
            return;
        }
        let offsets = self.offsets.commit();
        if offsets.is_empty() {
            return;
        }
        if let Err(error) = self.subscriber.commit(&offsets) {
            self.answered(Some(error.to_string()));
        }
    }

    /// Handles the answer to a commit, with its error if there was one.
    fn answered(&mut self, error: Option<String>) {
        self.offsets.committed(error.is_none());
        let now = Instant::now();
        self.refused_commit = error.is_some().then_some(now);
        let Some(error) = error else { return };
        if let Some(silent) = self.commit_log.allow((), now) {
            tracing::warn!(error, silent, "offsets were not committed: the next commit includes them");
        }
    }

    /// Begins to drain after a stop request or at the end.
    fn begin_to_drain(&mut self) -> Result<(), SinkError> {
        let stop = self.context.is_stopping();
        if self.draining.is_some() || !(stop || self.has_reached_end()) {
            return Ok(());
        }
        tracing::info!(records = self.lanes.gathered(), "draining");
        self.not_ready.draining.set(true);
        self.draining = Some(Instant::now() + DRAIN_TIMEOUT);
        self.pause()
    }

    fn has_reached_end(&self) -> bool {
        let Some(ending) = &self.ending else { return false };
        if self.offsets.is_empty() {
            return ending.assigned.is_some_and(|assigned| assigned.elapsed() > NO_ASSIGNMENT_TIMEOUT);
        }
        self.lanes.is_idle() && self.offsets.has_reached(&ending.ends)
    }

    fn is_done(&self) -> bool {
        let Some(deadline) = self.draining else { return false };
        let all_is_told = self.dead_letters.as_ref().is_none_or(DeadLetters::is_empty);
        (self.lanes.is_empty() && all_is_told) || Instant::now() >= deadline
    }

    /// Makes the last commit. Leaves what the store has not taken in time to the next sink.
    fn settle(&mut self) -> Result<(), SinkError> {
        if !self.lanes.is_empty() {
            let name = self.store.name();
            tracing::warn!("{name} did not take everything in time: the next sink reads the rest again");
        }
        if self.dead_letters.as_ref().is_some_and(|letters| !letters.is_empty()) {
            tracing::warn!(
                "Kafka did not take all dead letters in time: the next sink reads their records again"
            );
        }
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        self.commit();
        while !self.offsets.is_settled() {
            if Instant::now() >= deadline {
                return Err(SinkError::Commit);
            }
            self.context.health.heartbeat();
            self.subscriber.poll(LOOP_SLEEP_MAX)?;
            self.follow_rebalances()?;
            self.commit();
        }
        Ok(())
    }
}
