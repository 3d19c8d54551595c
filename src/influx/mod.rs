//! A sink: readings, alerts and aggregates from Kafka to the write API of InfluxDB v2.
//!
//! The way of a record, in `Sink::run`: taken in from the group's partitions ([`crate::kafka::subscriber`]), made a point
//! ([`mod@line`]), gathered with others ([`batch`]), written ([`writer`], on its own thread, by [`client`] and as [`verdict`]
//! judges the answers), and when that is acknowledged its offset is committed ([`ledger`]).
//!
//! What is promised: each record that makes a point is there at least once, and a repeat overwrites itself, as a point's
//! identity is its measurement, tags and time. A committed offset is never ahead of an acknowledged write. At most two
//! batches are held: one under way and one that fills; when both are full, partitions are paused, and Kafka is polled all
//! the same.
//!
//! What is under way when a partition goes is written all the same and not committed: its next owner writes the same points.

pub mod batch;
pub mod client;
pub mod complaints;
pub mod config;
pub mod ledger;
pub mod line;
pub mod metrics;
pub mod verdict;
pub mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use batch::{Batch, Origin, Until};
use complaints::Complaints;
use config::{Observers, SinkConfig, SinkError, Summary};
use ledger::Ledger;
use line::{Shape, Source, Unfit};
use writer::Writer;

use crate::health::Obstacle;
use crate::kafka::admin::Cluster;
use crate::kafka::config::ranges;
use crate::kafka::subscriber::{self, Change, Record, Subscriber};
use crate::log::{Offset, PartitionId, Place};

/// A batch of so many bytes is full, however few records it holds.
const BATCH_BYTES: usize = 4 << 20;
/// How long one turn of the loop waits.
const TURN: Duration = Duration::from_millis(50);
/// Records taken in in one turn, at most.
const BURST: usize = 1000;
/// A pause costs fetching again, so a short wait for the writer is sat out without one, and without polling.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How often positions are asked for, and a refused commit is repeated.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);
/// How long a drain waits for InfluxDB: `docker stop` kills after ten seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the last commit is waited for.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// A sink that is to end at the end and was given no partition waits this long for one.
const EMPTY_HANDED: Duration = Duration::from_secs(10);

/// Runs until it's told to stop, or is at the end.
///
/// # Errors
/// When a topic is missing, Kafka or InfluxDB refuses us, or the last commit fails.
pub fn run(config: SinkConfig, observers: Observers) -> Result<Summary, SinkError> {
    let cluster = Cluster::connect(&config.connection)?;
    let (topics, shapes): (Vec<String>, Vec<Shape>) = config.topics.into_iter().unzip();
    let bounds = if config.exit_at_end { Some(subscriber::bounds(&cluster, &topics)?) } else { None };
    let subscriber = Subscriber::new(&config.connection, &cluster, &config.group, topics.clone())?;
    drop(cluster);
    let url = &config.client.destination().url;
    tracing::info!(group = config.group, topics = topics.join(", "), url, "writing to InfluxDB");
    let (metrics, health) = (Arc::clone(&observers.metrics), Arc::clone(&observers.health));
    let writer = Writer::start(config.client, topics.clone(), metrics, health)?;
    let sink = Sink {
        subscriber: &subscriber,
        writer,
        observers,
        topics,
        shapes,
        batch: config.batch,
        linger: config.linger,
        ending: bounds.map(Ending::new),
        ledger: Ledger::default(),
        filling: Batch::default(),
        begun: None,
        // The writer begins by asking whether it may write.
        writing: Some(BTreeMap::new()),
        full: None,
        paused: false,
        draining: None,
        followed: Instant::now(),
        refused_commit: None,
        complaints: Complaints::default(),
        commit_complaints: Complaints::default(),
        first: None,
        summary: Summary::default(),
    };
    sink.run()
}

/// The loop and all that it owns; the writer's thread owns a batch while it writes it.
struct Sink<'a> {
    subscriber: &'a Subscriber,
    writer: Writer,
    observers: Observers,
    topics: Vec<String>,
    /// How the records of each topic become points.
    shapes: Vec<Shape>,
    batch: usize,
    linger: Duration,
    ending: Option<Ending>,
    ledger: Ledger,
    filling: Batch,
    /// When the first record of the batch was taken in.
    begun: Option<Instant>,
    /// What will be done when the writer has written what it was given.
    writing: Option<BTreeMap<Place, Until>>,
    /// Since when there is no room for a record.
    full: Option<Instant>,
    paused: bool,
    /// Set when the sink is on its way out: until when it may take.
    draining: Option<Instant>,
    followed: Instant,
    refused_commit: Option<Instant>,
    complaints: Complaints<(usize, Unfit)>,
    commit_complaints: Complaints<()>,
    first: Option<Instant>,
    summary: Summary,
}

/// Where the log began and ended when the sink was started, which is where it's to end.
struct Ending {
    starts: BTreeMap<Place, Offset>,
    ends: BTreeMap<Place, Offset>,
    assigned: Option<Instant>,
}

impl Ending {
    fn new(bounds: BTreeMap<Place, (Offset, Offset)>) -> Ending {
        Ending {
            starts: bounds.iter().map(|(place, (start, _))| (*place, *start)).collect(),
            ends: bounds.iter().map(|(place, (_, end))| (*place, *end)).collect(),
            assigned: None,
        }
    }
}

impl Sink<'_> {
    fn run(mut self) -> Result<Summary, SinkError> {
        while !self.is_done() {
            self.observers.health.turned();
            self.begin_to_drain()?;
            self.take_outcome(Duration::ZERO)?;
            self.hand_over()?;
            self.take_in()?;
            self.follow_positions();
            self.commit();
        }
        self.settle()?;
        Ok(self.summary)
    }

    fn take_in(&mut self) -> Result<(), SinkError> {
        if self.draining.is_some() || self.is_full() {
            return self.wait_for_the_writer();
        }
        let mut wait = TURN.min(self.linger);
        for _ in 0..BURST {
            let record = self.subscriber.poll(wait)?;
            // Before the record: it may be of a partition that has just come.
            self.follow_changes()?;
            let Some(record) = record else { break };
            self.take(&record);
            if self.is_full() {
                break;
            }
            wait = Duration::ZERO;
        }
        Ok(())
    }

    fn take(&mut self, record: &Record<'_>) {
        let place = record.place;
        let Some(tenure) = self.ledger.tenure(place) else { return };
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.begun.get_or_insert(now);
        self.summary.records += 1;
        self.observers.metrics.records.with_label_values(&[&self.topics[place.topic]]).inc();
        let origin = Origin { place, offset: record.offset() };
        let source = Source { key: record.key(), value: record.value(), at: record.timestamp() };
        if let Err(unfit) = self.filling.take_in(origin, tenure, &self.shapes[place.topic], &source) {
            self.skip(origin, unfit, now);
        }
    }

    fn skip(&mut self, origin: Origin, unfit: Unfit, now: Instant) {
        let topic = &self.topics[origin.place.topic];
        self.summary.skipped += 1;
        self.observers.metrics.skipped.with_label_values(&[topic.as_str(), unfit.as_str()]).inc();
        if let Some(silent) = self.complaints.may_speak((origin.place.topic, unfit), now) {
            tracing::warn!(
                topic,
                partition = origin.place.partition.0,
                offset = origin.offset.0,
                reason = %unfit,
                silent,
                "a record makes no point: skipped"
            );
        }
    }

    fn is_full(&self) -> bool {
        self.filling.records() >= self.batch || self.filling.bytes() >= BATCH_BYTES
    }

    /// The group is served meanwhile, as soon as the partitions are paused.
    fn wait_for_the_writer(&mut self) -> Result<(), SinkError> {
        let full = *self.full.get_or_insert_with(Instant::now);
        if !self.paused && (self.draining.is_some() || full.elapsed() >= PAUSE_AFTER) {
            self.pause()?;
        }
        self.take_outcome(TURN)?;
        if self.paused {
            // Paused partitions give nothing; should one do all the same, it's taken in.
            if let Some(record) = self.subscriber.poll(Duration::ZERO)? {
                self.follow_changes()?;
                self.take(&record);
            }
            self.follow_changes()?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), SinkError> {
        self.subscriber.pause(&self.ledger.places().collect::<Vec<_>>())?;
        self.paused = true;
        Ok(())
    }

    /// Gives the writer what has been gathered, when it's due and the writer is free.
    fn hand_over(&mut self) -> Result<(), SinkError> {
        let Some(begun) = self.begun.filter(|_| self.writing.is_none()) else { return Ok(()) };
        if !(self.is_full() || self.draining.is_some() || begun.elapsed() >= self.linger) {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.filling);
        self.writing = Some(batch.until().clone());
        self.writer.hand_over(batch);
        (self.begun, self.full) = (None, None);
        if self.paused && self.draining.is_none() {
            self.subscriber.resume(&self.ledger.places().collect::<Vec<_>>())?;
            self.paused = false;
        }
        Ok(())
    }

    fn take_outcome(&mut self, wait: Duration) -> Result<(), SinkError> {
        let Some(written) = self.writer.outcome(wait)? else { return Ok(()) };
        self.writing = None;
        self.ledger.written(written.batch.until());
        let refused = written.refused.len();
        self.summary.points += (written.batch.points() - refused) as u64;
        self.summary.skipped += refused as u64;
        self.summary.writes += written.writes;
        self.summary.retries += written.retries;
        self.summary.seconds = self.first.map_or(0.0, |first| first.elapsed().as_secs_f64());
        Ok(())
    }

    fn follow_changes(&mut self) -> Result<(), SinkError> {
        for change in self.subscriber.take_changes() {
            match change {
                Change::Assigned(places) => {
                    self.observers.health.set(Obstacle::NotJoined, false);
                    if let Some(ending) = &mut self.ending {
                        ending.assigned = Some(Instant::now());
                    }
                    if places.is_empty() {
                        continue;
                    }
                    self.ledger.assigned(&places);
                    // One that was paused when it left comes back paused.
                    if self.paused {
                        self.subscriber.pause(&places)?
                    } else {
                        self.subscriber.resume(&places)?
                    }
                    tracing::info!(assigned = self.names(&places), "rebalance");
                }
                Change::Removed(places) => {
                    self.ledger.removed(&places);
                    tracing::info!(revoked = self.names(&places), "rebalance");
                }
                Change::Lost(places) => {
                    self.ledger.removed(&places);
                    self.observers.health.set(Obstacle::NotJoined, true);
                    tracing::warn!(
                        lost = self.names(&places),
                        "rebalance: the group went on without us; what was not committed is written again"
                    );
                }
            }
        }
        Ok(())
    }

    /// `emergency_generators 0-2, emergency_generators_alerts 1`
    fn names(&self, places: &[Place]) -> String {
        let of_topic = |(number, topic): (usize, &String)| {
            let own = |place: &&Place| place.topic == number;
            let partitions: Vec<PartitionId> =
                places.iter().filter(own).map(|place| place.partition).collect();
            (!partitions.is_empty()).then(|| format!("{topic} {}", ranges(&partitions)))
        };
        self.topics.iter().enumerate().filter_map(of_topic).collect::<Vec<_>>().join(", ")
    }

    /// Learns of markers of transactions behind the last record, which are never handed out: they are no lag, and the end of
    /// a partition can be behind one.
    fn follow_positions(&mut self) {
        if self.followed.elapsed() < FOLLOW_EVERY {
            return;
        }
        self.followed = Instant::now();
        for (place, position) in self.subscriber.positions() {
            let on_its_way = self.filling.until().contains_key(&place)
                || self.writing.as_ref().is_some_and(|writing| writing.contains_key(&place));
            if !on_its_way {
                self.ledger.read_through(place, position);
            }
        }
        let unknown = self.ledger.unknown();
        let Some(ending) = self.ending.as_ref().filter(|_| !unknown.is_empty()) else { return };
        match self.subscriber.committed(&unknown) {
            Ok(committed) => {
                let committed: BTreeMap<Place, Offset> = committed.into_iter().collect();
                for place in unknown {
                    let start = committed.get(&place).or(ending.starts.get(&place)).copied();
                    self.ledger.begins(place, start.unwrap_or(Offset(0)));
                }
            }
            // Asked again.
            Err(error) => tracing::debug!(%error, "what the group has committed is not to be had"),
        }
    }

    fn commit(&mut self) {
        for answer in self.subscriber.take_commits() {
            self.answered(answer.err().map(|error| error.to_string()));
        }
        if self.refused_commit.is_some_and(|at| at.elapsed() < FOLLOW_EVERY) {
            return;
        }
        let offsets = self.ledger.commit();
        if offsets.is_empty() {
            return;
        }
        if let Err(error) = self.subscriber.commit(&offsets) {
            self.answered(Some(error.to_string()));
        }
    }

    /// The answer to a commit, with the error if there was one.
    fn answered(&mut self, error: Option<String>) {
        self.ledger.committed(error.is_none());
        let now = Instant::now();
        self.refused_commit = error.is_some().then_some(now);
        let Some(error) = error else { return };
        if let Some(silent) = self.commit_complaints.may_speak((), now) {
            tracing::warn!(error, silent, "offsets were not committed: they are part of the next commit");
        }
    }

    /// When it has been told to stop, or is at the end.
    fn begin_to_drain(&mut self) -> Result<(), SinkError> {
        let stop = self.observers.stop.load(Ordering::Relaxed);
        if self.draining.is_some() || !(stop || self.has_reached_end()) {
            return Ok(());
        }
        tracing::info!(records = self.filling.records(), "draining");
        self.observers.health.set(Obstacle::Draining, true);
        self.draining = Some(Instant::now() + DRAIN_TIMEOUT);
        self.pause()
    }

    fn has_reached_end(&self) -> bool {
        let Some(ending) = &self.ending else { return false };
        if self.ledger.is_empty() {
            return ending.assigned.is_some_and(|assigned| assigned.elapsed() > EMPTY_HANDED);
        }
        self.writing.is_none() && self.ledger.has_reached(&ending.ends)
    }

    fn is_done(&self) -> bool {
        let Some(deadline) = self.draining else { return false };
        let written = self.begun.is_none() && self.writing.as_ref().is_none_or(BTreeMap::is_empty);
        written || Instant::now() >= deadline
    }

    /// The last commit. What InfluxDB has not taken in time is left to the next one.
    fn settle(&mut self) -> Result<(), SinkError> {
        if self.begun.is_some() || self.writing.as_ref().is_some_and(|writing| !writing.is_empty()) {
            tracing::warn!(
                "InfluxDB did not take everything in time: the rest is read again by the next sink"
            );
        }
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        self.commit();
        while !self.ledger.is_settled() {
            if Instant::now() >= deadline {
                return Err(SinkError::Commit);
            }
            self.observers.health.turned();
            self.subscriber.poll(TURN)?;
            self.follow_changes()?;
            self.commit();
        }
        Ok(())
    }
}
