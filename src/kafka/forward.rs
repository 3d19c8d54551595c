//! Forwards records that somebody else holds until they are durable: each has a number, and its delivery is reported by
//! that.

use std::sync::Arc;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::config::Connection;
use crate::log::Millis;

/// A producer that keeps the order of each key and never gives up by itself.
pub struct Forwarder {
    producer: ThreadedProducer<Reports>,
}

/// A record to be forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// Where to.
    pub topic: &'a str,
    /// The generator.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Event time.
    pub at: Millis,
}

/// What became of the record of this number.
#[derive(Debug)]
pub struct Report {
    /// As given to [`Forwarder::send`].
    pub number: u64,
    /// Whether all in-sync replicas have it.
    pub result: Result<(), Undelivered>,
}

/// Why a record can't be delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The topic doesn't take records of this size; others may pass.
    #[error("larger than the topic takes (max.message.bytes)")]
    TooLarge,
    /// Nothing can be delivered there.
    #[error("{0}")]
    Refused(String),
}

impl Forwarder {
    /// A producer whose reports go to `report`, on the client's polling thread.
    ///
    /// # Errors
    /// When the client can't be made.
    pub fn new(
        connection: &Connection,
        report: impl Fn(Report) + Send + Sync + 'static,
    ) -> Result<Forwarder, KafkaError> {
        let mut config = connection.producer();
        for (key, value) in [
            // The sender is told to wait, and the one before it keeps what isn't durable: an outage loses nothing.
            ("message.timeout.ms", "0"),
            ("linger.ms", "5"),
            // What a sender with more waits for.
            ("queue.buffering.max.kbytes", "65536"),
        ] {
            if connection.property(key).is_none() {
                config.set(key, value);
            }
        }
        Ok(Forwarder { producer: config.create_with_context(Reports(Arc::new(report)))? })
    }

    /// Queues a record; whether there was room for it.
    ///
    /// # Errors
    /// When the client refuses it for good.
    pub fn send(&self, number: u64, record: Forwarded<'_>) -> Result<bool, Undelivered> {
        let mut queued = BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, number as usize)
            .timestamp(record.at.0);
        queued.key = record.key;
        queued.payload = record.value;
        match self.producer.send(queued) {
            Ok(()) => Ok(true),
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => Ok(false),
            Err((error, _)) => Err(judge(&error, record.topic)),
        }
    }

    /// Records that aren't delivered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }
}

fn judge(error: &KafkaError, topic: &str) -> Undelivered {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => Undelivered::TooLarge,
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
            Undelivered::Refused(format!("not authorized for topic {topic}: ask for its ACL (write)"))
        }
        _ => Undelivered::Refused(format!("topic {topic}: {error}")),
    }
}

struct Reports(Arc<dyn Fn(Report) + Send + Sync>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::config::log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        use rdkafka::message::Message as _;
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, record)) => Err(judge(error, record.topic())),
        };
        (self.0)(Report { number: number as u64, result });
    }
}
