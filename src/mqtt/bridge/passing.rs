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
use super::{Bridge, BridgeError, Slow};
use crate::mqtt::message::{self, Translation};
use crate::mqtt::unacked::{Fingerprint, Receipt};

/// The number of messages that need no acknowledgement (QoS 0).
const UNNUMBERED: u64 = u64::MAX >> 1;
/// If a timestamp this close to now is refused, the broker's clock differs from ours.
const THIS_MOMENT_MS: i64 = 2 * 60 * 1000;

/// Identifies a record in delivery reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    /// Number in [`super::Unacked`], or [`UNNUMBERED`].
    number: u64,
    is_status: bool,
}

impl Ticket {
    fn code(self) -> u64 {
        self.number << 1 | u64::from(self.is_status)
    }

    fn of(code: u64) -> Ticket {
        Ticket { number: code >> 1, is_status: code & 1 == 1 }
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
        let (ticket, record) = match &translation {
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
                if !self.oldest.allows(at, now) {
                    return self.leave_out(number, DropReason::InvalidTimestamp, topic);
                }
                let topic = &self.config.topics.readings;
                let record = Forwarded { topic, key, value: Some(&publish.payload), at };
                (Ticket { number, is_status: false }, record)
            }
            Translation::Status { key, value } => {
                if !self.config.share.has(key.as_bytes()) {
                    return self.leave_to_others(number);
                }
                let topic = &self.config.topics.status;
                let record = Forwarded { topic, key: Some(key.as_bytes()), value: value.as_deref(), at };
                (Ticket { number, is_status: true }, record)
            }
            Translation::NotAStatus => return self.leave_out(number, DropReason::NotAStatus, topic),
            Translation::NotSubscribed => {
                self.leave(topic);
                return self.leave_out(number, DropReason::NotSubscribed, topic);
            }
        };
        match self.forwarder.send(ticket.code(), record) {
            Ok(true) => drop(self.slow.get_or_insert_with(Slow::now)),
            Ok(false) => self.held = Some((number, publish.clone())),
            Err(Undelivered::Record(refusal, record)) => return self.refuse(ticket, refusal, &record),
            Err(error) => return Err(BridgeError::Kafka(error)),
        }
        Ok(())
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
                let count =
                    if ticket.is_status { &mut self.summary.statuses } else { &mut self.summary.readings };
                *count += 1;
                self.is_done(ticket.number);
            }
            Err(Undelivered::Record(refusal, record)) if alone => self.refuse(ticket, refusal, &record)?,
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
    fn refuse(&mut self, ticket: Ticket, refusal: DeliveryRefusal, record: &Kept) -> Result<(), BridgeError> {
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

fn user_properties(publish: &Publish) -> &[(String, String)] {
    publish.properties.as_ref().map_or(&[], |properties| &properties.user_properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_what_it_was() {
        for number in [0, 1, 7, UNNUMBERED] {
            for is_status in [false, true] {
                let ticket = Ticket { number, is_status };
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
