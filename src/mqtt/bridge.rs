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
//! One task owns everything here; Kafka's delivery reports come to it as messages.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use futures::StreamExt as _;
use rumqttc::{
    AckMode, AsyncClient, ConnectionError, Event, EventLoop, Outgoing, Packet, Publish, QoS, SubAck,
    SubscribeFilter, SubscribeReasonCode,
};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;

use super::broker::{self, Broker};
use super::client::{self, Socket};
use super::message::{self, Translation, Tree};
use super::metrics::BridgeMetrics;
use super::unacked::{Receipt, Unacked};
use crate::clock;
use crate::health::{Health, Obstacle};
use crate::kafka::admin::{Cluster, ClusterError};
use crate::kafka::config::Connection;
use crate::kafka::forward::{Forwarded, Forwarder, Report, Undelivered};
use crate::kafka::topics::Topics;

/// Messages that the broker may give before we acknowledge one (MQTT 5 receive maximum): what a round trip to Kafka needs at
/// some ten thousand a second, and what an outage of Kafka makes us hold.
const RECEIVE_MAXIMUM: u16 = 1000;
/// Acknowledgements that wait for the connection.
const REQUESTS: u16 = 1000;
/// How long the broker keeps the session, and with it what comes in, while the bridge is away.
const SESSION: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(500);
/// A connection that ends sooner was hardly one, and so many of them in a row have a cause: brokers give a session to the
/// client that came last, and not all say so to the one before.
const SHORT_LIVED: Duration = Duration::from_secs(2);
const SUSPICIOUS: u32 = 3;
/// How long what is under way may take when the bridge is told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the broker may take to close a connection that we have said farewell on.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A wait for Kafka that is worth a line in the log.
const SLOW: Duration = Duration::from_secs(5);
/// How late a stop request may be seen.
const TURN: Duration = Duration::from_millis(100);
/// For messages that need no acknowledgement (QoS 0).
const UNNUMBERED: u64 = u64::MAX;

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
    pub tree: Tree,
}

/// Who watches a bridge, and who stops it.
pub struct Observers {
    /// Set to stop it.
    pub stop: Arc<AtomicBool>,
    /// What it does.
    pub metrics: Arc<BridgeMetrics>,
    /// How it is.
    pub health: Arc<Health>,
}

/// What a bridge did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Messages that came in, repeats included.
    pub received: u64,
    /// Readings that Kafka has, or is about to have.
    pub readings: u64,
    /// Changes of status, as well.
    pub statuses: u64,
    /// Messages that the broker sent again though they were forwarded already; they weren't, twice.
    pub repeats: u64,
    /// Messages that could not be forwarded: too large for the topic, or no status.
    pub dropped: u64,
    /// From the first message to the last acknowledgement of Kafka.
    pub seconds: f64,
}

/// Why a bridge ended.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// Kafka or a topic isn't there.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A client can't be made of the configuration.
    #[error("the producer can't be made: {0}")]
    Client(rdkafka::error::KafkaError),
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
    /// The system refuses.
    #[error("the bridge can't run: {0}")]
    Io(#[from] std::io::Error),
}

/// Runs a bridge on this thread until it's told to stop, or fails.
///
/// # Errors
/// With what a user must mend: Kafka, a topic, the MQTT broker, permissions.
pub fn run(config: BridgeConfig, observers: Observers) -> Result<Summary, BridgeError> {
    let cluster = Cluster::connect(&config.connection)?;
    cluster.require(&config.topics.readings)?;
    cluster.require(&config.topics.status)?;
    drop(cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (reported, reports) = tokio::sync::mpsc::unbounded_channel();
        // A receiver that is gone has no more use for reports.
        let forwarder = Forwarder::new(&config.connection, move |report| drop(reported.send(report)))
            .map_err(BridgeError::Client)?;
        let mut options = config.broker.options(&config.client_id, SESSION);
        options.set_receive_maximum(Some(RECEIVE_MAXIMUM)).set_ack_mode(AckMode::Manual);
        // It publishes nothing.
        options.set_outgoing_inflight_upper_limit(1);
        let socket = Socket::of(&mut options);
        let (client, events) = client::new(options, usize::from(REQUESTS))?;
        let bridge = Bridge {
            client,
            forwarder,
            unacked: Unacked::default(),
            held: None,
            connected: false,
            ever_connected: false,
            connected_at: Instant::now(),
            short_lived: 0,
            outage: None,
            slow: None,
            draining: None,
            farewell: false,
            first: None,
            last: None,
            summary: Summary::default(),
            config,
            observers,
        };
        bridge.run(events, reports, &socket).await
    })
}

struct Bridge {
    config: BridgeConfig,
    observers: Observers,
    client: AsyncClient,
    forwarder: Forwarder,
    unacked: Unacked,
    /// The message that Kafka's producer had no room for.
    held: Option<(u64, Publish)>,
    /// From the broker's word on the session to the connection's end.
    connected: bool,
    ever_connected: bool,
    /// When the last connection was made, and how many in a row have ended at once.
    connected_at: Instant,
    short_lived: u32,
    /// Since when there's no connection, and why.
    outage: Option<(Instant, String)>,
    /// Since when nothing was delivered though something waits; and whether the log knows.
    slow: Option<(Instant, bool)>,
    draining: Option<Instant>,
    /// The broker was told that we go.
    farewell: bool,
    first: Option<Instant>,
    last: Option<Instant>,
    summary: Summary,
}

impl Bridge {
    async fn run(
        mut self,
        events: EventLoop,
        mut reports: UnboundedReceiver<Report>,
        socket: &Socket,
    ) -> Result<Summary, BridgeError> {
        // A poll that is dropped half-way could lose what it was to send: the stream keeps it between our turns.
        let mut events =
            std::pin::pin!(futures::stream::unfold((events, false), |(mut events, failed)| async move {
                if failed {
                    tokio::time::sleep(RECONNECT).await;
                }
                let event = events.poll().await;
                let failed = event.is_err();
                Some((event, (events, failed)))
            }));
        let mut turn = tokio::time::interval(TURN);
        self.outage = Some((Instant::now(), "no answer".to_owned()));
        loop {
            tokio::select! {
                // While there's no room for a message, none is taken in; should the connection end for that, they come again.
                Some(event) = events.next(), if self.held.is_none() => match event {
                    Ok(Event::Incoming(packet)) => self.take_in(packet)?,
                    Ok(Event::Outgoing(Outgoing::Disconnect)) => {
                        socket.read_to_end(CLOSE_TIMEOUT);
                        break;
                    }
                    Ok(Event::Outgoing(_) | Event::Auth(_)) => {}
                    Err(error) => self.disconnected(&error)?,
                },
                Some(report) = reports.recv() => {
                    self.delivered(report)?;
                    self.pass_on_held()?;
                }
                _ = turn.tick() => {
                    self.pass_on_held()?;
                    self.watch()?;
                    if self.observers.stop.load(Ordering::Relaxed) && self.drained() {
                        break;
                    }
                }
            }
            self.acknowledge();
        }
        if let (Some(first), Some(last)) = (self.first, self.last) {
            self.summary.seconds = last.saturating_duration_since(first).as_secs_f64();
        }
        tracing::info!(readings = self.summary.readings, "the bridge has ended");
        Ok(self.summary)
    }

    fn take_in(&mut self, packet: Packet) -> Result<(), BridgeError> {
        match packet {
            Packet::ConnAck(answer) => {
                self.connected(answer.session_present);
                Ok(())
            }
            Packet::SubAck(answer) => self.subscribed(&answer),
            Packet::Publish(publish) => self.forward(&publish),
            _ => Ok(()),
        }
    }

    fn connected(&mut self, resumed: bool) {
        let address = self.config.broker.address().to_string();
        tracing::info!(
            broker = address,
            client_id = self.config.client_id,
            resumed,
            "connected to the MQTT broker"
        );
        self.connected = true;
        self.ever_connected = true;
        self.connected_at = Instant::now();
        self.outage = None;
        self.observers.health.set(Obstacle::NotConnected, false);
        self.unacked.connected(resumed);
        // Also to a session that is there: the topics may be others than at the last start.
        let filters = [&self.config.tree.readings, &self.config.tree.status]
            .map(|pattern| SubscribeFilter::new(pattern.filter(), QoS::AtLeastOnce));
        if let Err(error) = self.client.try_subscribe_many(filters) {
            // The channel has room for it; should it not, the next connection asks again.
            tracing::error!(%error, "subscribing failed");
        }
    }

    fn subscribed(&self, answer: &SubAck) -> Result<(), BridgeError> {
        let patterns = [&self.config.tree.readings, &self.config.tree.status];
        for (code, pattern) in answer.return_codes.iter().zip(patterns) {
            if !matches!(code, SubscribeReasonCode::Success(_)) {
                let filter = pattern.filter();
                return Err(self.refused(format!("the subscription to {filter} was refused: {code:?}")));
            }
        }
        Ok(())
    }

    fn disconnected(&mut self, error: &ConnectionError) -> Result<(), BridgeError> {
        if let Some(reason) = broker::refusal(error) {
            return Err(self.refused(reason));
        }
        let reason = broker::in_words(error);
        if std::mem::replace(&mut self.connected, false) {
            self.observers.health.set(Obstacle::NotConnected, true);
            let at_once = self.connected_at.elapsed() < SHORT_LIVED;
            self.short_lived = if at_once { self.short_lived + 1 } else { 0 };
            let (address, client_id) = (self.config.broker.address().to_string(), &self.config.client_id);
            tracing::warn!(
                broker = address,
                reason,
                "the connection to the MQTT broker is lost; trying again"
            );
            if self.short_lived == SUSPICIOUS {
                tracing::warn!(
                    client_id,
                    "connections end as soon as they are made; does another client use this --client-id?"
                );
            }
        }
        self.outage = Some((self.outage.take().map_or_else(Instant::now, |(since, _)| since), reason));
        Ok(())
    }

    fn refused(&self, reason: String) -> BridgeError {
        BridgeError::Refused { address: self.config.broker.address().to_string(), reason }
    }

    /// Takes a message in, unless it's a repeat.
    fn forward(&mut self, publish: &Publish) -> Result<(), BridgeError> {
        // What isn't taken in comes again: to the next connection, or the next start.
        if !self.connected || self.draining.is_some() {
            return Ok(());
        }
        self.summary.received += 1;
        self.first.get_or_insert_with(Instant::now);
        let number = if publish.qos == QoS::AtMostOnce {
            UNNUMBERED
        } else {
            let told = (&publish.topic, &publish.payload, user_properties(publish));
            let fingerprint = FixedState::default().hash_one(told);
            match self.unacked.received(publish.pkid, publish.dup, fingerprint) {
                Receipt::Forward(number) => number,
                Receipt::Repeat => {
                    self.summary.repeats += 1;
                    return Ok(());
                }
            }
        };
        self.pass_on(number, publish)
    }

    /// Gives a message to Kafka's producer; keeps it where there's no room.
    fn pass_on(&mut self, number: u64, publish: &Publish) -> Result<(), BridgeError> {
        let now = clock::now();
        let at = message::taken_at(user_properties(publish), now);
        // Topics are UTF-8 (MQTT 5.0, 1.5.4); should one not be, its payload tells the generator.
        let topic = std::str::from_utf8(&publish.topic).unwrap_or_default();
        let translation = self.config.tree.translate(topic, &publish.payload, now);
        let record = match &translation {
            Translation::Reading { key } => Forwarded {
                topic: &self.config.topics.readings,
                key: key.as_deref().map(str::as_bytes),
                value: Some(&publish.payload),
                at,
            },
            Translation::Status { key, value } => Forwarded {
                topic: &self.config.topics.status,
                key: Some(key.as_bytes()),
                value: value.as_deref(),
                at,
            },
            Translation::Nothing => {
                // Once: whoever sends one may send many. The metrics count them.
                if self.summary.dropped == 0 {
                    tracing::warn!(topic, "a status that is neither online nor offline is left out");
                }
                self.drop_message(number);
                return Ok(());
            }
        };
        match self.forwarder.send(number, record) {
            Ok(true) => {
                match translation {
                    Translation::Status { .. } => self.summary.statuses += 1,
                    _ => self.summary.readings += 1,
                }
                self.slow.get_or_insert((Instant::now(), false));
            }
            Ok(false) => self.held = Some((number, publish.clone())),
            Err(Undelivered::TooLarge) => {
                tracing::warn!(
                    topic,
                    bytes = publish.payload.len(),
                    "a message is too large for Kafka, and left out"
                );
                self.drop_message(number);
            }
            Err(error) => return Err(BridgeError::Kafka(error)),
        }
        Ok(())
    }

    /// Tries again with the message for which there was no room.
    fn pass_on_held(&mut self) -> Result<(), BridgeError> {
        match self.held.take() {
            Some((number, publish)) => self.pass_on(number, &publish),
            None => Ok(()),
        }
    }

    fn drop_message(&mut self, number: u64) {
        self.summary.dropped += 1;
        self.unacked.durable(number);
    }

    /// Learns what became of a record.
    fn delivered(&mut self, report: Report) -> Result<(), BridgeError> {
        match report.result {
            Ok(()) => self.unacked.durable(report.number),
            Err(Undelivered::TooLarge) => {
                tracing::warn!("a message is larger than max.message.bytes of its topic, and left out");
                self.summary.readings = self.summary.readings.saturating_sub(1);
                self.drop_message(report.number);
            }
            Err(error) => return Err(BridgeError::Kafka(error)),
        }
        let now = Instant::now();
        self.last = Some(now);
        if let Some((since, true)) = self.slow {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, "Kafka takes readings again");
            self.observers.health.set(Obstacle::KafkaAway, false);
        }
        self.slow = (self.forwarder.in_flight() > 0).then_some((now, false));
        Ok(())
    }

    /// Acknowledges what is due, as far as there's room: brokers may have more outstanding than the receive maximum
    /// (Mosquitto 2.0.11 has, after a queue has built up). The rest is due at the next turn.
    fn acknowledge(&mut self) {
        while self.connected
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
        self.observers.health.turned();
        self.observers.metrics.observe(&self.summary, self.unacked.len(), self.connected);
        if let Some((since, reason)) = &self.outage
            && !self.ever_connected
            && since.elapsed() > CONNECT_TIMEOUT
        {
            let address = self.config.broker.address().to_string();
            return Err(BridgeError::NoBroker { address, reason: reason.clone() });
        }
        if let Some((since, logged @ false)) = &mut self.slow
            && since.elapsed() > SLOW
        {
            *logged = true;
            self.observers.health.set(Obstacle::KafkaAway, true);
            let waiting = self.forwarder.in_flight();
            tracing::warn!(
                waiting,
                "Kafka doesn't take readings; they wait, most of them with the MQTT broker"
            );
        }
        Ok(())
    }

    /// Told to stop: takes in no more, and when all is acknowledged says farewell. Whether it's time to go without one.
    fn drained(&mut self) -> bool {
        let since = *self.draining.get_or_insert_with(|| {
            tracing::info!("stopping; what is under way is finished");
            self.observers.health.set(Obstacle::Draining, true);
            Instant::now()
        });
        if !self.connected && self.unacked.is_empty() {
            return true;
        }
        let late = since.elapsed() > DRAIN_TIMEOUT;
        if self.unacked.is_empty() && self.forwarder.in_flight() == 0 && !late {
            // Where there's no room for it, at the next turn.
            self.farewell = self.farewell || self.client.try_disconnect().is_ok();
            return false;
        }
        if late && !self.farewell {
            tracing::warn!(
                "not all was finished in time; what isn't acknowledged comes again at the next start"
            );
        }
        late
    }
}

fn user_properties(publish: &Publish) -> &[(String, String)] {
    publish.properties.as_ref().map_or(&[], |properties| &properties.user_properties)
}
