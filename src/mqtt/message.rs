//! Turns an MQTT message into a Kafka record.
//!
//! Must not know: clients, clocks.

use std::borrow::Cow;

use genwatch_core::types::Millis;
use serde::{Deserialize, Serialize};

use super::topic::TopicPattern;

/// The MQTT 5 user property with the time a reading was taken: milliseconds since the Unix epoch.
pub const TIMESTAMP: &str = "timestamp";

/// How far a device's clock may be ahead. Brokers refuse timestamps more than an hour ahead
/// (`message.timestamp.after.max.ms`), and a reading from the future would make all others late.
pub(super) const MAX_AHEAD_MS: i64 = 60_000;

/// The topics of readings and of connection statuses.
#[derive(Clone, Debug)]
pub struct TopicPatterns {
    /// `--mqtt-topic`
    pub readings: TopicPattern,
    /// `--mqtt-status-topic`
    pub status: TopicPattern,
}

/// What a message becomes.
#[derive(Debug, PartialEq, Eq)]
pub enum Translation<'a> {
    /// A record of the readings topic. The payload is unchanged: the worker judges whether it is a valid reading.
    Reading {
        /// The generator; `None` if neither the topic nor the payload names it, which makes it a bad record.
        key: Option<Cow<'a, str>>,
    },
    /// A record of the status topic, its value already encoded; `None` deletes the generator's status.
    Status {
        /// The generator.
        key: &'a str,
        /// JSON.
        value: Option<Vec<u8>>,
    },
    /// An invalid status: no record.
    NotAStatus,
    /// A message in neither a readings nor a status topic: no record.
    NotSubscribed,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(rename = "generatorID")]
    generator: &'a str,
    status: Presence,
    at: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Presence {
    Online,
    Offline,
}

impl TopicPatterns {
    /// Translates a message by its topic. `at`: when it was sent.
    #[must_use]
    pub fn translate<'a>(&self, topic: &'a str, payload: &'a [u8], at: Millis) -> Translation<'a> {
        if self.status.matches(topic) {
            let Some(key) = self.status.generator(topic) else { return Translation::NotAStatus };
            // An empty retained message deletes the topic's retained message in MQTT.
            if payload.is_empty() {
                return Translation::Status { key, value: None };
            }
            let Some(status) = presence(payload) else { return Translation::NotAStatus };
            let value = serde_json::to_vec(&Status { generator: key, status, at });
            return value
                .map_or(Translation::NotAStatus, |value| Translation::Status { key, value: Some(value) });
        }
        if !self.readings.matches(topic) {
            return Translation::NotSubscribed;
        }
        let named = self.readings.generator(topic).map(Cow::Borrowed);
        Translation::Reading { key: named.or_else(|| generator_in(payload)) }
    }
}

/// Parses `online`, `"online"`, or an object with such a `status`.
fn presence(payload: &[u8]) -> Option<Presence> {
    #[derive(Deserialize)]
    struct Object {
        status: Presence,
    }
    match payload.trim_ascii() {
        b"online" => Some(Presence::Online),
        b"offline" => Some(Presence::Offline),
        json => serde_json::from_slice(json)
            .or_else(|_| serde_json::from_slice(json).map(|Object { status }| status))
            .ok(),
    }
}

fn generator_in(payload: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(rename = "generatorID", borrow)]
        generator: Cow<'a, str>,
    }
    serde_json::from_slice::<Named<'_>>(payload).ok().map(|named| named.generator)
}

/// Returns when the reading was taken: the device's time if plausible, else now.
#[must_use]
pub fn taken_at(properties: &[(String, String)], now: Millis) -> Millis {
    said_at(properties).filter(|at| at.0 >= 0 && at.since(now) <= MAX_AHEAD_MS).unwrap_or(now)
}

/// Returns the device's time, plausible or not.
#[must_use]
pub fn said_at(properties: &[(String, String)]) -> Option<Millis> {
    let said = properties.iter().find(|(name, _)| name == TIMESTAMP)?;
    said.1.parse().ok().map(Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_766_400_000_000);

    fn tree(readings: &str) -> TopicPatterns {
        TopicPatterns {
            readings: readings.parse().expect("valid"),
            status: "g/{generatorID}/status".parse().expect("valid"),
        }
    }

    fn key_of(readings: &str, topic: &str, payload: &str) -> Option<String> {
        match tree(readings).translate(topic, payload.as_bytes(), NOW) {
            Translation::Reading { key } => key.map(Cow::into_owned),
            other => panic!("{other:?}"),
        }
    }

    fn status_of(payload: &str) -> Option<Option<String>> {
        match tree("g/{generatorID}/telemetry").translate("g/generator4/status", payload.as_bytes(), NOW) {
            Translation::Status { key, value } => {
                assert_eq!(key, "generator4");
                Some(value.map(|value| String::from_utf8(value).expect("text")))
            }
            Translation::NotAStatus => None,
            other => panic!("a status, not {other:?}"),
        }
    }

    #[test]
    fn the_topic_names_the_generator_whatever_the_payload_claims() {
        let key =
            key_of("g/{generatorID}/telemetry", "g/generator4/telemetry", r#"{"generatorID":"generator5"}"#);
        assert_eq!(key.as_deref(), Some("generator4"));
    }

    #[test]
    fn without_a_level_for_it_the_payload_does() {
        assert_eq!(key_of("g/#", "g/a/b", r#"{"fuel":1,"generatorID":"g\u00e9n"}"#).as_deref(), Some("gén"));
        assert_eq!(key_of("g/#", "g/a/b", "rubbish"), None);
        assert_eq!(key_of("g/#", "g/a/b", r#"{"generatorID":7}"#), None);
    }

    #[test]
    fn a_status_is_said_in_a_word_or_in_json() {
        let json = |word: &str| {
            Some(Some(format!(r#"{{"generatorID":"generator4","status":"{word}","at":{}}}"#, NOW.0)))
        };
        assert_eq!(status_of("online"), json("online"));
        assert_eq!(status_of(" offline\n"), json("offline"));
        assert_eq!(status_of("\"offline\""), json("offline"));
        assert_eq!(status_of(r#"{"status":"online","uptime":7}"#), json("online"));
        assert_eq!(status_of(""), Some(None), "deletes");
        assert_eq!(status_of("maybe"), None);
        assert_eq!(status_of(r#"{"state":"online"}"#), None);
    }

    #[test]
    fn a_topic_of_another_subscription_is_none_of_ours() {
        let tree = tree("g/{generatorID}/telemetry");
        let found = tree.translate("sites/north/generator4/telemetry", b"{}", NOW);
        assert_eq!(found, Translation::NotSubscribed);
    }

    #[test]
    fn a_device_says_when_a_reading_was_taken() {
        let at = |value: &str| {
            taken_at(&[("a".to_owned(), "1".to_owned()), (TIMESTAMP.to_owned(), value.to_owned())], NOW)
        };
        assert_eq!(at("1766399999000"), Millis(1_766_399_999_000));
        assert_eq!(at("1766400059000"), Millis(1_766_400_059_000), "a minute ahead");
        assert_eq!(at("1766400061000"), NOW, "a clock that is wrong");
        assert_eq!(at("-1"), NOW);
        assert_eq!(at("yesterday"), NOW);
        assert_eq!(taken_at(&[], NOW), NOW);
    }
}
