//! Forwards records that their sender keeps until they are durable: each has a number, by which its delivery is
//! reported.

use std::sync::{Arc, Mutex, PoisonError};

use genwatch_core::engine::encode::DLQ_VALUE_DROPPED;
use genwatch_core::types::{Millis, PartitionId};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::config::Connection;
use super::error::ClientError;

/// A producer that keeps the order of each key and never gives up by itself.
pub struct Forwarder {
    producer: ThreadedProducer<Reports>,
    trouble: Trouble,
}

/// The client's latest connection error.
type Trouble = Arc<Mutex<Option<String>>>;

/// Name and value of a header.
pub type OwnHeader = (String, Option<Vec<u8>>);

/// A record that the sender keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The target topic.
    pub topic: String,
    /// The target partition; `None`: the key decides.
    pub partition: Option<PartitionId>,
    /// The generator.
    pub key: Option<Vec<u8>>,
    /// `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Event time; 0: the time of sending.
    pub at: Millis,
    /// Its headers.
    pub headers: Vec<OwnHeader>,
}

impl Kept {
    /// Returns the record to forward.
    #[must_use]
    pub fn record(&self) -> Forwarded<'_> {
        Forwarded {
            topic: &self.topic,
            partition: self.partition,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            at: self.at,
            headers: &self.headers,
        }
    }

    /// Drops the value, and adds a header that says so; returns whether there was one. For a dead letter, which has
    /// more headers than its record, and may be too large where that one fitted.
    pub fn drop_value(&mut self) -> bool {
        let Some(value) = self.value.take() else { return false };
        self.headers.push((DLQ_VALUE_DROPPED.to_owned(), Some(value.len().to_string().into_bytes())));
        true
    }
}

/// A record to forward.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// The target topic.
    pub topic: &'a str,
    /// The target partition; `None`: the key decides.
    pub partition: Option<PartitionId>,
    /// The generator.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Event time; 0: the time of sending.
    pub at: Millis,
    /// Its headers.
    pub headers: &'a [OwnHeader],
}

impl Forwarded<'_> {
    fn keep(&self) -> Kept {
        Kept {
            topic: self.topic.to_owned(),
            partition: self.partition,
            key: self.key.map(<[u8]>::to_vec),
            value: self.value.map(<[u8]>::to_vec),
            at: self.at,
            headers: self.headers.to_vec(),
        }
    }
}

/// The outcome of one record.
#[derive(Debug)]
pub struct DeliveryReport {
    /// As given to [`Forwarder::send`].
    pub number: u64,
    /// Whether all in-sync replicas have it.
    pub result: Result<(), Undelivered>,
}

/// Why a record can't be delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    /// The broker refuses this record; others may pass. If it shared a request with others, one of them may be the
    /// cause; if it was sent alone, it is the cause itself.
    #[error("the broker refuses the record: {0:?}")]
    Record(DeliveryRefusal, Box<Kept>),
    /// Nothing can be delivered to the topic.
    #[error("{0}")]
    Refused(String),
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryRefusal {
    /// Larger than the topic accepts.
    TooLarge,
    /// Older or newer than the topic accepts.
    InvalidTimestamp,
    /// Not what the topic accepts; or another record of the request isn't.
    InvalidRecord,
    /// A policy of the cluster.
    PolicyViolation,
}

/// What topics accept in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerLimits {
    /// The smallest `max.message.bytes` of them. It limits all that a request holds for a partition: a larger batch is
    /// refused as a whole.
    pub batch_bytes: Option<usize>,
}

impl ProducerLimits {
    /// `batch.size` of a producer that keeps to them.
    pub(crate) fn batch_size(self) -> usize {
        let most = self.batch_bytes.map(|most| most.saturating_sub(BATCH_OVERHEAD).clamp(1, BATCH_BYTES));
        most.unwrap_or(BATCH_BYTES)
    }
}

/// Headers as librdkafka takes them; `None` if there are none.
pub(crate) fn owned(headers: &[OwnHeader]) -> Option<OwnedHeaders> {
    let all = OwnedHeaders::new_with_capacity(headers.len());
    let add =
        |all: OwnedHeaders, (key, value): &OwnHeader| all.insert(Header { key, value: value.as_deref() });
    (!headers.is_empty()).then(|| headers.iter().fold(all, add))
}

/// Bytes of a request besides its records.
const BATCH_OVERHEAD: usize = 1024;
/// librdkafka's own default.
const BATCH_BYTES: usize = 1_000_000;

impl Forwarder {
    /// Creates a producer whose reports go to `report`, on the client's polling thread.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn new(
        connection: &Connection,
        limits: ProducerLimits,
        report: impl Fn(DeliveryReport) + Send + Sync + 'static,
    ) -> Result<Forwarder, ClientError> {
        let mut config = connection.producer();
        for (key, value) in [
            ("batch.size", limits.batch_size().to_string().as_str()),
            // The sender waits, and its own source keeps what isn't durable: an outage loses nothing.
            ("message.timeout.ms", "0"),
            ("linger.ms", "5"),
            // With more than this in the queue, the sender waits.
            ("queue.buffering.max.kbytes", "65536"),
        ] {
            if connection.property(key).is_none() {
                config.set(key, value);
            }
        }
        let trouble = Trouble::default();
        let reports = Reports { report: Arc::new(report), trouble: Arc::clone(&trouble) };
        Ok(Forwarder { producer: config.create_with_context(reports)?, trouble })
    }

    /// Queues a record; returns whether there was room for it.
    ///
    /// # Errors
    /// When the client refuses it permanently.
    pub fn send(&self, number: u64, record: Forwarded<'_>) -> Result<bool, Undelivered> {
        let tag = Tag { number, at: record.at, partition: record.partition };
        let mut queued = BaseRecord::<[u8], [u8], Box<Tag>>::with_opaque_to(record.topic, Box::new(tag))
            .timestamp(record.at.0);
        queued.key = record.key;
        queued.payload = record.value;
        queued.partition = record.partition.map(|partition| partition.0);
        queued.headers = owned(record.headers);
        match self.producer.send(queued) {
            Ok(()) => Ok(true),
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => Ok(false),
            Err((error, _)) => Err(judge(&error, record.topic, || record.keep())),
        }
    }

    /// Returns what keeps records from being delivered, if the client has reported it since the last call.
    #[must_use]
    pub fn take_trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns the number of records not yet delivered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }
}

/// The meaning of an error; `kept` returns the record.
fn judge(error: &KafkaError, topic: &str, kept: impl FnOnce() -> Kept) -> Undelivered {
    use RDKafkaErrorCode as Code;
    let refusal = match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => DeliveryRefusal::TooLarge,
        Some(Code::InvalidTimestamp) => DeliveryRefusal::InvalidTimestamp,
        Some(Code::InvalidRecord | Code::InvalidDifferentRecord) => DeliveryRefusal::InvalidRecord,
        Some(Code::PolicyViolation) => DeliveryRefusal::PolicyViolation,
        Some(Code::TopicAuthorizationFailed) => {
            return Undelivered::Refused(format!(
                "not authorized for topic {topic}: ask for its ACL (write)"
            ));
        }
        _ => return Undelivered::Refused(format!("topic {topic}: {error}")),
    };
    Undelivered::Record(refusal, Box::new(kept()))
}

/// Identifies a record in flight. (A refused record no longer has its timestamp, nor the partition asked for.)
struct Tag {
    number: u64,
    at: Millis,
    partition: Option<PartitionId>,
}

struct Reports {
    report: Arc<dyn Fn(DeliveryReport) + Send + Sync>,
    trouble: Trouble,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::config::log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer");
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers down" comes last, and says least.
        let says_more = error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown);
        if says_more || trouble.is_none() {
            *trouble = Some(reason.to_owned());
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Tag>;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: Box<Tag>) {
        use rdkafka::message::Message as _;
        let result = match result {
            Ok(_) => Ok(()),
            Err((error, record)) => Err(judge(error, record.topic(), || Kept {
                topic: record.topic().to_owned(),
                partition: tag.partition,
                key: record.key().map(<[u8]>::to_vec),
                value: record.payload().map(<[u8]>::to_vec),
                at: tag.at,
                headers: record.headers().map(own_headers).unwrap_or_default(),
            })),
        };
        (self.report)(DeliveryReport { number: tag.number, result });
    }
}

/// Copies a record's headers.
pub(crate) fn own_headers(headers: &impl rdkafka::message::Headers) -> Vec<OwnHeader> {
    let own = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(<[u8]>::to_vec));
    headers.iter().map(own).collect()
}
