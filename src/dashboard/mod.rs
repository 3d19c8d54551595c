//! The web page about everything: generators, alarms, partitions, workers, and the way of the data, live.
//!
//! It works from Kafka alone and only reads: a restart shows the same, and several may run. No process shares
//! memory with it, no database is needed.
//!
//! # Layout
//!
//! One thread, [`Dashboard::run`], owns what is known ([`model`]). It polls the readers of all topics
//! ([`reader`], [`past`]), takes in what [`observer`] and [`connectors`] have asked the cluster, publishes events
//! ([`feed`]) and answers what HTTP asks ([`questions`]). [`web`] is the HTTP: it shares only the feed and the questions
//! with the loop.

pub mod connectors;
pub mod feed;
pub mod model;
pub mod observer;
pub mod past;
pub mod questions;
pub mod reader;
pub mod web;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::Thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use crossbeam_channel::{Receiver, Sender};
use genwatch_core::alarm::rules::Rules;
use genwatch_core::types::PartitionId;
use genwatch_kafka::clock;
use genwatch_kafka::config::Connection;
use genwatch_kafka::error::ClientError;
use genwatch_kafka::follower::Fetching;
use genwatch_kafka::topics::{Role, Topics};
use secrecy::SecretString;
use serde::Serialize;

use crate::service::http::{HttpAddress, Listening};
use crate::service::{Context, MetricsError, NotReady};
use connectors::ConnectObserver;
use feed::{Due, Feed, frame};
use model::alerts::Alert;
use model::documents::AlertEvent;
use model::fleet::Place;
use model::progress::Bounds;
use model::{Age, Model};
use observer::{FOLLOWED, Observer, Seen};
use past::Past;
use questions::{Answer, Asked, Asker, Question, Unanswered};
use reader::Reader;
use web::Web;
use web::access::Access;

/// Interval of the events `state` and `fleet`.
const EVERY: Duration = Duration::from_secs(1);
/// Interval of the event `plan`: what it is made of is of half a minute.
const PLAN_EVERY: Duration = Duration::from_secs(5);
/// Interval of forgetting.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// The longest wait of one turn of the loop.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// The same while the past is read: 200,000 readings a second at most.
const SLEEP_PAST: Duration = Duration::from_millis(10);
/// Records of one topic in one turn, so that no topic holds up another.
const BURST: usize = 4096;
/// More readings a second than this are not all parsed.
const BUSY: f64 = 5000.0;
/// About the size of a generator in the document of all.
const GENERATOR_BYTES: usize = 170;
/// Alerts of one event, at most.
const ALERTS_MAX: usize = 200;

/// What a dashboard shows, and where.
#[derive(Clone, Debug)]
pub struct DashboardConfig {
    /// How to reach the cluster.
    pub connection: Connection,
    /// The topics.
    pub topics: Topics,
    /// The workers' group.
    pub group: String,
    /// The rules whose thresholds are drawn.
    pub rules: Rules,
    /// How far the time machine goes back.
    pub history: Duration,
    /// Where it listens.
    pub http: HttpAddress,
    /// What clients must know, if anything.
    pub token: Option<SecretString>,
}

/// Why there is no dashboard.
#[derive(Debug, thiserror::Error)]
pub enum DashboardError {
    /// The address is taken, or isn't ours.
    #[error("cannot listen on --http {address}: is something else there? Choose another port")]
    Listen {
        /// The address.
        address: HttpAddress,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// Other machines could look.
    #[error(
        "--http {address} can be reached from other machines, and whoever reaches it sees everything: set --http-token \
         (or --http-token-file), or listen on localhost"
    )]
    NeedsToken {
        /// The address.
        address: HttpAddress,
    },
    /// A client can't be created.
    #[error("a Kafka client could not be created")]
    Client(#[from] ClientError),
    /// The system gives no thread.
    #[error("no thread")]
    Thread(#[source] std::io::Error),
    /// A metric's name is taken.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// Runs a dashboard until it is told to stop.
///
/// # Errors
/// When it can't listen, or the system gives it no thread. Kafka may be away: it waits.
pub fn run(config: DashboardConfig, context: Context) -> Result<(), DashboardError> {
    Dashboard::bind(config)?.run(context)
}

/// A dashboard that has its address, and doesn't answer yet.
#[derive(Debug)]
pub struct Dashboard {
    config: DashboardConfig,
    listening: Listening,
}

impl Dashboard {
    /// Listens.
    ///
    /// # Errors
    /// When the address is taken, or other machines could look without a token.
    pub fn bind(config: DashboardConfig) -> Result<Dashboard, DashboardError> {
        let address = config.http.clone();
        let listening = Listening::at(&config.http)
            .map_err(|error| DashboardError::Listen { address: address.clone(), error })?;
        if config.token.is_none() && !listening.address().ip().is_loopback() {
            return Err(DashboardError::NeedsToken { address });
        }
        Ok(Dashboard { config, listening })
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    /// Runs it on this thread until it is told to stop.
    ///
    /// # Errors
    /// When the system gives no thread or no client.
    pub fn run(self, context: Context) -> Result<(), DashboardError> {
        let Dashboard { config, listening } = self;
        let waker = std::thread::current();
        let feed = Arc::new(Feed::default());
        let (asker, asked) = Asker::new(waker.clone());
        let web = Web::new(Arc::clone(&feed), asker, Access::new(config.token.clone()));
        let (seen_by, seen) = crossbeam_channel::unbounded();
        let (ages, ages_asked) = crossbeam_channel::unbounded();
        let observer = Observer {
            connection: config.connection.clone(),
            topics: config.topics.clone(),
            group: config.group.clone(),
            history: config.history,
            stop: Arc::clone(&context.stop),
            seen: seen_by,
            ages: ages_asked,
            waker: waker.clone(),
        };
        let connectors = ConnectObserver {
            connection: config.connection.clone(),
            topics: config.topics.clone(),
            stop: Arc::clone(&context.stop),
            seen: observer.seen.clone(),
            waker: waker.clone(),
        };
        let state = Loop::new(config, feed, waker, ages, &context)?;
        let address = listening.address();
        listening.serve(&context, |routes| web.extend(routes)).map_err(DashboardError::Thread)?;
        tracing::info!(%address, "the dashboard is at http://{address}/");
        // Detached: an answer may take seconds, and nobody waits for it at the end.
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        drop(thread("observer").spawn(move || observer.run()).map_err(DashboardError::Thread)?);
        drop(thread("connectors").spawn(move || connectors.run()).map_err(DashboardError::Thread)?);
        state.run(&context, &seen, &asked)
    }
}

/// The loop: the one owner of the model.
struct Loop {
    connection: Connection,
    topics: Topics,
    waker: Thread,
    model: Model,
    feed: Arc<Feed>,
    readers: BTreeMap<Role, Reader>,
    past: Past,
    ages: Sender<BTreeMap<PartitionId, Bounds>>,
    gauges: Gauges,
    away: NotReady,
    reading: NotReady,
    /// Whether Kafka answered last time, as far as it was logged.
    answers: Option<bool>,
    /// Alerts that aren't published yet.
    alerts: Vec<Arc<Alert>>,
    /// Readings of this second, and a second in the last one.
    readings: u64,
    readings_rate: f64,
    /// The timeline is published when it has changed.
    timeline: Vec<u8>,
    /// Made for one client, good for the next ones too.
    snapshot: Option<(Instant, Answer)>,
    fleet: Option<(Instant, Answer)>,
}

/// What Prometheus gets.
struct Gauges {
    generators: prometheus::IntGauge,
    readings: prometheus::IntCounter,
    alerts: prometheus::IntCounter,
    bad: prometheus::IntGauge,
}

impl Loop {
    fn new(
        config: DashboardConfig,
        feed: Arc<Feed>,
        waker: Thread,
        ages: Sender<BTreeMap<PartitionId, Bounds>>,
        context: &Context,
    ) -> Result<Loop, DashboardError> {
        let DashboardConfig { connection, topics, group, rules, history, .. } = config;
        let reader = |role: Role| {
            let fetching = if role == Role::Readings { Fetching::Together } else { Fetching::Soon };
            (role, Reader::new(topics.name(role), fetching))
        };
        let metrics = &context.metrics;
        let gauges = Gauges {
            generators: metrics
                .gauge("genwatch_dashboard_generators", "Generators that the dashboard knows.")?,
            readings: metrics.counter("genwatch_dashboard_readings_total", "Readings that it has read.")?,
            alerts: metrics.counter("genwatch_dashboard_alerts_total", "Alert events that it has read.")?,
            bad: metrics.gauge(
                "genwatch_dashboard_bad_records",
                "Records that it has read and that make no sense.",
            )?,
        };
        Ok(Loop {
            readers: FOLLOWED.into_iter().map(reader).collect(),
            model: Model::new(topics.clone(), &group, rules, history, clock::now()),
            connection,
            topics,
            waker,
            feed,
            past: Past::default(),
            ages,
            gauges,
            away: context.health.register("Kafka does not answer", true),
            reading: context.health.register("reading the topics for the first time", true),
            answers: None,
            alerts: Vec::new(),
            readings: 0,
            readings_rate: 0.0,
            timeline: Vec::new(),
            snapshot: None,
            fleet: None,
        })
    }

    fn run(
        mut self,
        context: &Context,
        seen: &Receiver<Seen>,
        asked: &Receiver<Asked>,
    ) -> Result<(), DashboardError> {
        let (mut published, mut planned, mut forgotten) = (Instant::now(), Instant::now(), Instant::now());
        while !context.is_stopping() {
            context.health.heartbeat();
            for seen in seen.try_iter() {
                self.take_in(seen)?;
            }
            let read = self.read_topics();
            self.read_past()?;
            self.publish_alerts();
            for asked in asked.try_iter() {
                self.answer(asked);
            }
            if published.elapsed() >= EVERY {
                self.count(published.elapsed());
                published = Instant::now();
                self.fleet.take_if(|(at, _)| at.elapsed() >= EVERY);
                self.publish_state();
            }
            if planned.elapsed() >= PLAN_EVERY {
                planned = Instant::now();
                if self.feed.has_clients() {
                    self.feed.publish("plan", &json(&self.model.plan_event(clock::now())));
                }
            }
            if forgotten.elapsed() >= FORGET_EVERY {
                forgotten = Instant::now();
                self.model.forget(clock::now());
            }
            if read == 0 {
                let most = if self.past.goes_on() { SLEEP_PAST } else { SLEEP_MAX };
                std::thread::park_timeout(most.min(EVERY.saturating_sub(published.elapsed())));
            }
        }
        Ok(())
    }

    /// Takes in what the observer has seen.
    fn take_in(&mut self, seen: Seen) -> Result<(), DashboardError> {
        let now = clock::now();
        match seen {
            Seen::Answers => {
                if self.answers.replace(true) != Some(true) {
                    tracing::info!(brokers = self.connection.brokers(), "Kafka answers");
                }
                self.model.kafka_answers();
                self.away.set(false);
            }
            Seen::Away(reason) => {
                if self.answers.replace(false) != Some(false) {
                    tracing::warn!(reason, "Kafka does not answer: waiting");
                }
                self.model.kafka_is_away(reason, now);
                self.away.set(true);
            }
            Seen::Topic(role, exists, partitions) => {
                if let Some(reader) = self.readers.get_mut(&role).filter(|_| !exists) {
                    reader.end();
                }
                self.model.topic(role, exists, partitions);
            }
            Seen::Written(role, records) => self.model.written(role, now, records),
            Seen::Begin { role, anew, starts } => {
                if anew && role == Role::Readings {
                    self.model.readings_begin_again();
                    self.past.forget();
                }
                if let Some(reader) = self.readers.get_mut(&role) {
                    reader.begin(&self.connection, &starts, anew, self.waker.clone())?;
                }
            }
            Seen::Past(windows) => self.past.begin(windows),
            Seen::Progress(at, bounds) => {
                self.model.look(at, &bounds);
                let unknown = self.model.unknown_ages();
                if !unknown.is_empty() {
                    // The observer lives as long as the process.
                    let _ = self.ages.send(unknown);
                }
            }
            Seen::Sink(role, at, bounds) => self.model.look_at_sink(role, at, &bounds),
            Seen::Downsample(at, bounds) => self.model.look_at_downsample(at, &bounds),
            Seen::Connectors(at, looks) => self.model.look_at_connectors(at, looks),
            Seen::Oldest(found) => {
                for (partition, offset, at) in found {
                    self.model.oldest(partition, offset, at);
                }
            }
        }
        Ok(())
    }

    /// Reads what is there of all topics; returns how many records there were.
    fn read_topics(&mut self) -> usize {
        let Loop { model, readers, alerts, readings, readings_rate, gauges, .. } = self;
        let now = clock::now();
        let busy = *readings_rate > BUSY;
        let mut read = 0;
        for (role, reader) in readers {
            read += reader.read(BURST, |record, is_new| match role {
                Role::Readings => {
                    *readings += 1;
                    let (partition, offset, at) = (record.partition, record.offset, record.timestamp);
                    let place = Place { partition, offset, at };
                    model.reading(place, record.key, record.value, Age::New { busy }, now);
                }
                Role::Alerts => {
                    gauges.alerts.inc();
                    alerts.extend(model.alert(record.value, now).filter(|_| is_new));
                }
                Role::State => model.state(record.key, record.value),
                Role::Status => model.status(record.key, record.value),
                Role::Workers => model.report(record.key, record.value, record.timestamp),
                Role::DeadLetters | Role::Aggregates => {}
            });
        }
        read
    }

    fn read_past(&mut self) -> Result<(), DashboardError> {
        if !self.past.goes_on() {
            return Ok(());
        }
        let (model, now) = (&mut self.model, clock::now());
        let done = self.past.turn(&self.connection, &self.topics.readings, &self.waker, |record| {
            let (partition, offset, at) = (record.partition, record.offset, record.timestamp);
            model.reading(Place { partition, offset, at }, record.key, record.value, Age::Old, now);
        })?;
        if let Some(from) = done {
            self.model.history_reaches(from);
        }
        Ok(())
    }

    /// Publishes new alerts at once.
    fn publish_alerts(&mut self) {
        let alerts = std::mem::take(&mut self.alerts);
        if !self.feed.has_clients() {
            return;
        }
        for some in alerts.chunks(ALERTS_MAX) {
            let event = AlertEvent { alerts: some.iter().map(|alert| &**alert).collect() };
            self.feed.publish("alert", &json(&event));
        }
    }

    /// Publishes what changes all the time.
    fn publish_state(&mut self) {
        let now = clock::now();
        if self.model.fleet_has_changes() {
            // Whoever gets the event must not get an older list after it.
            self.fleet = None;
            let event = self.model.fleet_event();
            if self.feed.has_clients() {
                self.feed.publish("fleet", &json(&event));
            }
        }
        // Whoever comes gets everything.
        if !self.feed.has_clients() {
            return;
        }
        let timeline = json(&self.model.timeline_rows(now));
        let has_changed = timeline != self.timeline;
        self.timeline = timeline;
        self.feed.publish("state", &json(&self.model.state_event(now, has_changed)));
    }

    /// Counts what was read since.
    fn count(&mut self, since: Duration) {
        self.readings_rate = self.readings as f64 / since.as_secs_f64().max(0.001);
        self.gauges.readings.inc_by(std::mem::take(&mut self.readings));
        self.gauges.generators.set(i64::try_from(self.model.generators()).unwrap_or(i64::MAX));
        self.gauges.bad.set(i64::try_from(self.model.bad()).unwrap_or(i64::MAX));
        let now = clock::now();
        for (role, reader) in &self.readers {
            if reader.has_caught_up() {
                self.model.written(*role, now, reader.records());
            }
        }
        let is_missing = |role: &Role| self.model.topic_exists(*role) == Some(false);
        let has_read = |(role, reader): (&Role, &Reader)| reader.has_caught_up() || is_missing(role);
        // The first time only: who falls behind later still shows something.
        if self.readers.iter().all(has_read) {
            self.reading.set(false);
        }
    }

    /// Answers what HTTP asks.
    fn answer(&mut self, asked: Asked) {
        let now = clock::now();
        let number = self.feed.last();
        let answer = |body: Vec<u8>| Some(Answer { body: body.into(), number });
        let fresh = |cached: &Option<(Instant, Answer)>| {
            cached.as_ref().filter(|(at, _)| at.elapsed() < EVERY).map(|(_, answer)| answer.clone())
        };
        let told = match &asked.question {
            Question::Partitions => answer(json(&self.model.partitions(now, true))),
            Question::Lineage => answer(json(&self.model.lineage(now))),
            Question::Fleet { at: Some(at) } => answer(json(&self.model.fleet(Some(*at), now))),
            Question::Fleet { at: None } => fresh(&self.fleet).or_else(|| {
                // It is large: growing it step by step would take twice the memory.
                let mut body = Vec::with_capacity(self.model.generators() * GENERATOR_BYTES);
                serde_json::to_writer(&mut body, &self.model.fleet(None, now)).ok()?;
                let made = answer(body)?;
                self.fleet = Some((Instant::now(), made.clone()));
                Some(made)
            }),
            Question::Generator { id, from, to } => {
                self.model.generator(id, *from, *to, now).and_then(|document| answer(json(&document)))
            }
            Question::Alerts { limit } => answer(json(&self.model.alerts(*limit, now))),
            Question::Time => answer(json(&self.model.time(now))),
            Question::Plan { target_rate } => match self.model.advice(*target_rate, now) {
                Ok(advice) => answer(json(&advice)),
                Err(reason) => return asked.answer(Err(Unanswered::NotYet(reason.to_string()))),
            },
            // Good as long as the events since then are there.
            Question::Snapshot => fresh(&self.snapshot)
                .filter(|answer| self.feed.after(answer.number) != Due::Snapshot)
                .or_else(|| {
                    let body: Bytes = frame(number, "snapshot", &json(&self.model.snapshot(now)));
                    let made = Answer { body, number };
                    self.snapshot = Some((Instant::now(), made.clone()));
                    Some(made)
                }),
        };
        asked.answer(told.ok_or(Unanswered::Unknown));
    }
}

/// Encodes a document.
fn json(document: &impl Serialize) -> Vec<u8> {
    // Only maps with strings for keys: this can't fail.
    serde_json::to_vec(document).unwrap_or_default()
}
