//! Writes records in transactions under a transactional id that outlives the process.
//!
//! Whoever registers the id last is the only one that can write: earlier writers are fenced. A writer whose
//! transaction failed doesn't know whether it took effect. So after any failure the owner registers again, which ends
//! what was open, and reads from Kafka what is committed.

use std::time::{Duration, Instant};

use genwatch_core::engine::commit::Delivery;
use genwatch_core::types::Millis;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer};

use super::commit::deliveries::Deliveries;
use super::commit::retry::Retry;
use super::commit::{STEP_TIMEOUT, make_producer};
use super::config::{Connection, TRANSACTION_TIMEOUT};
use super::forward::{OwnHeader, ProducerLimits, owned};
use super::native;

/// How long a record may wait for room in the client's queue before others are sent.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// A record of a transaction.
#[derive(Clone, Copy, Debug)]
pub struct TransactionRecord<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key, which decides the partition.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The record's time; `None` is now.
    pub timestamp: Option<Millis>,
    /// Its headers.
    pub headers: &'a [OwnHeader],
}

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum TransactionFailure {
    /// Another process has registered the id, or the broker has ended a transaction that took too long.
    #[error("the producer was fenced: {0}")]
    Fenced(String),
    /// The id can't be registered.
    #[error(
        "cannot register the transactional id: {0}; check this principal's ACLs (WRITE on the transactional id)"
    )]
    NotRegistered(String),
    /// A topic refuses a record permanently.
    #[error("topic {topic} refuses a record: {reason}; {advice}")]
    Refused {
        /// The topic.
        topic: String,
        /// What the broker said.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// Whether it took effect is unknown.
    #[error("{0}")]
    InDoubt(String),
    /// The caller stopped waiting. Whether it took effect is unknown.
    #[error("the transaction was given up: {0}")]
    GivenUp(String),
}

/// A producer of transactions. Belongs to one thread.
pub struct TransactionalWriter {
    config: ClientConfig,
    timeout: Duration,
    deliveries: Deliveries,
    /// `None` until it is registered, and after a failure.
    producer: Option<ThreadedProducer<Deliveries>>,
}

impl TransactionalWriter {
    /// Prepares a writer with this transactional id. It writes once it is registered.
    #[must_use]
    pub fn new(connection: &Connection, id: &str, limits: ProducerLimits) -> TransactionalWriter {
        let mut config = connection.transactional_producer_as(id);
        if connection.property("batch.size").is_none() {
            config.set("batch.size", limits.batch_size().to_string());
        }
        // See `may_write`.
        config.set("log.connection.close", "true");
        TransactionalWriter {
            config,
            timeout: connection.time("transaction.timeout.ms", TRANSACTION_TIMEOUT),
            deliveries: Deliveries::default(),
            producer: None,
        }
    }

    /// Registers the transactional id: fences every earlier writer and ends its open transaction. Waits for the cluster
    /// until `give_up`.
    ///
    /// # Errors
    /// When the brokers refuse, or on `give_up`.
    pub fn register(&mut self, give_up: impl Fn() -> bool) -> Result<(), TransactionFailure> {
        self.discard();
        let made = make_producer(&self.config, &self.deliveries, Delivery::ExactlyOnce, &give_up);
        self.producer = Some(made.map_err(|error| match give_up() {
            true => TransactionFailure::GivenUp(error.to_string()),
            false => TransactionFailure::NotRegistered(error.to_string()),
        })?);
        Ok(())
    }

    /// Whether the next transaction may be written. If not, register first: there is no producer, or a connection
    /// broke, and a repeated request of the last transaction may still be under way (see `Work::may_have_asked_twice`).
    #[must_use]
    pub fn may_write(&self) -> bool {
        self.producer.is_some() && !self.deliveries.reported().disconnected
    }

    /// Writes these records in one transaction: all of them, or none. Waits out an outage that is shorter than
    /// `transaction.timeout.ms`, until `give_up`.
    ///
    /// # Errors
    /// When the transaction failed or is in doubt: then register again, and look in Kafka.
    pub fn commit<'a>(
        &mut self,
        records: impl IntoIterator<Item = TransactionRecord<'a>>,
        give_up: impl Fn() -> bool,
    ) -> Result<(), TransactionFailure> {
        self.deliveries.reset();
        let Some(producer) = self.producer.take() else {
            return Err(TransactionFailure::InDoubt("there is no producer".to_owned()));
        };
        let transaction = Transaction {
            producer: &producer,
            deliveries: &self.deliveries,
            deadline: Instant::now() + self.timeout,
            give_up: &give_up,
        };
        let done = transaction.run(records);
        self.producer = Some(producer);
        if done.is_err() {
            // A record that was given up leaves a gap in the sequence numbers: this producer must not write any more.
            self.discard();
        }
        done
    }

    fn discard(&mut self) {
        if let Some(producer) = self.producer.take() {
            producer.purge(PurgeConfig::default().queue().inflight());
            // Otherwise readers of committed records wait for the transaction timeout if nobody registers again.
            if let Err(error) = producer.abort_transaction(STEP_TIMEOUT) {
                tracing::debug!(%error, "no transaction was aborted");
            }
        }
    }
}

/// A transaction under way.
struct Transaction<'a> {
    producer: &'a ThreadedProducer<Deliveries>,
    deliveries: &'a Deliveries,
    deadline: Instant,
    give_up: &'a dyn Fn() -> bool,
}

impl Transaction<'_> {
    fn run<'a>(
        &self,
        records: impl IntoIterator<Item = TransactionRecord<'a>>,
    ) -> Result<(), TransactionFailure> {
        self.producer.begin_transaction().map_err(|error| self.failure(Retry::of(&error).reason))?;
        for record in records {
            self.send(record)?;
        }
        self.repeat(|| {
            native::producer::flush(self.producer, STEP_TIMEOUT).then_some(()).ok_or_else(Retry::of_delivery)
        })?;
        self.delivered()?;
        self.repeat(|| native::producer::commit_transaction(self.producer, STEP_TIMEOUT).map_err(Retry::from))
    }

    fn send(&self, record: TransactionRecord<'_>) -> Result<(), TransactionFailure> {
        let mut base = BaseRecord::<[u8], [u8]>::to(record.topic);
        base.key = record.key;
        base.payload = record.value;
        base.timestamp = record.timestamp.map(|at| at.0);
        base.headers = owned(record.headers);
        loop {
            let Err((error, unsent)) = self.producer.send(base) else { return Ok(()) };
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => {
                    self.wait(&error)?;
                    base = unsent;
                    std::thread::sleep(QUEUE_FULL_PAUSE);
                }
                Some(code @ RDKafkaErrorCode::MessageSizeTooLarge) => {
                    return Err(refused(record.topic, code));
                }
                _ => return Err(self.failure(error.to_string())),
            }
        }
    }

    /// Whether all records are in the log.
    fn delivered(&self) -> Result<(), TransactionFailure> {
        if let Some((topic, code)) = self.deliveries.failure() {
            return Err(match code {
                RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::InvalidTimestamp => refused(&topic, code),
                _ => self.failure(format!("a record for {topic} was not delivered: {code}")),
            });
        }
        match self.deliveries.reported().any_failed {
            true => Err(self.failure("a record was not delivered".to_owned())),
            false => Ok(()),
        }
    }

    /// Repeats a step until it succeeds, fails, or nobody waits for it any more.
    fn repeat(&self, mut step: impl FnMut() -> Result<(), Retry>) -> Result<(), TransactionFailure> {
        loop {
            let Err(retry) = step() else { return Ok(()) };
            self.delivered()?;
            if !retry.retriable {
                return Err(self.failure(retry.reason));
            }
            self.wait(&retry.reason)?;
        }
    }

    fn wait(&self, reason: &dyn std::fmt::Display) -> Result<(), TransactionFailure> {
        if (self.give_up)() {
            return Err(TransactionFailure::GivenUp(reason.to_string()));
        }
        match Instant::now() >= self.deadline {
            true => Err(TransactionFailure::InDoubt(format!("the transaction has timed out: {reason}"))),
            false => Ok(()),
        }
    }

    fn failure(&self, reason: String) -> TransactionFailure {
        match self.producer.client().fatal_error() {
            Some((code, fatal)) if is_fenced(code) => TransactionFailure::Fenced(fatal),
            Some((_, fatal)) => TransactionFailure::InDoubt(format!("{reason}: {fatal}")),
            None => TransactionFailure::InDoubt(reason),
        }
    }
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

fn refused(topic: &str, code: RDKafkaErrorCode) -> TransactionFailure {
    let advice = match code {
        RDKafkaErrorCode::MessageSizeTooLarge => "raise its max.message.bytes, or let the query return less",
        RDKafkaErrorCode::TopicAuthorizationFailed => "grant this principal WRITE on it",
        _ => "set its message.timestamp.before/after.max.ms as wide as the times of the rows",
    };
    TransactionFailure::Refused { topic: topic.to_owned(), reason: code.to_string(), advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_topic_and_what_to_do() {
        for (code, advice) in [
            (RDKafkaErrorCode::MessageSizeTooLarge, "max.message.bytes"),
            (RDKafkaErrorCode::TopicAuthorizationFailed, "grant this principal WRITE"),
            (RDKafkaErrorCode::InvalidTimestamp, "message.timestamp.before/after.max.ms"),
        ] {
            let said = refused("rows", code).to_string();
            assert!(said.contains("rows") && said.contains(advice), "{said}");
        }
    }

    #[test]
    fn another_writer_is_told_from_an_outage() {
        assert!(is_fenced(RDKafkaErrorCode::Fenced) && is_fenced(RDKafkaErrorCode::ProducerFenced));
        assert!(!is_fenced(RDKafkaErrorCode::OperationTimedOut) && !is_fenced(RDKafkaErrorCode::Fatal));
    }
}
