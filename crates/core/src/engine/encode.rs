//! Effects as records: which topic, key, value and headers each has (`docs/formats.md`).

use std::borrow::Cow;

use crate::alarm::event::AlertEvent;
use crate::handler::effect::{DeadLetter, Effect, Output, StateChange};
use crate::types::{Millis, Offset, PartitionId};

/// The header with the offset of a dead letter's record.
pub const DLQ_OFFSET: &str = "dlq.offset";
/// The header with the size in bytes of the value that a dead letter left out.
pub const DLQ_VALUE_DROPPED: &str = "dlq.value.dropped";

/// The names in a worker's records.
#[derive(Clone, Debug)]
pub struct Encoder {
    /// The readings topic.
    pub readings: String,
    /// The topic of the handler's outputs.
    pub output: String,
    /// The state topic.
    pub state: String,
    /// The dead letter queue.
    pub dead_letters: String,
    /// The consumer group; part of `ce_source`.
    pub group: String,
    /// `dlq.worker`
    pub worker: String,
}

/// Name and value of a header.
pub type Header<'a> = (Cow<'a, str>, Option<Cow<'a, [u8]>>);

/// A record to write, borrowed from its effect as far as possible.
#[derive(Clone, Debug, PartialEq)]
pub struct OutgoingRecord<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition; `None`: the key decides.
    pub partition: Option<PartitionId>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None`: a tombstone.
    pub value: Option<Cow<'a, [u8]>>,
    /// Its headers.
    pub headers: Vec<Header<'a>>,
    /// Its timestamp; `None`: the time of writing.
    pub timestamp: Option<Millis>,
}

impl Encoder {
    /// The record of an effect.
    #[must_use]
    pub fn record<'a, O: Output>(&'a self, effect: &'a Effect<O>) -> OutgoingRecord<'a> {
        match effect {
            Effect::Output(output) => output.record(self),
            Effect::State(change) => self.state(change),
            Effect::DeadLetter(letter) => self.dead_letter(letter),
        }
    }

    /// A plain record of the output topic: its key decides its partition.
    #[must_use]
    pub fn output<'a>(&'a self, key: &'a [u8], value: impl Into<Cow<'a, [u8]>>) -> OutgoingRecord<'a> {
        OutgoingRecord {
            topic: &self.output,
            partition: None,
            key: Some(key),
            value: Some(value.into()),
            headers: Vec::new(),
            timestamp: None,
        }
    }

    /// The record of an alert; follows the CloudEvents Kafka binding, binary mode.
    pub(crate) fn alert<'a>(&'a self, event: &'a AlertEvent) -> OutgoingRecord<'a> {
        let time = jiff::Timestamp::from_millisecond(event.at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let headers: [(&str, Cow<'a, str>); 7] = [
            ("ce_specversion", "1.0".into()),
            ("ce_id", event.id(&self.readings).into()),
            ("ce_type", format!("genwatch.alert.{}", event.kind.as_str()).into()),
            ("ce_source", format!("/genwatch/{}", self.group).into()),
            ("ce_subject", event.generator.as_str().into()),
            ("ce_time", time.to_string().into()),
            ("content-type", "application/json".into()),
        ];
        OutgoingRecord {
            headers: headers.into_iter().map(|(name, text)| header(name, text)).collect(),
            ..self.output(event.generator.as_str().as_bytes(), event.to_json(&self.readings))
        }
    }

    fn state<'a>(&'a self, change: &'a StateChange) -> OutgoingRecord<'a> {
        OutgoingRecord {
            topic: &self.state,
            partition: Some(change.partition),
            key: Some(change.generator.as_str().as_bytes()),
            value: change.json.as_deref().map(Cow::Borrowed),
            headers: Vec::new(),
            timestamp: None,
        }
    }

    /// The record as it came, plus headers named as in Kafka Connect's dead letter queues.
    fn dead_letter<'a>(&'a self, letter: &'a DeadLetter) -> OutgoingRecord<'a> {
        let own = letter.headers.iter();
        let own = own.map(|(name, value)| (name.as_str().into(), value.as_deref().map(Cow::Borrowed)));
        let added: [(&str, Cow<'a, str>); 6] = [
            ("dlq.topic", self.readings.as_str().into()),
            ("dlq.partition", letter.partition.to_string().into()),
            (DLQ_OFFSET, letter.offset.to_string().into()),
            ("dlq.error.code", letter.error.code.as_str().into()),
            ("dlq.error.message", letter.error.message.as_str().into()),
            ("dlq.worker", self.worker.as_str().into()),
        ];
        OutgoingRecord {
            topic: &self.dead_letters,
            partition: Some(letter.partition),
            key: letter.key.as_deref(),
            value: letter.value.as_deref().map(Cow::Borrowed),
            headers: own.chain(added.into_iter().map(|(name, text)| header(name, text))).collect(),
            timestamp: (letter.timestamp.0 >= 0).then_some(letter.timestamp),
        }
    }
}

impl OutgoingRecord<'_> {
    /// The partition and offset of a dead letter's record; `None` for other records. A dead letter has more headers
    /// than its record, so it may be too large where that one fitted.
    #[must_use]
    pub fn dead_letter(&self) -> Option<(PartitionId, Offset)> {
        let (_, offset) = self.headers.iter().rev().find(|(name, _)| name == DLQ_OFFSET)?;
        let offset = std::str::from_utf8(offset.as_deref()?).ok()?.parse().ok()?;
        Some((self.partition?, Offset(offset)))
    }

    /// Drops the value and adds a header that says so.
    #[must_use]
    pub fn without_value(mut self) -> Self {
        let bytes = self.value.take().map_or(0, |value| value.len());
        self.headers.push((DLQ_VALUE_DROPPED.into(), Some(bytes.to_string().into_bytes().into())));
        self
    }
}

fn header<'a>(name: &'static str, text: Cow<'a, str>) -> Header<'a> {
    let value = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
    (name.into(), Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{BadRecord, ErrorCode};

    fn encoder() -> Encoder {
        let name = |name: &str| name.to_owned();
        Encoder {
            readings: name("t"),
            output: name("t_alerts"),
            state: name("g_state"),
            dead_letters: name("t_dlq"),
            group: name("g"),
            worker: name("host-1"),
        }
    }

    #[test]
    fn a_dead_letter_keeps_what_its_record_had_and_may_go_without_its_value() {
        let letter = DeadLetter {
            partition: PartitionId(2),
            offset: Offset(7),
            timestamp: Millis(-1),
            key: None,
            value: Some(vec![b'x'; 9]),
            // Somebody else's dead letter that was produced again: the last header of a name counts.
            headers: vec![("dlq.offset".to_owned(), Some(b"1".to_vec())), ("a".to_owned(), None)],
            error: BadRecord { code: ErrorCode::NotJson, message: "why".to_owned() },
        };
        let (encoder, effect): (_, Effect) = (encoder(), Effect::DeadLetter(Box::new(letter)));
        let record = encoder.record(&effect);
        assert_eq!((record.topic, record.partition, record.timestamp), ("t_dlq", Some(PartitionId(2)), None));
        assert_eq!(record.dead_letter(), Some((PartitionId(2), Offset(7))));
        assert_eq!(record.headers[1], ("a".into(), None));
        let bare = record.clone().without_value();
        assert_eq!((bare.value.is_none(), bare.dead_letter()), (true, record.dead_letter()));
        assert_eq!(bare.headers.last(), Some(&header(DLQ_VALUE_DROPPED, "9".into())));
    }

    #[test]
    fn a_state_goes_to_the_partition_of_its_readings_and_a_deleted_one_is_a_tombstone() {
        let change = |json| -> Effect {
            Effect::State(StateChange {
                generator: "g1".into(),
                partition: PartitionId(3),
                is_decommissioned: false,
                json,
                offset: Offset(0),
                from: Offset(0),
            })
        };
        let (encoder, kept, deleted) = (encoder(), change(Some(b"{}".to_vec())), change(None));
        let record = encoder.record(&kept);
        assert_eq!((record.topic, record.partition), ("g_state", Some(PartitionId(3))));
        assert_eq!(record.value.as_deref(), Some(&b"{}"[..]));
        assert_eq!((encoder.record(&deleted).key, encoder.record(&deleted).value), (record.key, None));
    }
}
