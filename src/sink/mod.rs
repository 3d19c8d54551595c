//! The runtime of a sink: records from Kafka to a [`Store`], such as InfluxDB ([`influx`]).
//!
//! The way of a record, in `Sink::run`: taken in from the group's partitions ([`genwatch_kafka::subscriber`]), appended to others
//! in the store's form ([`batch`], in [`lanes`]), written ([`writer`], on threads of its own), and when that is acknowledged
//! its offset is committed ([`offsets`]).
//!
//! What is promised: each record that makes a point is there at least once, and a repeat overwrites itself where the store makes it
//! so. A committed offset is never ahead of an acknowledged write. Each lane holds one batch under way and one that fills, and all of
//! them together two full ones for each; when there are so many, partitions are paused, and Kafka is polled all the same.
//!
//! What is under way when a partition goes is written all the same and not committed: its next owner writes the same points.

mod backoff;
pub mod batch;
pub mod config;
pub mod influx;
pub mod lanes;
pub mod metrics;
pub mod offsets;
mod starts;
pub mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
pub mod writer;

pub use config::{SinkConfig, SinkError, SinkSummary};
pub use store::{Skipped, SourceRecord, Store, StoreRefusal, WriteAnswer};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use genwatch_core::engine::start::OnOutOfRange;
use genwatch_core::types::{Offset, PartitionId, TopicPartition};
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::config::ranges;
use genwatch_kafka::consumer::Rebalance;
use genwatch_kafka::log_limit::LogLimiter;
use genwatch_kafka::subscriber::{self, SubscribedRecord, Subscriber};
use prometheus::IntCounter;

use crate::service::{Context, Health, NotReady};
use batch::Origin;
use lanes::WriteLanes;
use metrics::SinkMetrics;
use offsets::OffsetTracker;
use writer::Writers;

/// How long one turn of the loop waits.
const LOOP_SLEEP_MAX: Duration = Duration::from_millis(50);
/// Records taken in in one turn, at most.
const BURST: usize = 1000;
/// A pause costs fetching again, so a short wait for the writer is sat out without one, and without polling.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How often positions are asked for, and a refused commit is repeated.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// How long a drain waits for the store: `docker stop` kills after ten seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the last commit is waited for.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// A sink that is to end at the end and was given no partition waits this long for one.
const NO_ASSIGNMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often brokers that were down are asked whether they answer.
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Runs until it's told to stop, or is at the end.
///
/// # Errors
/// When a topic is missing, Kafka or the store refuses us, retention has overtaken us, or the last commit fails.
pub fn run<S: Store>(config: SinkConfig<S>, context: Context) -> Result<SinkSummary, SinkError> {
    let metrics = SinkMetrics::register(&context.metrics)?;
    let not_ready = Conditions::register(&context.health);
    let cluster = Cluster::connect(&config.connection)?;
    let (topics, store) = (config.topics, Arc::new(config.store));
    let bounds = if config.exit_at_end { Some(subscriber::bounds(&cluster, &topics)?) } else { None };
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
    let sink = Sink {
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
        full: None,
        paused: false,
        draining: None,
        followed: Instant::now(),
        down: None,
        refused_commit: None,
        skip_log: LogLimiter::default(),
        commit_log: LogLimiter::default(),
        broker_log: LogLimiter::default(),
        first: None,
        summary: SinkSummary::default(),
    };
    sink.run()
}

/// The loop and all that it owns.
struct Sink<'a, S> {
    subscriber: &'a Subscriber,
    lanes: WriteLanes,
    store: Arc<S>,
    context: Context,
    metrics: SinkMetrics,
    not_ready: Conditions,
    topics: Vec<String>,
    /// Records taken in, of each topic.
    records: Vec<IntCounter>,
    on_out_of_range: OnOutOfRange,
    ending: Option<Ending>,
    offsets: OffsetTracker,
    /// Since when there is no room for a record.
    full: Option<Instant>,
    paused: bool,
    /// Set when the sink is on its way out: until when it may take.
    draining: Option<Instant>,
    followed: Instant,
    /// Since when no broker answers, and when one was last asked.
    down: Option<(Instant, Instant)>,
    refused_commit: Option<Instant>,
    skip_log: LogLimiter<(usize, &'static str)>,
    commit_log: LogLimiter<()>,
    broker_log: LogLimiter<()>,
    first: Option<Instant>,
    summary: SinkSummary,
}

/// What may be in the way of being ready; what says most comes first.
struct Conditions {
    /// It is on its way out.
    draining: NotReady,
    /// The group has given no assignment, or taken it all back.
    not_joined: NotReady,
    /// The store takes no points at the moment.
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

/// Where the log began and ended when the sink was started, which is where it's to end.
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
            self.hand_over()?;
            self.take_in()?;
            self.follow_positions()?;
            self.follow_brokers();
            self.commit();
        }
        self.settle()?;
        Ok(self.summary)
    }

    fn take_in(&mut self) -> Result<(), SinkError> {
        if self.draining.is_some() || self.lanes.is_full() {
            return self.wait_for_the_writers();
        }
        let mut wait = LOOP_SLEEP_MAX.min(self.lanes.linger());
        // One look at the clock does for all of them.
        let mut now = None;
        for _ in 0..BURST {
            let record = self.subscriber.poll(wait)?;
            // Before the record: it may be of a partition that has just come.
            self.follow_rebalances()?;
            let Some(record) = record else { break };
            self.take(&record, *now.get_or_insert_with(Instant::now));
            if self.lanes.is_full() {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn take(&mut self, record: &SubscribedRecord<'_>, now: Instant) {
        let (place, offset) = (record.place, record.offset());
        let Some(epoch) = self.offsets.take_in(place, offset) else { return };
        self.first.get_or_insert(now);
        self.summary.records += 1;
        self.records[place.topic].inc();
        let origin = Origin { place, offset };
        let (topic, key, value) = (place.topic, record.key(), record.value());
        let source = SourceRecord { topic, key, value, at: record.timestamp(), offset };
        let append = |text: &mut String| self.store.append(&source, text);
        if let Err(skipped) = self.lanes.take_in(origin, epoch, now, append) {
            self.skip(origin, &skipped, now);
        }
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

    /// The group is served meanwhile, as soon as the partitions are paused.
    fn wait_for_the_writers(&mut self) -> Result<(), SinkError> {
        let full = *self.full.get_or_insert_with(Instant::now);
        if !self.paused && (self.draining.is_some() || full.elapsed() >= PAUSE_AFTER) {
            self.pause()?;
        }
        self.take_outcomes(LOOP_SLEEP_MAX)?;
        if self.paused {
            // Paused partitions give nothing; should one do all the same, it's taken in.
            if let Some(record) = self.subscriber.poll(Duration::ZERO)? {
                self.follow_rebalances()?;
                self.take(&record, Instant::now());
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

    /// Gives the writers what has been gathered, when it's due and they are free.
    fn hand_over(&mut self) -> Result<(), SinkError> {
        // At the end nothing else comes that would be worth a wait.
        let all_is_here = self.ending.as_ref().is_some_and(|ending| self.offsets.has_taken_in(&ending.ends));
        self.lanes.hand_over(self.draining.is_some() || all_is_here);
        if self.lanes.is_full() {
            return Ok(());
        }
        self.full = None;
        if self.paused && self.draining.is_none() {
            self.subscriber.resume(&self.offsets.places().collect::<Vec<_>>())?;
            self.paused = false;
        }
        Ok(())
    }

    /// Takes all that is written, waiting up to `wait` for the first.
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
                        "rebalance: the group went on without us; what was not committed is written again"
                    );
                }
            }
        }
        Ok(())
    }

    /// Partitions that have just been assigned: one that was paused when it left comes back paused.
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
            (!partitions.is_empty()).then(|| format!("{topic} {}", ranges(&partitions)))
        };
        self.topics.iter().enumerate().filter_map(of_topic).collect::<Vec<_>>().join(", ")
    }

    /// Learns of markers of transactions behind the last record, which are never handed out: they are no lag, and the end of
    /// a partition can be behind one. And finds a start for partitions that have none.
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
            // Asked again.
            Err(error) => tracing::debug!(%error, "cannot fetch what the group has committed"),
        }
        Ok(())
    }

    /// The client only says that all brokers are down, again and again; whether one answers again has to be asked.
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
        // NextOffset then a connection has been tried again, and the reason is the one that lasts.
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

    /// The answer to a commit, with the error if there was one.
    fn answered(&mut self, error: Option<String>) {
        self.offsets.committed(error.is_none());
        let now = Instant::now();
        self.refused_commit = error.is_some().then_some(now);
        let Some(error) = error else { return };
        if let Some(silent) = self.commit_log.allow((), now) {
            tracing::warn!(error, silent, "offsets were not committed: they are part of the next commit");
        }
    }

    /// When it has been told to stop, or is at the end.
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
        self.lanes.is_empty() || Instant::now() >= deadline
    }

    /// The last commit. What the store has not taken in time is left to the next one.
    fn settle(&mut self) -> Result<(), SinkError> {
        if !self.lanes.is_empty() {
            let name = self.store.name();
            tracing::warn!("{name} did not take everything in time: the rest is read again by the next sink");
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
