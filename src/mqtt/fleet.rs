//! Simulated generators that report by MQTT, as real ones do: each with a connection of its own, `online` and `offline` as
//! retained messages, the latter left with the broker as last will.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, Outgoing, Packet, PubAckReason, PublishOptions,
    PublishProperties, QoS,
};
use tokio::task::JoinSet;

use super::broker::{self, Broker};
use super::client;
use super::message::{TIMESTAMP, Tree};
use crate::clock;
use crate::kafka::producer::Produced;

/// How long all connections together may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker keeps what it hasn't acknowledged of a connection that broke.
const SESSION: Duration = Duration::from_secs(60);
/// Between attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(500);
/// Readings of a generator that wait for its connection.
const QUEUED: usize = 16;
/// How long a reading may wait while the broker takes none.
const STUCK: Duration = Duration::from_secs(60);
/// How long the farewells may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// The connections of a fleet. A thread of its own serves them.
pub struct MqttFleet {
    generators: HashMap<Vec<u8>, Generator>,
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

struct Generator {
    client: AsyncClient,
    readings: String,
    status: String,
}

#[derive(Debug, Default)]
struct Progress {
    connected: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    unheard: AtomicBool,
    /// A refusal that no waiting mends.
    refusal: Mutex<Option<String>>,
    /// What else happened last.
    error: Mutex<Option<String>>,
}

/// Why the fleet can't report.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The topics don't tell generators apart.
    #[error("each generator needs a topic of its own: --{0} must contain {{generatorID}}, and no wildcard")]
    Topic(&'static str),
    /// The broker wasn't reached, or not by all.
    #[error("MQTT broker {address}: {connected} of {all} generators are connected: {reason}")]
    NotConnected {
        /// `--mqtt`
        address: String,
        /// How many are.
        connected: u64,
        /// How many should be.
        all: usize,
        /// What happened last.
        reason: String,
    },
    /// The broker takes nothing any more.
    #[error("the MQTT broker has taken nothing for {seconds} s: {0}", seconds = STUCK.as_secs())]
    Stuck(String),
    /// The broker refuses for good.
    #[error("MQTT broker: {0}")]
    Refused(String),
    /// The system refuses.
    #[error("the fleet can't report: {0}")]
    Io(#[from] std::io::Error),
}

impl MqttFleet {
    /// Connects each of the generators.
    ///
    /// # Errors
    /// When the topics don't name the generator, or not all are connected in time.
    pub fn connect(
        broker: &Broker,
        tree: &Tree,
        ids: impl Iterator<Item = String>,
    ) -> Result<MqttFleet, FleetError> {
        let progress = Arc::new(Progress::default());
        let mut generators = HashMap::new();
        let mut connections = Vec::new();
        for id in ids {
            let readings = tree.readings.of(&id).ok_or(FleetError::Topic("mqtt-topic"))?;
            let status = tree.status.of(&id).ok_or(FleetError::Topic("mqtt-status-topic"))?;
            let mut options = broker.options(&id, SESSION);
            options
                .set_last_will(LastWill::new(status.clone(), "offline", QoS::AtLeastOnce, true, None))
                // One at a time: after a reconnect more of them might be sent again in another order.
                .set_outgoing_inflight_upper_limit(1);
            let (client, events) = client::new(options, QUEUED)?;
            connections.push((events, client.clone(), status.clone()));
            generators.insert(id.into_bytes(), Generator { client, readings, status });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = {
            let progress = Arc::clone(&progress);
            std::thread::Builder::new().name("mqtt".to_owned()).spawn(move || {
                runtime.block_on(async {
                    let mut tasks = JoinSet::new();
                    for (events, client, status) in connections {
                        tasks.spawn(report(events, client, status, Arc::clone(&progress)));
                    }
                    tasks.join_all().await;
                });
            })?
        };
        let fleet = MqttFleet { generators, progress, thread };
        fleet.wait_for_connections(broker)?;
        Ok(fleet)
    }

    fn wait_for_connections(&self, broker: &Broker) -> Result<(), FleetError> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        loop {
            let connected = self.progress.connected.load(Ordering::Relaxed);
            if connected == self.generators.len() as u64 {
                return Ok(());
            }
            let refusal = self.progress.refusal();
            if refusal.is_some() || Instant::now() > deadline {
                return Err(FleetError::NotConnected {
                    address: broker.address().to_string(),
                    connected,
                    all: self.generators.len(),
                    reason: refusal
                        .or_else(|| self.progress.error())
                        .unwrap_or_else(|| "no answer".to_owned()),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Queues a reading of one of the generators; waits while its connection is busy.
    ///
    /// # Errors
    /// When the broker refuses, or takes nothing for a long time.
    pub fn send(&self, generator: &[u8], value: &[u8]) -> Result<(), FleetError> {
        let Some(Generator { client, readings, .. }) = self.generators.get(generator) else { return Ok(()) };
        let properties = || PublishProperties {
            user_properties: vec![(TIMESTAMP.to_owned(), clock::now().to_string())],
            ..PublishProperties::default()
        };
        let mut waiting_since = None;
        loop {
            let options = PublishOptions::at_least_once().properties(properties());
            if client.try_publish(readings.as_str(), value.to_vec(), options).is_ok() {
                return Ok(());
            }
            if let Some(refusal) = self.progress.refusal() {
                return Err(FleetError::Refused(refusal));
            }
            if waiting_since.get_or_insert_with(Instant::now).elapsed() > STUCK {
                return Err(FleetError::Stuck(
                    self.progress.error().unwrap_or_else(|| "no answer".to_owned()),
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for the acknowledgements of so many readings, and says farewell.
    #[must_use]
    pub fn finish(self, sent: u64, timeout: Duration) -> Produced {
        let deadline = Instant::now() + timeout;
        let reported = || {
            let progress = &self.progress;
            progress.delivered.load(Ordering::Relaxed) + progress.failed.load(Ordering::Relaxed)
        };
        while reported() < sent && self.progress.refusal().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let deadline = Instant::now() + FAREWELL;
        for generator in self.generators.values() {
            let retained = PublishOptions::at_most_once().retained();
            let said = generator.client.try_publish(generator.status.as_str(), "offline", retained);
            // Where the connection is full or gone, the last will does the same: no DISCONNECT, which would revoke it.
            if said.and_then(|()| generator.client.try_disconnect()).is_err() {
                tracing::debug!(topic = generator.status, "no farewell");
            }
        }
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.progress.unheard.load(Ordering::Relaxed) {
            tracing::warn!("nobody had subscribed to some of the readings: is a bridge running?");
        }
        Produced {
            delivered: self.progress.delivered.load(Ordering::Relaxed),
            failed: self.progress.failed.load(Ordering::Relaxed),
            first_error: self.progress.refusal().or_else(|| self.progress.error()),
        }
    }
}

impl Progress {
    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves one generator's connection until its farewell is sent, or it's refused.
async fn report(mut events: EventLoop, client: AsyncClient, status: String, progress: Arc<Progress>) {
    let mut ever_connected = false;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                let retained = PublishOptions::at_most_once().retained();
                if let Err(error) = client.try_publish(status.as_str(), "online", retained) {
                    tracing::debug!(%error, "not said to be online");
                }
                if !std::mem::replace(&mut ever_connected, true) {
                    progress.connected.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(Event::Incoming(Packet::PubAck(answer))) => progress.acknowledged(answer.reason),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
            Ok(_) => {}
            Err(error) => {
                if let Some(refusal) = broker::refusal(&error) {
                    progress.refusal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refusal);
                    return;
                }
                *progress.error.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(broker::in_words(&error));
                tokio::time::sleep(RECONNECT).await;
            }
        }
    }
}

impl Progress {
    fn acknowledged(&self, reason: PubAckReason) {
        match reason {
            PubAckReason::Success => {}
            PubAckReason::NoMatchingSubscribers => self.unheard.store(true, Ordering::Relaxed),
            refused => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let mut error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                error.get_or_insert_with(|| format!("a reading was refused: {refused:?}"));
                return;
            }
        }
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }
}
