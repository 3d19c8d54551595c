//! Turns messages into records and handles their delivery.
//!
//! Kafka refuses a whole request if one record in it is invalid. So refused records are suspects: each is sent again,
//! alone, in order and before any new one; what is refused then is invalid itself, and left out. By then, records in
//! flight behind the suspects have overtaken them: so checks that can be made before sending (too old, too large) are.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::time::Instant;

use foldhash::fast::FixedState;
use genwatch_core::types::Millis;
use genwatch_kafka::clock;
use genwatch_kafka::forward::{DeliveryRefusal, DeliveryReport, Forwarded, Kept, Undelivered};
use rumqttc::{Publish, QoS};

use super::summary::DropReason;
use super::transforming::{Transformed, transformed};
use super::{Bridge, BridgeError, Slow};
use crate::mqtt::message::{self, Translation};
use crate::mqtt::unacked::{Fingerprint, Receipt};

/// The number of messages that need no acknowledgement (QoS 0).
const UNNUMBERED: u64 = u64::MAX >> 2;
/// If a timestamp this close to now is refused, the broker's clock differs from ours.
const THIS_MOMENT_MS: i64 = 2 * 60 * 1000;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reading,
    Status,
    /// A reading that a step of the transformations failed on.
    DeadLetter,
}

/// Identifies a record in delivery reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    /// Number in [`super::Unacked`], or [`UNNUMBERED`].
    number: u64,
    kind: Kind,
}

impl Ticket {
    fn code(self) -> u64 {
        self.number << 2 | self.kind as u64
    }

    fn of(code: u64) -> Ticket {
        let kind = match code & 3 {
            0 => Kind::Reading,
            1 => Kind::Status,
            _ => Kind::DeadLetter,
        };
        Ticket { number: code >> 2, kind }
    }
}

/// Records that were refused together with others.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    waiting: VecDeque<(Ticket, Kept)>,
    /// The one that is in flight alone.
    alone: Option<Ticket>,
}

impl Suspects {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.alone.is_none()
    }
}

/// The maximum age of a reading in its topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Oldest(Option<i64>);

impl Oldest {
    /// From the topic's `message.timestamp.before.max.ms`.
    pub(super) fn of(before_max_ms: Option<String>) -> Oldest {
        Oldest(before_max_ms.and_then(|value| value.parse().ok()))
    }

    fn allows(self, at: Millis, now: Millis) -> bool {
        self.0.is_none_or(|age| now.since(at) <= age)
    }
}

impl Bridge {
    /// Whether messages can be taken in: not while some are held back, to keep their order.
    pub(super) fn takes_messages(&self) -> bool {
        self.held.is_none() && self.suspects.is_empty()
    }

    /// Takes a message in, unless it is a repeat.
    pub(super) fn forward(&mut self, publish: &Publish) -> Result<(), BridgeError> {
        // A message not taken in comes again: on the next connection, or at the next start.
        if !self.link.is_up() || self.draining.is_some() {
            return Ok(());
        }
        self.summary.received += 1;
        self.first.get_or_insert_with(Instant::now);
        let number = if publish.qos == QoS::AtMostOnce {
            UNNUMBERED
        } else {
            let said = user_properties(publish);
            let hash = FixedState::default().hash_one((&publish.topic, &publish.payload, said));
            let fingerprint = Fingerprint { hash, dated: message::said_at(said).is_some() };
            match self.unacked.received(publish.pkid, publish.dup, fingerprint) {
                Receipt::Forward(number) => number,
                Receipt::Repeat => {
                    self.summary.repeats += 1;
                    return Ok(());
                }
            }
        };
        self.pass_on(number, publish)
    }

    /// Hands a message to Kafka's producer; holds it if there is no room.
    fn pass_on(&mut self, number: u64, publish: &Publish) -> Result<(), BridgeError> {
        let now = clock::now();
        let at = message::taken_at(user_properties(publish), now);
        // Topics are UTF-8 (MQTT 5.0, 1.5.4); any other isn't ours.
        let topic = std::str::from_utf8(&publish.topic).unwrap_or_default();
        let translation = self.config.tree.translate(topic, &publish.payload, at);
        let transform = self.config.transform.clone();
        let changes;
        let (kind, record) = match &translation {
            Translation::Reading { key } => {
                let key = key.as_deref().map(str::as_bytes);
                // Messages without a generator stay together by topic.
                if !self.config.share.has(key.unwrap_or(topic.as_bytes())) {
                    return self.leave_to_others(number);
                }
                // We asked brokers not to send retained readings; it was forwarded when it was new.
                if publish.retain {
                    return self.leave_out(number, DropReason::Retained, topic);
                }
                let readings = &self.config.topics.readings;
                let value = Some(publish.payload.as_ref());
                let mut record = Forwarded { topic: readings, partition: None, key, value, at, headers: &[] };
                if let Some(transform) = &transform {
                    let message = (topic, publish);
                    match transformed(transform, &mut self.targets, &record, message, now) {
                        Transformed::Unchanged => {}
                        Transformed::Changed(changed) => {
                            changes = changed;
                            record = changes.on(record);
                        }
                        Transformed::Filtered => {
                            self.summary.filtered += 1;
                            self.is_done(number);
                            return Ok(());
                        }
                        Transformed::Failed(failure) => {
                            return self.send_dead_letter(number, message, key, at, &failure);
                        }
                        Transformed::Later => {
                            self.held = Some((number, publish.clone()));
                            return Ok(());
                        }
                    }
                }
                if !self.oldest.allows(record.at, now) {
                    return self.leave_out(number, DropReason::InvalidTimestamp, topic);
                }
                (Kind::Reading, record)
            }
            Translation::Status { key, value } => {
                if !self.config.share.has(key.as_bytes()) {
                    return self.leave_to_others(number);
                }
                let topic = &self.config.topics.status;
                let (key, value) = (Some(key.as_bytes()), value.as_deref());
                (Kind::Status, Forwarded { topic, partition: None, key, value, at, headers: &[] })
            }
            Translation::NotAStatus => return self.leave_out(number, DropReason::NotAStatus, topic),
            Translation::NotSubscribed => {
                self.leave(topic);
                return self.leave_out(number, DropReason::NotSubscribed, topic);
            }
        };
        let ticket = Ticket { number, kind };
        let sent = self.forwarder.send(ticket.code(), record);
        self.is_sent(ticket, sent, publish).map(drop)
    }

    /// Hands a record that a message became to the producer; returns whether it is on its way.
    pub(super) fn send(
        &mut self,
        number: u64,
        kind: Kind,
        record: Forwarded<'_>,
        publish: &Publish,
    ) -> Result<bool, BridgeError> {
        let ticket = Ticket { number, kind };
        let sent = self.forwarder.send(ticket.code(), record);
        self.is_sent(ticket, sent, publish)
    }

    /// Handles the producer's answer; holds the message if there is no room.
    fn is_sent(
        &mut self,
        ticket: Ticket,
        sent: Result<bool, Undelivered>,
        publish: &Publish,
    ) -> Result<bool, BridgeError> {
        match sent {
            Ok(true) => {
                self.slow.get_or_insert_with(Slow::now);
                Ok(true)
            }
            Ok(false) => {
                self.held = Some((ticket.number, publish.clone()));
                Ok(false)
            }
            Err(Undelivered::Record(refusal, record)) => {
                self.refuse(ticket, refusal, *record)?;
                Ok(false)
            }
            Err(error) => Err(BridgeError::Kafka(error)),
        }
    }

    /// Continues with what was held back, if possible. `all_told`: no report is waiting.
    pub(super) fn go_on(&mut self, all_told: bool) -> Result<(), BridgeError> {
        if !self.suspects.is_empty() {
            return if all_told { self.try_a_suspect() } else { Ok(()) };
        }
        match self.held.take() {
            Some((number, publish)) => self.pass_on(number, &publish),
            None => Ok(()),
        }
    }

    fn try_a_suspect(&mut self) -> Result<(), BridgeError> {
        if self.suspects.alone.is_some() || self.forwarder.in_flight() > 0 {
            return Ok(());
        }
        let Some((ticket, kept)) = self.suspects.waiting.front() else { return Ok(()) };
        match self.forwarder.send(ticket.code(), kept.record()) {
            Ok(true) => {
                self.suspects.alone = Some(*ticket);
                self.suspects.waiting.pop_front();
                Ok(())
            }
            // Nothing is in flight, so there is room in the next iteration.
            Ok(false) => Ok(()),
            Err(error) => Err(BridgeError::Kafka(error)),
        }
    }

    /// Handles the delivery report of a record.
    pub(super) fn delivered(&mut self, report: DeliveryReport) -> Result<(), BridgeError> {
        let ticket = Ticket::of(report.number);
        let alone = self.suspects.alone.take_if(|alone| *alone == ticket).is_some();
        match report.result {
            Ok(()) => {
                *match ticket.kind {
                    Kind::Reading => &mut self.summary.readings,
                    Kind::Status => &mut self.summary.statuses,
                    Kind::DeadLetter => &mut self.summary.dead_letters,
                } += 1;
                self.is_done(ticket.number);
            }
            Err(Undelivered::Record(refusal, record)) if alone => self.refuse(ticket, refusal, *record)?,
            Err(Undelivered::Record(_, record)) => self.suspects.waiting.push_back((ticket, *record)),
            Err(error) => return Err(BridgeError::Kafka(error)),
        }
        let now = Instant::now();
        self.last = Some(now);
        if let Some(Slow { since, told: Some(_) }) = self.slow {
            let seconds = since.elapsed().as_secs();
            tracing::info!(seconds, "Kafka takes readings again");
            self.not_ready.kafka_away.set(false);
            // The trouble is over.
            let _ = self.forwarder.take_trouble();
        }
        self.slow = (self.forwarder.in_flight() > 0).then_some(Slow { since: now, told: None });
        Ok(())
    }

    /// Handles a record that Kafka refuses for itself.
    fn refuse(
        &mut self,
        ticket: Ticket,
        refusal: DeliveryRefusal,
        mut record: Kept,
    ) -> Result<(), BridgeError> {
        if ticket.kind == Kind::DeadLetter && refusal == DeliveryRefusal::TooLarge && record.drop_value() {
            self.suspects.waiting.push_front((ticket, record));
            return Ok(());
        }
        let reason = match refusal {
            DeliveryRefusal::TooLarge => DropReason::TooLarge,
            DeliveryRefusal::InvalidTimestamp if record.at.since(clock::now()).abs() < THIS_MOMENT_MS => {
                return Err(BridgeError::Clock);
            }
            DeliveryRefusal::InvalidTimestamp => DropReason::InvalidTimestamp,
            DeliveryRefusal::InvalidRecord => DropReason::InvalidRecord,
            DeliveryRefusal::PolicyViolation => DropReason::PolicyViolation,
        };
        let generator = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        self.leave_out(ticket.number, reason, &generator)
    }

    /// Leaves a message out; `of`: its topic or generator. Only the first for each reason is logged, as a sender may
    /// repeat it often. The metrics count them.
    fn leave_out(&mut self, number: u64, reason: DropReason, of: &str) -> Result<(), BridgeError> {
        if self.summary.dropped(reason) {
            tracing::warn!(of, why = %reason, "a message is left out; further ones for this reason are only counted");
        }
        self.is_done(number);
        Ok(())
    }

    fn leave_to_others(&mut self, number: u64) -> Result<(), BridgeError> {
        self.summary.of_others += 1;
        self.is_done(number);
        Ok(())
    }

    fn is_done(&mut self, number: u64) {
        if number != UNNUMBERED {
            self.unacked.durable(number);
        }
    }
}

pub(super) fn user_properties(publish: &Publish) -> &[(String, String)] {
    publish.properties.as_ref().map_or(&[], |properties| &properties.user_properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_what_it_was() {
        for number in [0, 1, 7, UNNUMBERED] {
            for kind in [Kind::Reading, Kind::Status, Kind::DeadLetter] {
                let ticket = Ticket { number, kind };
                assert_eq!(Ticket::of(ticket.code()), ticket);
            }
        }
    }

    #[test]
    fn a_topic_says_how_old_a_reading_may_be() {
        let hour = Oldest::of(Some("3600000".to_owned()));
        let now = Millis(1_766_400_000_000);
        assert!(hour.allows(Millis(now.0 - 3_600_000), now) && hour.allows(Millis(now.0 + 1), now));
        assert!(!hour.allows(Millis(now.0 - 3_600_001), now));
        assert!(Oldest::of(None).allows(Millis(0), now));
        assert!(Oldest::of(Some("9223372036854775807".to_owned())).allows(Millis(0), now));
    }
}
