//! Writes the reports of a worker, bridge or sink to `<group>_workers`: outside of transactions, and never in the way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};

use super::admin::{Cluster, ClusterError, TopicPlan};
use super::config::Connection;
use super::error::ClientError;
use super::topics::Role;

/// A report that wasn't written within this many milliseconds is worthless: newer ones follow.
const MESSAGE_TIMEOUT_MS: &str = "10000";

/// The longest wait for one answer.
const FLUSH_STEP: Duration = Duration::from_millis(20);

/// Creates the topic of reports if it is missing.
///
/// # Errors
/// When the cluster doesn't answer, or refuses.
pub fn ensure_topic(connection: &Connection, topic: &str) -> Result<(), ClusterError> {
    let cluster = Cluster::connect(connection)?;
    if cluster.topic(topic)?.is_none() {
        let plan = TopicPlan::like_its_cluster(&cluster, topic, 1, Role::Workers.config())?;
        if cluster.create(&plan)? {
            tracing::info!(topic, "created the topic of workers' reports");
        }
    }
    Ok(())
}

/// A producer of reports.
pub struct ReportProducer {
    producer: BaseProducer<Reports>,
    topic: String,
}

impl ReportProducer {
    /// Creates it for an existing topic.
    ///
    /// # Errors
    /// When the client can't be created.
    pub fn new(connection: &Connection, topic: &str) -> Result<ReportProducer, ClientError> {
        let mut config = connection.producer();
        for (key, value) in [
            // A lost report is replaced by the next one a second later.
            ("enable.idempotence", "false"),
            ("acks", "1"),
            // In order nevertheless: the last one is a tombstone.
            ("max.in.flight.requests.per.connection", "1"),
            ("linger.ms", "0"),
            ("message.timeout.ms", MESSAGE_TIMEOUT_MS),
            ("queue.buffering.max.messages", "100"),
        ] {
            config.set(key, value);
        }
        let producer = config.create_with_context(Reports::default())?;
        Ok(ReportProducer { producer, topic: topic.to_owned() })
    }

    /// Queues a report, or a tombstone; drops it if the queue is full. Takes in what became of earlier ones.
    pub fn send(&self, worker: &str, report: Option<&[u8]>) {
        self.producer.poll(Duration::ZERO);
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).key(worker.as_bytes());
        record.payload = report;
        if let Err((error, _)) = self.producer.send(record) {
            tracing::debug!(topic = self.topic, %error, "a report was dropped");
        }
    }

    /// Waits until all is written, at most this long.
    pub fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        // Not by `flush` of rust-rdkafka (0.39), which returns 100 ms after the last answer.
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            self.producer.poll(FLUSH_STEP);
        }
    }
}

#[derive(Debug, Default)]
struct Reports {
    /// Whether it was logged that they can't be written.
    refused: AtomicBool,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::config::log(level as i32, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The service's other clients report outages.
        tracing::debug!(%error, reason, "the producer of reports");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((error, _)) = result else {
            self.refused.store(false, Ordering::Relaxed);
            return;
        };
        let advice = match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => "ask for the ACL (write) of this topic",
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                "create it with `genwatch topics create`"
            }
            _ => {
                tracing::debug!(%error, "a report was not written");
                return;
            }
        };
        if !self.refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %error,
                "reports can't be written, so dashboard and status don't show this process: {advice}"
            );
        }
    }
}
