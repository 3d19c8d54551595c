//! Produces readings as fast as the client can, and counts a delivery report for each record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use genwatch_core::types::Millis;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};

use super::config::Connection;
use super::error::ClientError;
use super::native;
use super::outage::Outage;

/// How long one wait takes before it checks whether to give up.
const SLICE: Duration = Duration::from_millis(100);
/// How long to wait for the reports of purged records: they come at once, or not at all.
const PURGE_TIMEOUT: Duration = Duration::from_secs(1);

/// Records that may wait while the cluster is slow: the client's memory is bounded by kilobytes, not by these.
const BURST: &str = "1000000";

/// A producer of readings, keyed by generatorID.
pub struct ReadingProducer {
    producer: ThreadedProducer<Reports>,
    reports: Reports,
    topic: String,
}

/// The outcome of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    /// Acknowledged by all in-sync replicas.
    pub delivered: u64,
    /// Refused, or timed out.
    pub failed: u64,
    /// Why the first of these failed.
    pub first_error: Option<String>,
}

impl ReadingProducer {
    /// Creates a producer for an existing topic. Records wait up to 5 ms to share a request with others.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn new(connection: &Connection, topic: &str) -> Result<ReadingProducer, ClientError> {
        ReadingProducer::with(connection, topic, "5", BURST)
    }

    /// As [`ReadingProducer::new`], for records that are sent as fast as the client takes them: its queue is always full
    /// then, so it is one that fits a processor's cache.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn at_full_speed(connection: &Connection, topic: &str) -> Result<ReadingProducer, ClientError> {
        ReadingProducer::with(connection, topic, "5", "30000")
    }

    /// As [`ReadingProducer::new`], but no record waits for others.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn without_linger(connection: &Connection, topic: &str) -> Result<ReadingProducer, ClientError> {
        ReadingProducer::with(connection, topic, "0", BURST)
    }

    fn with(
        connection: &Connection,
        topic: &str,
        linger: &str,
        queued: &str,
    ) -> Result<ReadingProducer, ClientError> {
        let mut config = connection.producer();
        for (key, value) in [
            ("queue.buffering.max.messages", queued),
            ("queue.buffering.max.kbytes", "131072"),
            ("linger.ms", linger),
        ] {
            if connection.property(key).is_none() {
                config.set(key, value);
            }
        }
        let reports = Reports::default();
        let producer = config.create_with_context(reports.clone())?;
        Ok(ReadingProducer { producer, reports, topic: topic.to_owned() })
    }

    /// Queues a record; waits while the client's queue is full.
    ///
    /// # Errors
    /// When the client refuses the record permanently.
    pub fn send(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), ClientError> {
        self.send_unless(key, value, None, || false).map(drop)
    }

    /// As [`ReadingProducer::send`], with this event time, if any, instead of the current time; stops waiting when
    /// `give_up` says so. Returns whether the record was queued.
    ///
    /// # Errors
    /// When the client refuses the record permanently.
    pub fn send_unless(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        at: Option<Millis>,
        give_up: impl Fn() -> bool,
    ) -> Result<bool, ClientError> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic);
        record.timestamp = at.map(|at| at.0);
        record.key = key;
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(true),
                Err((error, unsent)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    if give_up() {
                        return Ok(false);
                    }
                    record = unsent;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits for the outstanding delivery reports.
    #[must_use]
    pub fn finish(self, timeout: Duration) -> Produced {
        let deadline = Instant::now() + timeout;
        self.finish_unless(|| Instant::now() > deadline)
    }

    /// Waits for the outstanding delivery reports until `give_up` says so; records without one have then failed.
    #[must_use]
    pub fn finish_unless(self, give_up: impl Fn() -> bool) -> Produced {
        let counts = &self.reports.0;
        while !native::producer::flush(&self.producer, SLICE) {
            if give_up() {
                let waiting = self.producer.in_flight_count();
                tracing::warn!(records = waiting, "not all records were delivered in time");
                let mut first = counts.first_error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| "no answer in time".to_owned());
                drop(first);
                self.producer.purge(PurgeConfig::default().queue().inflight());
                native::producer::flush(&self.producer, PURGE_TIMEOUT);
                break;
            }
        }
        Produced {
            delivered: counts.delivered.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            first_error: counts.first_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Returns the number of records acknowledged so far.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.reports.0.delivered.load(Ordering::Relaxed)
    }
}

/// Counts delivery reports, on the client's polling thread.
#[derive(Clone, Debug, Default)]
struct Reports(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
    first_error: Mutex<Option<String>>,
    outage: Outage,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::config::log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.outage.error(error.rdkafka_error_code(), reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.delivered.fetch_add(1, Ordering::Relaxed);
                self.0.outage.answered();
            }
            Err((error, record)) => {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                let mut first = self.0.first_error.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert_with(|| match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                        format!("not authorized for topic {}: ask for its ACL (write)", record.topic())
                    }
                    _ => error.to_string(),
                });
            }
        }
    }
}
