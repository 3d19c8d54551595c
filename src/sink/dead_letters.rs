//! Records that a step of the transformations failed on, on their way to the dead letter topic.
//!
//! Invariant: the offset of such a record isn't committed before its dead letter is durable
//! ([`super::offsets::OffsetTracker::owes`]). After a crash some are written twice, with the same topic, partition and offset in their headers.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use genwatch_core::transform::{ERROR_CODE, Failure};
use genwatch_core::types::Millis;
use genwatch_kafka::admin::Cluster;
use genwatch_kafka::config::Connection;
use genwatch_kafka::forward::{
    DeliveryRefusal, DeliveryReport, Forwarder, Kept, OwnHeader, ProducerLimits, Undelivered,
};
use genwatch_kafka::subscriber::SubscribedRecord;

use super::batch::{AssignmentEpoch, Origin};
use super::{Sink, SinkError, Skipped, Store};

/// How long Kafka may take before that is logged.
const SLOW: Duration = Duration::from_secs(5);

/// The dead letters under way. Owned by the sink's loop; the client's thread sends reports.
pub(super) struct DeadLetters {
    forwarder: Forwarder,
    reports: Receiver<DeliveryReport>,
    topic: String,
    /// The partitions of `topic`: a dead letter keeps its partition number.
    partitions: usize,
    /// The topics that records come from.
    sources: Vec<String>,
    worker: String,
    next: u64,
    under_way: BTreeMap<u64, Letter>,
    /// What the client had no room for.
    waiting: VecDeque<(u64, Kept)>,
    /// Since when none was delivered although some are under way.
    since: Option<Instant>,
}

/// Where a dead letter comes from.
struct Letter {
    origin: Origin,
    epoch: AssignmentEpoch,
    /// The step that failed.
    step: String,
}

impl DeadLetters {
    /// Creates a producer for this topic, which must exist.
    pub(super) fn new(
        connection: &Connection,
        cluster: &Cluster,
        topic: String,
        sources: Vec<String>,
        worker: String,
    ) -> Result<DeadLetters, SinkError> {
        let partitions = cluster.require(&topic)?;
        let batch_bytes =
            cluster.topic_config(&topic, "max.message.bytes").and_then(|most| most.parse().ok());
        let (sender, reports) = unbounded();
        // Without a receiver nobody needs the report.
        let report = move |report| drop(sender.send(report));
        let forwarder = Forwarder::new(connection, ProducerLimits { batch_bytes }, report);
        let forwarder = forwarder.map_err(SinkError::Producer)?;
        Ok(DeadLetters {
            forwarder,
            reports,
            topic,
            partitions,
            sources,
            worker,
            next: 0,
            under_way: BTreeMap::new(),
            waiting: VecDeque::new(),
            since: None,
        })
    }

    /// Whether the sink should take in no more records for now.
    pub(super) fn is_full(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether all are durable.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    fn send(
        &mut self,
        record: &SubscribedRecord<'_>,
        epoch: AssignmentEpoch,
        failure: &Failure,
    ) -> Result<(), SinkError> {
        let origin = Origin { place: record.place, offset: record.offset() };
        let (place, partition) = (record.place, record.place.partition);
        let mut headers: Vec<OwnHeader> = record.own_headers();
        let (number, offset) = (partition.to_string(), origin.offset.to_string());
        let place_of = [("dlq.partition", number.as_str()), ("dlq.offset", &offset)];
        headers.extend(failure.dead_letter_headers(&self.sources[place.topic], &place_of, &self.worker));
        let kept = Kept {
            topic: self.topic.clone(),
            // A topic that has grown since leaves it to the key.
            partition: usize::try_from(partition.0)
                .is_ok_and(|own| own < self.partitions)
                .then_some(partition),
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
            at: record.timestamp().filter(|at| at.0 > 0).unwrap_or(Millis(0)),
            headers,
        };
        let number = self.next;
        self.next += 1;
        self.under_way.insert(number, Letter { origin, epoch, step: failure.step.label() });
        self.since.get_or_insert_with(Instant::now);
        self.hand_over(number, kept)
    }

    fn hand_over(&mut self, number: u64, kept: Kept) -> Result<(), SinkError> {
        match self.forwarder.send(number, kept.record()) {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.waiting.push_back((number, kept));
                Ok(())
            }
            Err(refusal) => self.refused(number, refusal),
        }
    }

    /// Sends one that is too large with its headers again, without its value.
    fn refused(&mut self, number: u64, refusal: Undelivered) -> Result<(), SinkError> {
        if let Undelivered::Record(DeliveryRefusal::TooLarge, kept) = &refusal {
            let mut kept = kept.clone();
            if kept.drop_value() {
                return self.hand_over(number, *kept);
            }
        }
        Err(SinkError::DeadLetter(refusal))
    }

    /// Takes the delivery reports that have come, and returns the letters that are durable.
    fn take_reports(&mut self) -> Result<Vec<Letter>, SinkError> {
        let mut durable = Vec::new();
        while let Ok(report) = self.reports.try_recv() {
            match report.result {
                Ok(()) => durable.extend(self.under_way.remove(&report.number)),
                Err(refusal) => self.refused(report.number, refusal)?,
            }
        }
        // In a burst one at a time, so that the order stays.
        while let Some((number, kept)) = self.waiting.pop_front() {
            let before = self.waiting.len();
            self.hand_over(number, kept)?;
            if self.waiting.len() > before {
                self.waiting.rotate_right(1);
                break;
            }
        }
        if !durable.is_empty() || self.under_way.is_empty() {
            self.since = (!self.under_way.is_empty()).then(Instant::now);
        }
        Ok(durable)
    }

    /// Returns the reason, once the letters wait for long.
    fn trouble(&self) -> Option<String> {
        self.since.filter(|since| since.elapsed() > SLOW)?;
        Some(self.forwarder.take_trouble().unwrap_or_else(|| "no answer".to_owned()))
    }
}

impl<S: Store> Sink<'_, S> {
    /// Makes a dead letter of a record that a step failed on.
    pub(super) fn fail(
        &mut self,
        record: &SubscribedRecord<'_>,
        epoch: AssignmentEpoch,
        failure: &Failure,
        now: Instant,
    ) -> Result<(), SinkError> {
        let (place, offset) = (record.place, record.offset());
        let Some(letters) = &mut self.dead_letters else {
            let skipped = Skipped { label: ERROR_CODE, reason: failure.to_string() };
            self.skip(Origin { place, offset }, &skipped, now);
            return Ok(());
        };
        if let Some(silent) = self.failure_log.allow(failure.step.label(), now) {
            tracing::warn!(
                topic = self.topics[place.topic],
                partition = place.partition.0,
                offset = offset.0,
                reason = %failure,
                silent,
                "a record becomes a dead letter"
            );
        }
        self.offsets.owes(place, epoch, offset);
        letters.send(record, epoch, failure)
    }

    /// Notes which dead letters are durable.
    pub(super) fn follow_dead_letters(&mut self) -> Result<(), SinkError> {
        let Some(letters) = &mut self.dead_letters else { return Ok(()) };
        for Letter { origin: Origin { place, offset }, epoch, step } in letters.take_reports()? {
            self.offsets.paid(place, epoch, offset);
            self.summary.dead_letters += 1;
            self.metrics.dead_letters.with_label_values(&[self.topics[place.topic].as_str(), &step]).inc();
        }
        if let Some(reason) = letters.trouble()
            && let Some(silent) = self.broker_log.allow((), Instant::now())
        {
            tracing::warn!(reason, silent, "Kafka takes no dead letters: waiting");
        }
        Ok(())
    }
}
