//! What librdkafka reports of records, and of connections.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use genwatch_core::engine::encode::{DLQ_OFFSET, DLQ_VALUE_DROPPED};
use genwatch_core::types::{Offset, PartitionId};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers as _, Message as _};
use rdkafka::producer::ProducerContext;

use crate::throttle::Throttle;

/// Partition and offset of a dead letter's record.
pub(crate) type Letter = (PartitionId, Offset);

/// Delivery reports, and how long a broker's quota has delayed them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deliveries {
    reported: Arc<Mutex<Reported>>,
    throttle: Throttle,
}

#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// The first failure.
    pub(crate) failure: Option<(String, RDKafkaErrorCode)>,
    /// Whether any record was given up.
    pub(crate) any_failed: bool,
    /// Dead letters of the current commit that the broker refused with their values.
    pub(crate) too_large: BTreeSet<Letter>,
    /// Whether the broker refused one without its value.
    pub(crate) bare_too_large: bool,
    /// Whether a connection broke since the producer was created.
    pub(crate) disconnected: bool,
}

impl Deliveries {
    /// Tells there how long a quota has delayed them.
    pub(crate) fn throttled_by(throttle: Throttle) -> Deliveries {
        Deliveries { throttle, ..Deliveries::default() }
    }

    /// For another producer, whose reports don't mix with those of this one. What the commit under way has learned stays.
    pub(super) fn of_another_producer(&self) -> Deliveries {
        let reported = self.reported();
        let known = Reported {
            failure: reported.failure.clone(),
            too_large: reported.too_large.clone(),
            bare_too_large: reported.bare_too_large,
            ..Reported::default()
        };
        Deliveries { reported: Arc::new(Mutex::new(known)), throttle: self.throttle.clone() }
    }

    pub(crate) fn reported(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the reports for the next attempt.
    pub(crate) fn reset(&self) {
        let mut reported = self.reported();
        (reported.failure, reported.any_failed) = (None, false);
    }

    pub(crate) fn failure(&self) -> Option<(String, RDKafkaErrorCode)> {
        self.reported().failure.clone()
    }
}

impl Reported {
    /// Notes a dead letter that the broker refused as too large.
    pub(super) fn is_too_large(&mut self, message: &BorrowedMessage<'_>) {
        // The last header of a name counts: a dead letter that was replayed has an earlier one.
        let header = |name| {
            let all = message.headers()?;
            let found = all.iter().filter(|header| header.key == name).last()?;
            std::str::from_utf8(found.value?).ok()?.parse().ok()
        };
        let Some(offset) = header(DLQ_OFFSET) else { return };
        self.bare_too_large |= header(DLQ_VALUE_DROPPED).is_some() || message.payload().is_none();
        self.too_large.insert((PartitionId(message.partition()), Offset(offset)));
    }
}

impl ClientContext for Deliveries {
    /// Called when a connection breaks, by the thread that owns it, before any request is repeated. librdkafka logs a
    /// repeated reason only once in a while (`rd_kafka_broker_set_error`, librdkafka 2.12.1), but always the first one.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" && message.contains("in state UP") {
            self.reported().disconnected = true;
        }
        crate::config::log(level as i32, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.throttle.take_in(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let mut reported = self.reported();
            reported.any_failed = true;
            // A purged record was not refused.
            if matches!(code, RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) {
                return;
            }
            if code == RDKafkaErrorCode::MessageSizeTooLarge {
                reported.is_too_large(message);
            }
            reported.failure.get_or_insert_with(|| (message.topic().to_owned(), code));
        }
    }
}
