//! The bridge: forwards the generators' MQTT messages to Kafka. A message's path, top-down:
//!
//! ```text
//! subscription ─► translate ─► Kafka (all in-sync replicas) ─► acknowledge, in the order of arrival
//! ```
//!
//! A message is acknowledged to the MQTT broker only once Kafka has it. What isn't forwarded when the bridge ends, or
//! while Kafka is away, stays with the MQTT broker, in the session of the bridge's client id. Delivery is at least
//! once: after a crash of the bridge, messages that were in Kafka and not yet acknowledged come again.
//!
//! One task owns everything here; it receives Kafka's delivery reports as messages. `link` handles the MQTT connection,
//! `passing` turns messages into records, `transforming` applies `--transform` to them on the way, [`summary`] has the
//! counts.

mod link;
mod metrics;
mod passing;
pub mod summary;
mod transforming;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use genwatch_core::report::Kind;
use genwatch_core::transform::Transform;
use genwatch_kafka::admin::{Cluster, ClusterError};
use genwatch_kafka::config::Connection;
use genwatch_kafka::error::ClientError;
use genwatch_kafka::forward::{DeliveryReport, Forwarder, ProducerLimits, Undelivered};
use genwatch_kafka::topics::Topics;
use rumqttc::{AckMode, AsyncClient, Event, EventLoop, Outgoing, Packet, Publish, QoS};
use tokio::sync::mpsc::UnboundedReceiver;

use super::broker::{self, Broker};
use super::client::{self, Socket};
use super::message::TopicPatterns;
use super::share::Share;
use super::unacked::Unacked;
use crate::service::reporter::{Activity, Identity, Reporter, Reporting};
use crate::service::targets::{TargetError, Targets};
use crate::service::{Context, Health, MetricsError, NotReady};
use link::Link;
use metrics::BridgeMetrics;
use passing::{Oldest, Suspects};
use summary::BridgeSummary;

/// Messages that the broker may send before we acknowledge one (MQTT 5 receive maximum): enough for a round trip to
/// Kafka at some ten thousand a second, and the most we hold during an outage of Kafka.
const RECEIVE_MAXIMUM: u16 = 1000;
/// Acknowledgements that wait for the connection.
const REQUESTS: u16 = 1000;
/// Messages or acknowledgements read or written together.
const BATCH: usize = 128;
/// How long the broker keeps the session and its messages while the bridge is away.
const SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Pauses between attempts to reconnect, in general and after a refusal.
const RECONNECT: Duration = Duration::from_millis(500);
const RECONNECT_REFUSED: Duration = Duration::from_secs(5);
/// The time limit for messages in flight after a stop request.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the broker may take to close the connection after our DISCONNECT.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a wait for Kafka lasts before it is logged, and before it is logged again.
const SLOW: Duration = Duration::from_secs(5);
const STILL_SLOW: Duration = Duration::from_secs(30);
/// The longest delay before a stop request is seen.
const LOOP_SLEEP_MAX: Duration = Duration::from_millis(100);
/// Interval of telling others what the bridge does.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Delivery reports taken at a time.
const REPORTS: usize = 256;

/// The configuration of a bridge.
pub struct BridgeConfig {
    /// Kafka.
    pub connection: Connection,
    /// Where the records go.
    pub topics: Topics,
    /// MQTT.
    pub broker: Broker,
    /// Names the session and the bridge: unique among the broker's clients, the same after a restart.
    pub client_id: String,
    /// Where generators report.
    pub tree: TopicPatterns,
    /// Which generators this bridge forwards.
    pub share: Share,
    /// What is changed of readings on the way.
    pub transform: Option<Arc<Transform>>,
}

/// What may prevent readiness; the most telling reason first.
struct Conditions {
    /// The bridge is stopping.
    draining: NotReady,
    /// No connection to the MQTT broker.
    not_connected: NotReady,
    /// Kafka takes no records at the moment.
    kafka_away: NotReady,
}

impl Conditions {
    fn register(health: &Health) -> Conditions {
        Conditions {
            draining: health.register("draining", false),
            not_connected: health.register("not connected to the MQTT broker", true),
            kafka_away: health.register("Kafka takes no records", false),
        }
    }
}

/// Why a bridge ended.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// Kafka or a topic is missing.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A topic that a step of the transformations names.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The configuration yields no client.
    #[error("cannot make the producer")]
    Client(#[source] ClientError),
    /// The MQTT broker wasn't reached in time.
    #[error("no MQTT broker answers at {address}: {reason}")]
    NoBroker {
        /// `--mqtt`
        address: String,
        /// The last error.
        reason: String,
    },
    /// A permanent refusal by the MQTT broker.
    #[error("MQTT broker {address}: {reason}")]
    Refused {
        /// `--mqtt`
        address: String,
        /// What the broker refused.
        reason: String,
    },
    /// A permanent refusal by Kafka. The refused message stays with the MQTT broker.
    #[error("Kafka refuses")]
    Kafka(#[source] Undelivered),
    /// Kafka refuses a current timestamp as too old or too new.
    #[error("Kafka refuses a current timestamp: compare the clock of this machine with the brokers'")]
    Clock,
    /// A bug.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A system error.
    #[error("the bridge can't run")]
    Io(#[from] std::io::Error),
}

/// Runs a bridge on this thread until it is stopped or fails.
///
/// # Errors
/// With what the user must fix: Kafka, a topic, the MQTT broker, permissions.
pub fn run(config: BridgeConfig, context: Context) -> Result<BridgeSummary, BridgeError> {
    let metrics = BridgeMetrics::register(&context.metrics)?;
    let not_ready = Conditions::register(&context.health);
    let cluster = Cluster::connect(&config.connection)?;
    let transform = config.transform.as_deref();
    let mut topics = vec![config.topics.readings.as_str(), &config.topics.status];
    topics.extend(transform.map(|_| config.topics.dead_letters.as_str()));
    for topic in &topics {
        cluster.require(topic)?;
    }
    topics.extend(transform.iter().flat_map(|transform| transform.fixed_targets()).map(|(topic, _)| topic));
    cluster.require_compacted(
        &config.topics.status,
        "its retention would delete what is known of a generator",
    )?;
    let most_bytes = |topic| cluster.topic_config(topic, "max.message.bytes")?.parse().ok();
    let limits = ProducerLimits { batch_bytes: topics.into_iter().filter_map(most_bytes).min() };
    let oldest = Oldest::of(cluster.topic_config(&config.topics.readings, "message.timestamp.before.max.ms"));
    let targets = Targets::new(Arc::new(cluster), transform, &config.topics.own())?;
    // Dropped last: the bridge's tombstone is its last word.
    let mut reporter = Reporter::default();
    let identity = Identity {
        worker: config.client_id.clone(),
        kind: Kind::Bridge,
        group: None,
        topics: Vec::new(),
        peer: Some(config.broker.address().to_string()),
        to: None,
    };
    reporter.start(&config.connection, &config.topics.workers, identity)?;
    let reporting = reporter.reporting();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (reported, reports) = tokio::sync::mpsc::unbounded_channel();
        // Without a receiver nobody needs the report.
        let forwarder = Forwarder::new(&config.connection, limits, move |report| drop(reported.send(report)))
            .map_err(BridgeError::Client)?;
        let mut options = config.broker.options(&config.client_id, SESSION);
        options.set_receive_maximum(Some(RECEIVE_MAXIMUM)).set_ack_mode(AckMode::Manual);
        // It publishes nothing; it reads and acknowledges in batches to save system calls.
        options.set_outgoing_inflight_upper_limit(1).set_read_batch_size(BATCH).set_max_request_batch(BATCH);
        let socket = Socket::of(&mut options);
        let (client, events) = client::new(options, usize::from(REQUESTS))?;
        let bridge = Bridge {
            client,
            forwarder,
            unacked: Unacked::default(),
            held: None,
            suspects: Suspects::default(),
            oldest,
            targets,
            link: Link::new(),
            slow: None,
            draining: None,
            disconnect_sent: false,
            first: None,
            last: None,
            summary: BridgeSummary::default(),
            config,
            context,
            metrics,
            not_ready,
            reporting,
            reported: Instant::now(),
        };
        bridge.run(events, reports, &socket).await
    })
}

struct Bridge {
    config: BridgeConfig,
    context: Context,
    metrics: BridgeMetrics,
    not_ready: Conditions,
    reporting: Reporting,
    reported: Instant,
    client: AsyncClient,
    forwarder: Forwarder,
    unacked: Unacked,
    /// The message that didn't fit into the producer's queue.
    held: Option<(u64, Publish)>,
    /// Records that Kafka refused, perhaps because of others in the same request.
    suspects: Suspects,
    oldest: Oldest,
    /// Where routes may lead.
    targets: Targets,
    link: Link,
    /// Since when nothing was delivered although something waits.
    slow: Option<Slow>,
    draining: Option<Instant>,
    /// DISCONNECT was sent to the broker.
    disconnect_sent: bool,
    first: Option<Instant>,
    last: Option<Instant>,
    summary: BridgeSummary,
}

struct Slow {
    since: Instant,
    /// When it was last logged.
    told: Option<Instant>,
}

impl Slow {
    fn now() -> Slow {
        Slow { since: Instant::now(), told: None }
    }
}

impl Bridge {
    async fn run(
        mut self,
        events: EventLoop,
        mut reports: UnboundedReceiver<DeliveryReport>,
        socket: &Socket,
    ) -> Result<BridgeSummary, BridgeError> {
        // A poll dropped half-way could lose what it was about to send: the stream keeps it between iterations.
        let mut events = std::pin::pin!(futures::stream::unfold(
            (events, Duration::ZERO),
            |(mut events, pause)| async move {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                let event = events.poll().await;
                let pause = match &event {
                    Ok(_) => Duration::ZERO,
                    Err(error) if broker::refusal(error).is_some() => RECONNECT_REFUSED,
                    Err(_) => RECONNECT,
                };
                Some((event, (events, pause)))
            }
        ));
        let mut turn = tokio::time::interval(LOOP_SLEEP_MAX);
        let mut reported = Vec::with_capacity(REPORTS);
        loop {
            tokio::select! {
                // Without room for a message none is taken in; if the connection ends because of that, they come again.
                Some(event) = events.next(), if self.takes_messages() => match event {
                    Ok(Event::Incoming(packet)) => self.take_in(packet)?,
                    Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                        socket.read_to_end(CLOSE_TIMEOUT);
                        break;
                    }
                    Ok(Event::Outgoing(_) | Event::Auth(_)) => {}
                    Err(error) => self.disconnected(&error)?,
                },
                _ = reports.recv_many(&mut reported, REPORTS) => {
                    for report in reported.drain(..) {
                        self.delivered(report)?;
                    }
                    self.go_on(reports.is_empty())?;
                }
                _ = turn.tick() => {
                    self.go_on(reports.is_empty())?;
                    self.watch()?;
                    if self.context.is_stopping() && self.drained() {
                        break;
                    }
                }
            }
            self.acknowledge();
        }
        if let (Some(first), Some(last)) = (self.first, self.last) {
            self.summary.seconds = last.saturating_duration_since(first).as_secs_f64();
        }
        self.summary.unacknowledged = self.unacked.len() as u64;
        tracing::info!(
            readings = self.summary.readings,
            unacknowledged = self.summary.unacknowledged,
            "the bridge has ended"
        );
        Ok(self.summary)
    }

    fn take_in(&mut self, packet: Packet) -> Result<(), BridgeError> {
        match packet {
            Packet::ConnAck(answer) => {
                self.connected(answer.session_present);
                Ok(())
            }
            Packet::SubAck(answer) => self.subscribed(&answer),
            Packet::UnsubAck(answer) => {
                self.link.unsubscribed(&answer);
                Ok(())
            }
            Packet::Publish(publish) => self.forward(&publish),
            _ => Ok(()),
        }
    }

    /// Acknowledges the durable messages as far as there is room: brokers may have more in flight than the receive
    /// maximum (Mosquitto 2.0.11 does, after a queue has built up). The rest follows in the next iteration.
    fn acknowledge(&mut self) {
        while self.link.is_up()
            && let Some(packet) = self.unacked.due()
        {
            let publish = Publish { qos: QoS::AtLeastOnce, pkid: packet, ..Publish::default() };
            if self.client.try_ack(&publish).is_err() {
                break;
            }
            self.unacked.acknowledged();
        }
    }

    fn watch(&mut self) -> Result<(), BridgeError> {
        self.context.health.heartbeat();
        self.metrics.observe(&self.summary, self.unacked.len(), self.link.is_up());
        if let Some(reason) = self.link.never_came_up() {
            let address = self.config.broker.address().to_string();
            return Err(BridgeError::NoBroker { address, reason });
        }
        if self.link.subscribe_is_due() {
            self.subscribe();
        }
        self.tell_if_slow();
        self.report();
        Ok(())
    }

    /// Tells others what the bridge does.
    fn report(&mut self) {
        if self.reported.elapsed() < REPORT_EVERY {
            return;
        }
        self.reported = Instant::now();
        self.reporting.tell(Activity {
            not_ready: self.context.health.ready().err(),
            records: self.summary.readings + self.summary.statuses,
            // It can have so many under way.
            busy: self.unacked.len() as f64 / f64::from(RECEIVE_MAXIMUM),
            in_flight: self.unacked.len() as u64,
            ..Activity::default()
        });
    }

    fn tell_if_slow(&mut self) {
        let Some(Slow { since, told }) = &mut self.slow else { return };
        let due = match told {
            None => since.elapsed() > SLOW,
            Some(told) => told.elapsed() > STILL_SLOW,
        };
        if !due {
            return;
        }
        *told = Some(Instant::now());
        self.not_ready.kafka_away.set(true);
        let waiting = self.forwarder.in_flight();
        let reason = self.forwarder.take_trouble().unwrap_or_else(|| "no answer".to_owned());
        tracing::warn!(
            waiting,
            seconds = since.elapsed().as_secs(),
            reason,
            "Kafka doesn't take readings; they wait, most of them with the MQTT broker"
        );
    }

    /// Stops taking messages in, and sends DISCONNECT once all are acknowledged. Returns true to end without one.
    fn drained(&mut self) -> bool {
        let since = *self.draining.get_or_insert_with(|| {
            tracing::info!("stopping; finishing messages in flight");
            self.not_ready.draining.set(true);
            Instant::now()
        });
        if !self.link.is_up() && self.unacked.is_empty() {
            return true;
        }
        let late = since.elapsed() > DRAIN_TIMEOUT;
        if self.unacked.is_empty() && self.forwarder.in_flight() == 0 && self.suspects.is_empty() && !late {
            // Without room for it, retries in the next iteration.
            self.disconnect_sent = self.disconnect_sent || self.client.try_disconnect().is_ok();
            return false;
        }
        if late {
            tracing::warn!("not finished in time; unacknowledged messages come again at the next start");
        }
        late
    }
}
