//! Simulated generators that report by MQTT as real ones do: each has its own connection and publishes `online` and
//! `offline` as retained messages, `offline` also as its last will.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use genwatch_core::types::Millis;
use genwatch_kafka::clock;
use genwatch_kafka::producer::Produced;
use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, Outgoing, Packet, PubAckReason, PublishOptions,
    PublishProperties, QoS,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::broker::{self, Broker};
use super::client;
use super::message::{TIMESTAMP, TopicPatterns};

/// The time limit for all connections together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker keeps unacknowledged messages after a connection breaks.
const SESSION: Duration = Duration::from_secs(60);
/// Pause between attempts to reconnect.
const RECONNECT: Duration = Duration::from_millis(500);
/// Readings of a generator that wait for its connection.
const QUEUED: usize = 16;
/// How long a reading may wait while the broker takes none.
const STUCK: Duration = Duration::from_secs(60);
/// The statuses of a generator; `offline` is also its last will.
const ONLINE: &str = "online";
const OFFLINE: &str = "offline";
/// The time limit for the DISCONNECTs.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections of a fleet, served by one thread.
pub struct MqttFleet {
    generators: HashMap<Vec<u8>, mpsc::Sender<Said>>,
    progress: Arc<Progress>,
    thread: JoinHandle<()>,
}

/// What a generator reports, and when.
struct Said {
    word: Word,
    at: Millis,
}

enum Word {
    Reading(Vec<u8>),
    Status(&'static str),
}

#[derive(Debug, Default)]
struct Progress {
    connected: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    unheard: AtomicBool,
    /// A permanent refusal.
    refusal: Mutex<Option<String>>,
    /// The last other error.
    error: Mutex<Option<String>>,
}

/// Why the fleet can't report.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The topics don't tell generators apart.
    #[error("each generator needs a topic of its own: --{0} must contain {{generatorID}}, and no wildcard")]
    Topic(&'static str),
    /// The broker wasn't reached, or not by all generators.
    #[error("MQTT broker {address}: {connected} of {all} generators are connected: {reason}")]
    NotConnected {
        /// `--mqtt`
        address: String,
        /// How many are connected.
        connected: u64,
        /// How many should be.
        all: usize,
        /// The last error.
        reason: String,
    },
    /// The broker takes nothing any more.
    #[error("the MQTT broker has taken nothing for {seconds} s: {0}", seconds = STUCK.as_secs())]
    Stuck(String),
    /// A permanent refusal by the broker.
    #[error("MQTT broker: {0}")]
    Refused(String),
    /// A system error.
    #[error("the fleet can't report")]
    Io(#[from] std::io::Error),
}

impl MqttFleet {
    /// Connects each of the generators.
    ///
    /// # Errors
    /// When the topics don't name the generator, or not all connect in time.
    pub fn connect(
        broker: &Broker,
        tree: &TopicPatterns,
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
                .set_last_will(LastWill::new(status.clone(), OFFLINE, QoS::AtLeastOnce, true, None))
                .set_outgoing_inflight_upper_limit(1);
            let (client, events) = client::new(options, QUEUED)?;
            let (sender, queue) = mpsc::channel(QUEUED);
            let progress = Arc::clone(&progress);
            let generator = Generator {
                client,
                readings,
                status,
                queue,
                progress,
                next: VecDeque::new(),
                outstanding: None,
                connected: false,
                leaving: false,
            };
            connections.push((generator, events));
            generators.insert(id.into_bytes(), sender);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("mqtt".to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for (generator, events) in connections {
                    tasks.spawn(generator.report(events));
                }
                tasks.join_all().await;
            });
        })?;
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

    /// Queues a reading of one generator; waits while its connection is busy.
    ///
    /// # Errors
    /// When the broker refuses, or takes nothing for a long time.
    pub fn send(&self, generator: &[u8], value: &[u8]) -> Result<(), FleetError> {
        let Some(queue) = self.generators.get(generator) else { return Ok(()) };
        let mut said = Said { word: Word::Reading(value.to_vec()), at: clock::now() };
        let mut waiting_since = None;
        loop {
            said = match queue.try_send(said) {
                Ok(()) => return Ok(()),
                Err(mpsc::error::TrySendError::Full(said) | mpsc::error::TrySendError::Closed(said)) => said,
            };
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

    /// Waits until `sent` readings are acknowledged, then sends DISCONNECT.
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
        let deadline = Instant::now() + DISCONNECT_TIMEOUT;
        // Dropping the queues makes each generator send DISCONNECT.
        drop(self.generators);
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.progress.unheard.load(Ordering::Relaxed) {
            tracing::warn!("some readings had no subscriber: is a bridge running?");
        }
        let delivered = self.progress.delivered.load(Ordering::Relaxed);
        Produced {
            delivered,
            // Unacknowledged readings count as failed.
            failed: sent.saturating_sub(delivered),
            first_error: self.progress.refusal().or_else(|| self.progress.error()),
        }
    }
}

impl Progress {
    fn refused(&self, refusal: String) {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refusal);
    }

    fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

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

/// One generator's connection.
///
/// One message is in flight at a time: after a reconnect several could be sent again in another order.
struct Generator {
    client: AsyncClient,
    readings: String,
    status: String,
    queue: mpsc::Receiver<Said>,
    progress: Arc<Progress>,
    /// The message to send before the queue.
    next: VecDeque<Said>,
    outstanding: Option<Said>,
    connected: bool,
    leaving: bool,
}

impl Generator {
    /// Serves the connection until DISCONNECT is sent, or the broker refuses it.
    async fn report(mut self, events: EventLoop) {
        let mut ever_connected = false;
        // A poll dropped half-way could lose what it was about to send.
        let mut events =
            std::pin::pin!(futures::stream::unfold((events, false), |(mut events, failed)| async move {
                if failed {
                    tokio::time::sleep(RECONNECT).await;
                }
                let event = events.poll().await;
                let failed = event.is_err();
                Some((event, (events, failed)))
            }));
        loop {
            // Without a connection there is no DISCONNECT: the broker has published the last will.
            if !self.connected && self.queue.is_closed() {
                return;
            }
            let idle = self.connected && self.outstanding.is_none() && !self.leaving;
            if idle && let Some(said) = self.next.pop_front() {
                self.say(said);
                continue;
            }
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                        self.connected(answer.session_present);
                        if !std::mem::replace(&mut ever_connected, true) {
                            self.progress.connected.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    Ok(Event::Incoming(Packet::PubAck(answer))) => match self.outstanding.take() {
                        Some(Said { word: Word::Reading(_), .. }) => self.progress.acknowledged(answer.reason),
                        Some(Said { word: Word::Status(OFFLINE), .. }) => {
                            self.leaving = self.client.try_disconnect().is_ok();
                        }
                        _ => {}
                    },
                    Ok(Event::Outgoing(Outgoing::Disconnect)) => return,
                    Ok(_) => {}
                    Err(error) => {
                        self.connected = false;
                        let reason = match broker::refusal(&error) {
                            Some(refusal) if !ever_connected => return self.progress.refused(refusal),
                            Some(refusal) => refusal,
                            None => broker::describe(&error),
                        };
                        *self.progress.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
                    }
                },
                said = self.queue.recv(), if idle => {
                    self.say(said.unwrap_or_else(|| Said { word: Word::Status(OFFLINE), at: clock::now() }));
                }
            }
        }
    }

    /// Publishes `online` first. The client resends what was in flight, unless the broker has forgotten the session:
    /// then the client forgets it too.
    fn connected(&mut self, resumed: bool) {
        self.connected = true;
        self.next.retain(|said| matches!(said.word, Word::Reading(_)));
        if !resumed && let Some(said) = self.outstanding.take_if(|said| matches!(said.word, Word::Reading(_)))
        {
            self.next.push_front(said);
        }
        if !resumed {
            self.outstanding = None;
        }
        self.next.push_front(Said { word: Word::Status(ONLINE), at: clock::now() });
    }

    fn say(&mut self, said: Said) {
        let properties = PublishProperties {
            user_properties: vec![(TIMESTAMP.to_owned(), said.at.0.to_string())],
            ..PublishProperties::default()
        };
        let options = PublishOptions::at_least_once().properties(properties);
        let queued = match &said.word {
            Word::Reading(value) => self.client.try_publish(self.readings.as_str(), value.clone(), options),
            Word::Status(word) => self.client.try_publish(self.status.as_str(), *word, options.retained()),
        };
        match queued {
            Ok(()) => self.outstanding = Some(said),
            // There is room, as nothing else is queued; otherwise it stays pending.
            Err(_) => self.next.push_front(said),
        }
    }
}
