//! Transforms a reading before it is forwarded, and makes a dead letter of one that a step fails on.

use genwatch_core::transform::record::Record;
use genwatch_core::transform::{Failure, Outcome, Transform};
use genwatch_core::types::Millis;
use genwatch_kafka::forward::{Forwarded, OwnHeader};
use rumqttc::Publish;

use super::passing::{Kind, user_properties};
use super::{Bridge, BridgeError};
use crate::mqtt::message::MAX_AHEAD_MS;
use crate::service::targets::{Route, Targets};

/// What becomes of a reading.
pub(super) enum Transformed {
    /// Forward it as it is.
    Unchanged,
    /// Forward it with these changes.
    Changed(Changes),
    /// A step filtered it out.
    Filtered,
    /// A step failed.
    Failed(Failure),
    /// Kafka doesn't say whether its target exists: ask again later.
    Later,
}

/// What steps changed of a record.
#[derive(Debug)]
pub(super) struct Changes {
    topic: Option<String>,
    value: Option<Vec<u8>>,
    at: Option<Millis>,
}

impl Changes {
    /// Returns the record with the changes. Its key stays: it decides on partition and order.
    pub(super) fn on<'a>(&'a self, record: Forwarded<'a>) -> Forwarded<'a> {
        Forwarded {
            topic: self.topic.as_deref().unwrap_or(record.topic),
            value: self.value.as_deref().or(record.value),
            at: self.at.unwrap_or(record.at),
            ..record
        }
    }
}

/// Applies the steps to a message that is about to become this record.
pub(super) fn transformed(
    transform: &Transform,
    targets: &mut Targets,
    record: &Forwarded<'_>,
    (mqtt_topic, publish): (&str, &Publish),
    now: Millis,
) -> Transformed {
    let headers = user_properties(publish);
    let input = Record {
        timestamp: Some(record.at),
        key: record.key,
        mqtt_topic: Some(mqtt_topic),
        headers: &headers,
        ..Record::new(record.topic, &publish.payload)
    };
    let changed = match transform.apply(&input) {
        Ok(Outcome::Unchanged) => return Transformed::Unchanged,
        Ok(Outcome::Filtered(_)) => return Transformed::Filtered,
        Ok(Outcome::Changed(changed)) => *changed,
        Err(failure) => return Transformed::Failed(failure),
    };
    if let Some(set) = changed.timestamp.as_ref().filter(|set| set.value.since(now) > MAX_AHEAD_MS) {
        let cause = format!("the timestamp {} is more than a minute ahead", set.value.0);
        return Transformed::Failed(set.step.failure(cause));
    }
    if let Some(set) = &changed.target {
        match targets.check(&set.value, record.topic) {
            Route::Open => {}
            Route::Refused(cause) => return Transformed::Failed(set.step.failure(cause)),
            Route::Unknown => return Transformed::Later,
        }
    }
    Transformed::Changed(Changes {
        topic: changed.target.map(|set| set.value.into_owned()),
        value: changed.fields.map(|fields| fields.to_json()),
        at: changed.timestamp.map(|set| set.value),
    })
}

impl Bridge {
    /// Sends a message that a step failed on to the dead letters, unchanged.
    pub(super) fn send_dead_letter(
        &mut self,
        number: u64,
        (mqtt_topic, publish): (&str, &Publish),
        key: Option<&[u8]>,
        at: Millis,
        failure: &Failure,
    ) -> Result<(), BridgeError> {
        let config = &self.config;
        let own = |(name, value): &(String, String)| (name.clone(), Some(value.clone().into_bytes()));
        let mut headers: Vec<OwnHeader> = user_properties(publish).iter().map(own).collect();
        let origin = [("dlq.mqtt.topic", mqtt_topic)];
        headers.extend(failure.dead_letter_headers(&config.topics.readings, &origin, &config.client_id));
        let topic = config.topics.dead_letters.clone();
        let value = Some(publish.payload.as_ref());
        let record = Forwarded { topic: &topic, partition: None, key, value, at, headers: &headers };
        if self.send(number, Kind::DeadLetter, record, publish)? && self.summary.failed(&failure.step) {
            tracing::warn!(
                of = mqtt_topic,
                why = %failure,
                "a message became a dead letter; further ones of this step are only counted"
            );
        }
        Ok(())
    }
}
