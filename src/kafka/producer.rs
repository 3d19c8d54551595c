//! Produces readings: as fast as the client goes, a delivery report counted for each record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::config::Connection;

/// A producer of readings, keyed by generatorID.
pub struct ReadingProducer {
    producer: ThreadedProducer<Reports>,
    reports: Reports,
    topic: String,
}

/// What became of the records.
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
    /// A producer to a topic that exists. Records wait up to 5 ms for others to share a request with.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn new(connection: &Connection, topic: &str) -> Result<ReadingProducer, KafkaError> {
        ReadingProducer::with_linger(connection, topic, "5")
    }

    /// As [`ReadingProducer::new`], and no record waits for others.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn without_linger(connection: &Connection, topic: &str) -> Result<ReadingProducer, KafkaError> {
        ReadingProducer::with_linger(connection, topic, "0")
    }

    fn with_linger(
        connection: &Connection,
        topic: &str,
        linger: &str,
    ) -> Result<ReadingProducer, KafkaError> {
        let mut config = connection.producer();
        for (key, value) in [
            // Room for a burst; the client's memory is bounded by kilobytes, not by records.
            ("queue.buffering.max.messages", "1000000"),
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
    /// When the client refuses the record for good.
    pub fn send(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(), KafkaError> {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic);
        record.key = key;
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, unsent)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    record = unsent;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits for the outstanding delivery reports.
    #[must_use]
    pub fn finish(self, timeout: Duration) -> Produced {
        if let Err(error) = self.producer.flush(timeout) {
            tracing::warn!(%error, "not all records were delivered in time");
        }
        Produced {
            delivered: self.reports.0.delivered.load(Ordering::Relaxed),
            failed: self.reports.0.failed.load(Ordering::Relaxed),
            first_error: self.reports.0.first_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Records acknowledged so far.
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
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::config::log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.0.delivered.fetch_add(1, Ordering::Relaxed);
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
