//! The bridge: what generators say by MQTT goes to Kafka. The way of a message, top-down:
//!
//! ```text
//! subscription ─► translate ─► Kafka (all in-sync replicas) ─► acknowledge, in the order of arrival
//! ```
//!
//! A message is acknowledged to the MQTT broker when Kafka has it, and not before: what the bridge hasn't forwarded when it
//! ends, or while Kafka is away, stays with the MQTT broker, in the session of the bridge's client id. At least once: after a
//! crash of the bridge what was in Kafka and not yet acknowledged comes again.
//!
//! One task owns everything here; Kafka's delivery reports come to it as messages. `link` has what the MQTT broker says of the
//! connection, `passing` what a message becomes, [`summary`] the numbers.

mod link;
mod metrics;
mod passing;
pub mod summary;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
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
use crate::service::{Context, Health, MetricsError, NotReady};
use link::Link;
use metrics::BridgeMetrics;
use passing::{Oldest, Suspects};
use summary::BridgeSummary;

/// Messages that the broker may give before we acknowledge one (MQTT 5 receive maximum): what a round trip to Kafka needs at
/// some ten thousand a second, and what an outage of Kafka makes us hold.
const RECEIVE_MAXIMUM: u16 = 1000;
/// Acknowledgements that wait for the connection.
const REQUESTS: u16 = 1000;
/// Messages, and acknowledgements, that are read or written together.
const BATCH: usize = 128;
/// How long the broker keeps the session, and with it what comes in, while the bridge is away.
const SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Between attempts to connect again; and where the broker refuses us.
const RECONNECT: Duration = Duration::from_millis(500);
const RECONNECT_REFUSED: Duration = Duration::from_secs(5);
/// How long what is under way may take when the bridge is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the broker may take to close a connection that we have sent DISCONNECT on.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A wait for Kafka that is worth a line in the log, and how often it is worth another.
const SLOW: Duration = Duration::from_secs(5);
const STILL_SLOW: Duration = Duration::from_secs(30);
/// How late a stop request may be seen.
const LOOP_SLEEP_MAX: Duration = Duration::from_millis(100);
/// Delivery reports that are taken at a time.
const REPORTS: usize = 256;

/// What a bridge needs to know.
pub struct BridgeConfig {
    /// Kafka.
    pub connection: Connection,
    /// Where the records go.
    pub topics: Topics,
    /// MQTT.
    pub broker: Broker,
    /// Names the session: unique among the broker's clients, and the same after a restart.
    pub client_id: String,
    /// Where generators report.
    pub tree: TopicPatterns,
    /// Which generators are this bridge's own.
    pub share: Share,
}

/// What may be in the way of being ready; what says most comes first.
struct Conditions {
    /// It is on its way out.
    draining: NotReady,
    /// The MQTT broker isn't there.
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
    /// Kafka or a topic isn't there.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A client can't be made of the configuration.
    #[error("the producer can't be made: {0}")]
    Client(ClientError),
    /// The MQTT broker wasn't reached in time.
    #[error("no MQTT broker answers at {address}: {reason}")]
    NoBroker {
        /// `--mqtt`
        address: String,
        /// What happened last.
        reason: String,
    },
    /// The MQTT broker refuses for good.
    #[error("MQTT broker {address}: {reason}")]
    Refused {
        /// `--mqtt`
        address: String,
        /// In words.
        reason: String,
    },
    /// Kafka refuses for good. What it refused stays with the MQTT broker.
    #[error("Kafka refuses: {0}")]
    Kafka(Undelivered),
    /// Kafka refuses what was said just now as too old or too new.
    #[error(
        "Kafka refuses a message of this moment for its timestamp: compare the clock of this machine with the brokers'"
    )]
    Clock,
    /// A mistake in the code.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The system refuses.
    #[error("the bridge can't run: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs a bridge on this thread until it's told to stop, or fails.
///
/// # Errors
/// With what a user must mend: Kafka, a topic, the MQTT broker, permissions.
pub fn run(config: BridgeConfig, context: Context) -> Result<BridgeSummary, BridgeError> {
    let metrics = BridgeMetrics::register(&context.metrics)?;
    let not_ready = Conditions::register(&context.health);
    let cluster = Cluster::connect(&config.connection)?;
    let topics = [&config.topics.readings, &config.topics.status];
    for topic in topics {
        cluster.require(topic)?;
    }
    cluster.require_compacted(
        &config.topics.status,
        "its retention would delete what is known of a generator",
    )?;
    let most_bytes = |topic| cluster.topic_config(topic, "max.message.bytes")?.parse().ok();
    let limits =
        ProducerLimits { batch_bytes: topics.into_iter().filter_map(|topic| most_bytes(topic)).min() };
    let oldest = Oldest::of(cluster.topic_config(&config.topics.readings, "message.timestamp.before.max.ms"));
    drop(cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (reported, reports) = tokio::sync::mpsc::unbounded_channel();
        // A receiver that is gone has no more use for reports.
        let forwarder = Forwarder::new(&config.connection, limits, move |report| drop(reported.send(report)))
            .map_err(BridgeError::Client)?;
        let mut options = config.broker.options(&config.client_id, SESSION);
        options.set_receive_maximum(Some(RECEIVE_MAXIMUM)).set_ack_mode(AckMode::Manual);
        // It publishes nothing; and what it reads and acknowledges goes by many a system call's worth.
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
        };
        bridge.run(events, reports, &socket).await
    })
}

struct Bridge {
    config: BridgeConfig,
    context: Context,
    metrics: BridgeMetrics,
    not_ready: Conditions,
    client: AsyncClient,
    forwarder: Forwarder,
    unacked: Unacked,
    /// The message that Kafka's producer had no room for.
    held: Option<(u64, Publish)>,
    /// Records that Kafka refused, perhaps for others that were with them.
    suspects: Suspects,
    oldest: Oldest,
    link: Link,
    /// Since when nothing was delivered though something waits.
    slow: Option<Slow>,
    draining: Option<Instant>,
    /// The broker is being told that we go.
    disconnect_sent: bool,
    first: Option<Instant>,
    last: Option<Instant>,
    summary: BridgeSummary,
}

struct Slow {
    since: Instant,
    /// When the log was told last.
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
        // A poll that is dropped half-way could lose what it was to send: the stream keeps it between our turns.
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
                // While there's no room for a message, none is taken in; should the connection end for that, they come again.
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

    /// Acknowledges what is due, as far as there's room: brokers may have more outstanding than the receive maximum
    /// (Mosquitto 2.0.11 has, after a queue has built up). The rest is due at the next turn.
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
        Ok(())
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

    /// Told to stop: takes in no more, and when all is acknowledged sends DISCONNECT. Whether it's time to go without one.
    fn drained(&mut self) -> bool {
        let since = *self.draining.get_or_insert_with(|| {
            tracing::info!("stopping; what is under way is finished");
            self.not_ready.draining.set(true);
            Instant::now()
        });
        if !self.link.is_up() && self.unacked.is_empty() {
            return true;
        }
        let late = since.elapsed() > DRAIN_TIMEOUT;
        if self.unacked.is_empty() && self.forwarder.in_flight() == 0 && self.suspects.is_empty() && !late {
            // Where there's no room for it, at the next turn.
            self.disconnect_sent = self.disconnect_sent || self.client.try_disconnect().is_ok();
            return false;
        }
        if late {
            tracing::warn!(
                "not all was finished in time; what isn't acknowledged comes again at the next start"
            );
        }
        late
    }
}
